"""The pages and what notebooks say, as texts; and the results in a text that no file backs."""

from __future__ import annotations

import json
import re

from conftest import ROOT

# commands, links, and words with a digit in them: names of models, versions, files
NAMES = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|[A-Za-z][\w.-]*\d[\w.-]*|\d[\d.]*B\b", re.DOTALL)
RESULT = re.compile(  # percentages, gains, decimals, numbers from 1,000 on, counts of what is measured
    r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?%|(?<![\w.])[+-]\d+(?:\.\d+)?"
    r"|(?<![\w.,])\d+\.\d+(?![.\w])|(?<![\w.,])\d{1,3}(?:,\d{3})+"
    r"|(?<![\w.,-])\d{2,}(?= (?:held-out|tokens?|minutes|seconds|points|chains|problems|examples|times|steps|pairs"
    r"|answers|solutions|attempts|completions|GiB)\b)"
)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}  # fmt: skip


def shown(row: dict) -> int:
    """1 or -1 if the interval lies above or below zero, 0 if it holds zero."""
    return (row["ci_low"] > 0) - (row["ci_high"] < 0)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def unbacked(text: str, backed: set[str]) -> list[str]:
    """The results in a text that stand in none of the words `backed`, nor in code, links or names."""
    text = flat(text)
    free = [True] * len(text)
    names = (match.span() for match in NAMES.finditer(text))
    found = (match.span() for words in backed for match in re.finditer(re.escape(words), text))
    for first, end in (*names, *found):
        free[first:end] = [False] * (end - first)
    return [match[0] for match in RESULT.finditer(text) if all(free[slice(*match.span())])]


def told(stage: str) -> str:
    """What a notebook says outside its code."""
    cells = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")

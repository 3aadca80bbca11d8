"""Texts that remember what tests found in them: there a number stands in words that a test made of a named file."""

from __future__ import annotations

import json
import re

from conftest import ROOT

# commands, links, and words with a digit in them: names of models, versions, files
NAMES = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|[A-Za-z][\w.-]*\d[\w.-]*|\d[\d.]*B\b")
RESULT = re.compile(  # percentages, gains, decimals, numbers from 1,000 on; a count in words or below is not looked at
    r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?%|(?<![\w.])[+-]\d+(?:\.\d+)?"
    r"|(?<![\w.,])\d+\.\d+(?![.\w])|(?<![\w.,])\d{1,3}(?:,\d{3})+"
)


class Remembered(str):
    """A text with blanks for line breaks; `backed` holds the words that were looked for in it and found."""

    backed: set[str]

    def __new__(cls, text: str) -> Remembered:
        made = super().__new__(cls, flat(text))
        made.backed = set()
        return made

    def __contains__(self, words: object) -> bool:
        found = super().__contains__(flat(str(words)))
        if found:
            self.backed.add(flat(str(words)))
        return found


def flat(text: str) -> str:
    return text if isinstance(text, Remembered) else re.sub(r"\s+", " ", text)


def unbacked(text: str, backed: set[str]) -> list[str]:
    """The results in a text that stand in none of the words `backed`."""
    free = [True] * len(text)
    names = (match.span() for match in NAMES.finditer(text))
    found = (match.span() for words in backed for match in re.finditer(re.escape(words), text))
    for first, end in (*names, *found):
        free[first:end] = [False] * (end - first)
    return [match[0] for match in RESULT.finditer(text) if all(free[slice(*match.span())])]


def told(stage: str) -> str:
    """What a notebook says outside its code."""
    cells = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


README = Remembered((ROOT / "README.md").read_text())
NOTEBOOKS = {path.stem: Remembered(told(path.stem)) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}

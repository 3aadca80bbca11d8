"""How a measurement was asked: `asked.json` beside its answers, the one file that pins it and says where it ran."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from distil.llm.prompts import prompt_of
from distil.models.student import TOP_P
from distil.verify.registry import verifier_of
from distil.workspace.environment import environment
from distil.workspace.files import write_text
from distil.workspace.rows import Problem
from distil.workspace.stage import Stage

FILE = "asked.json"
FIGURES = ("accuracy_tokens", "tokens", "difficulty", "pass_at_k")
SHOWN = (
    "results.csv",
    "results.md",
    "by_checkpoint.csv",
    "differences.jsonl",
    "README.md",
)  # and the figures: all follows from answers


def pin(suite: str, source: dict, problems: Sequence[Problem], student_format: str = "plain", **asked: object) -> dict:
    """What pins a measurement: the words in which the `problems` are asked, where they come from, the sampling.

    `prompt` is that of the first problem. Where some problems want a program and some an answer, `prompt_others` is
    that of the other kind.
    """

    def shown(problem: Problem) -> list[dict]:
        return prompt_of(problem, student_format)

    kinds: dict[str, Problem] = {}
    for problem in problems:
        prompt = verifier_of(problem).prompt_name("student")
        kinds.setdefault(prompt, problem.replace(question="{question}"))
    words = dict(zip(("prompt", "prompt_others"), map(shown, kinds.values()), strict=False))
    return {
        "suite": suite,
        "source": source,
        **words,
        "student_format": student_format,
        **asked,
        **({"top_p": TOP_P, "top_k": "off"} if asked["temperature"] else {"sampling": "greedy"}),
        "repetition_penalty": 1.0,
    }


def write(stage: Stage, folder: str, pinned: dict) -> None:
    """Write `asked.json` into a folder of 07: what was pinned, the stage's parameters, and the machine.

    What an earlier measurement has shown there is removed first: it was asked otherwise. Its answers stay. Cards are
    written before the stage ends, so before its meta.json is there.
    """
    figures = [f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".svg", ".csv")]
    for name in (*SHOWN, *figures):
        (stage.folder / folder / name).unlink(missing_ok=True)
    content = pinned | {"params": stage.params} | environment()
    write_text(stage.path(f"{folder}{FILE}"), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def not_as_published(folder: Path) -> str:
    """What `asked.json` in a folder says sets these figures apart from published ones; empty if there is nothing."""
    file = folder / FILE
    source = json.loads(file.read_text(encoding="utf-8"))["source"] if file.exists() else {}
    return source.get("not_as_published", "")

"""The rows that pass from stage to stage, each documented once: problems, chains, training rows, pairs, completions.

A row is a line of a JSON Lines file on disk and an object in memory: `Chain.from_dict(line)`, `chain.to_dict()`.
Fields that are not set are left out of the file. Fields that the package does not know are carried along in `extra`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(kw_only=True)
class Row:
    """What all rows can do. `extra` holds fields of the user's own file."""

    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A row from a line of a file. Raises TypeError, naming the field, if one that is required is missing."""
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        extra = {name: value for name, value in values.items() if name not in known}
        return cls(**{name: value for name, value in values.items() if name in known}, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The row as a line of a file: fields that are None or at their default are left out."""
        values = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name != "extra" and (f.default is dataclasses.MISSING or value != f.default):
                values[f.name] = as_plain(value)
        return values | self.extra

    def replace(self, **changes: Any) -> Self:
        """The same row with other values."""
        return dataclasses.replace(self, **changes)


def as_plain(value: Any) -> Any:
    """A value that JSON can say: rows within rows as dictionaries."""
    if isinstance(value, Row):
        return value.to_dict()
    if isinstance(value, list):
        return [as_plain(item) for item in value]
    return value


@dataclass(kw_only=True)
class Problem(Row):
    """A question with a checkable answer, a row of `problems.jsonl`."""

    id: str
    domain: str
    task: str  # the family within a suite, or the name of the data set
    question: str
    answer: str  # the gold answer; empty where `tests` decide
    verifier: str  # math, exact, choice, code, or reasoning_gym:FAMILY
    source: str
    split: str = ""  # train or test
    choices: list[str] | None = None  # the texts of A, B, C, ...
    tests: Any = None  # of verifier code, in one of the forms of `distil.verify.code.read_tests`
    entry_point: str = ""  # the function that the tests call
    prompt: str = ""  # code that the program continues
    solution: str = ""  # a program that passes the tests
    metadata: dict[str, Any] | None = None  # what a scorer of reasoning-gym needs


@dataclass(kw_only=True)
class Chain(Row):
    """A chain of thought for a problem, a row of `chains.jsonl`."""

    id: str
    problem_id: str
    style: str  # fast or slow as collected; long2short, expand, simplify or corrupt as rewritten
    thought: str
    solution: str
    teacher: str  # the model that wrote it
    n_tokens: int  # that model's tokens
    finish_reason: str
    correct: bool | None = None  # None: nothing here can check it
    why: str | None = None  # what is wrong with it, or why it could not be checked
    text: str | None = None  # the reply as it came, of a chain that could not be checked
    turns: bool = False  # made in several turns of one conversation
    parent: str | None = None  # the chain that this one rewrites
    ratio: float | None = None  # its tokens over those of its parent
    rv: float | None = None  # Reasoning Verbosity, 0-9, as the data set gives it
    cd: float | None = None  # Cognitive Difficulty, 0-9, as the data set gives it
    rejection_reason: str | None = None  # of a rewrite

    @property
    def full_text(self) -> str:
        """What a student learns to write: the thought, a blank line, the solution."""
        return "\n\n".join(part for part in (self.thought, self.solution) if part)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"correct": self.correct}


@dataclass(kw_only=True)
class AlignedChain(Row):
    """What the alignment loop made of a chain, a row of `aligned.jsonl`.

    `trail` has an entry a round: {round, difficulty, agreement, action, n_tokens, text} and what else the judge
    measured.
    """

    id: str
    problem_id: str
    kept: bool
    reason: str | None  # why it was not kept
    chain: Chain  # in its last form
    trail: list[dict[str, Any]]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        row = super().from_dict(values)
        row.chain = Chain.from_dict(values["chain"])
        return row


@dataclass(kw_only=True)
class TrainingRow(Row):
    """An example for supervised fine-tuning, a row of `train/*.jsonl` and `valid/*.jsonl`."""

    instruction: str
    output: str
    messages: list[dict[str, str]]  # the same as a chat
    problem_id: str
    chain_id: str = ""
    task: str = ""


@dataclass(kw_only=True)
class Pair(Row):
    """A preference pair, a row of `pairs.jsonl`."""

    prompt: list[dict[str, str]]  # chat messages
    chosen: str
    rejected: str
    gap: str  # small, medium, large or own
    beta: float  # of this pair, in the loss of CogPO
    problem_id: str
    split: str  # train; or valid: looked at, never trained on


@dataclass(kw_only=True)
class Completion(Row):
    """A student's answer to a problem, a row of `completions/*.jsonl`."""

    id: str  # of the problem
    text: str
    n_tokens: int
    finish_reason: str  # stop, or length where it was cut off
    seconds: float | None  # wall time of its batch over the answers in it; None where it is not known
    correct: bool
    answer: str | None  # as it was read; None where there is none
    sample: int = 0
    of: str = ""  # digest of weights, prompt and settings
    judged: str = ""  # digest of the problem and the verifiers that `correct` rests on

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"sample": self.sample}

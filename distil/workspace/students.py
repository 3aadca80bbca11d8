"""What the students of a run are called, and where they lie.

`fast` is the recipe fast, trained with the run's own seed (04's parameter `seed`); `fast@1` the same with seed 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from distil.workspace.errors import StageError

PLACES = {"preferred": "05_prefer", "reinforced": "06_reinforce"}  # other students are those of 04
TEACHER = "teacher"  # a row of 07 that only a server answers for: its weights are none of this run's
NAME = re.compile(r"[^@]+(@(0|[1-9][0-9]{0,8}))?")  # one spelling a seed, and seeds that every library takes


def recipe_of(student: str) -> str:
    """The recipe of a student: `fast` of `fast@1`. A folder or OWNER/NAME, which may hold an @, is its own."""
    return student if "/" in student else student.partition("@")[0]


def seed_of(student: str, default: int) -> int:
    """The training seed of a student of this run: 1 of `fast@1`; of `fast` it is `default`, the run's own."""
    return int(student.partition("@")[2] or default)


def home(student: str) -> str:
    """`<stage>/<folder>` of one of this run's students."""
    return f"{PLACES.get(recipe_of(student), '04_finetune')}/{student}"


def check(students: Sequence[str], seed: int | None = None) -> None:
    """Raise StageError for a name that no student can have, `NAME@SEED` among it; `seed` is the run's own, if known."""
    for name in students:
        if "/" in name:
            continue
        if not NAME.fullmatch(name):
            raise StageError(
                f"student {name!r}: give NAME, or NAME@SEED with a whole number of at most nine digits, as in fast@1"
            )
        if name != recipe_of(name) in ("base", TEACHER):
            raise StageError(f"student {name!r}: {recipe_of(name)} is not trained here and has no seed: leave it out")
        if name == f"{recipe_of(name)}@{seed}":
            raise StageError(
                f"student {name!r}: {seed} is the run's own seed, with which {recipe_of(name)} is trained: give "
                f"{recipe_of(name)}, or another seed"
            )

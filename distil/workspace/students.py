"""Where the students of a run lie."""

from __future__ import annotations

PLACES = {"preferred": "05_prefer", "reinforced": "06_reinforce"}  # other students are those of 04


def home(student: str) -> str:
    """`<stage>/<folder>` of one of this run's students."""
    return f"{PLACES.get(student, '04_finetune')}/{student}"

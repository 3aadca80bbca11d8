"""Answers come by checkpoint, `fast` and `fast@1`; what is shown goes by recipe, over its training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distil.models.published import own
from distil.workspace.rows import Completion
from distil.workspace.students import recipe_of

Answers = Mapping[str, Sequence[Completion]]  # by checkpoint


def by_recipe(answers: Answers) -> dict[str, list[Sequence[Completion]]]:
    """The answers of each checkpoint of each recipe, in the order in which they were measured."""
    found: dict[str, list[Sequence[Completion]]] = {}
    for name, rows in answers.items():
        found.setdefault(recipe_of(name), []).append(rows)
    return found


def pooled(answers: Answers) -> dict[str, list[Completion]]:
    """The answers of all checkpoints of each recipe together."""
    return {recipe: [row for rows in each for row in rows] for recipe, each in by_recipe(answers).items()}


def paired(answers: Answers, of: str, to: str) -> list[tuple[str, str]]:
    """The checkpoints of two recipes that are set against each other: those of one training seed.

    What has no seed of this run, the base, the teacher and what others published, stands against any.
    """
    ours, theirs = (
        {name.removeprefix(recipe): name for name in answers if recipe_of(name) == recipe} for recipe in (of, to)
    )
    if not own(to):
        return [(name, to) for name in ours.values()]
    if not own(of):
        return [(of, name) for name in theirs.values()]
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]

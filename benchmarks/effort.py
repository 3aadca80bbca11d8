"""Does a student think longer where it is harder? Tokens against difficulty, of answers kept in a folder of results.

python -m benchmarks.effort FOLDER

Writes FOLDER/effort.json. The difficulty of a problem for a student is the share of wrong answers of all other recipes,
each counted once: so a student's own mistakes are not in it. `slope` is that of the binary logarithm of its tokens,
by least squares over the problems; 2 to the slope is how many times as many tokens a problem takes that all others
miss as one that all others solve. Intervals are over training seeds and questions (distil.workspace.statistics).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from benchmarks.reference_run.claim import answers
from distil.evaluate.recipes import Answers, by_recipe, paired
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.statistics import seeds_and_questions
from distil.workspace.students import recipe_of

DRAWS, SEED = 4000, 0  # of a bootstrap over questions
COMPARED = ("fast", "slow")  # slopes of the others minus theirs


def slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of each row: `x` and `y` have a row a sample, a column a question."""
    x0, y0 = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    return (x0 * y0).sum(-1) / (x0**2).sum(-1)


def difficulties(given: Answers) -> dict[str, np.ndarray]:
    """For each recipe a value a question, 0 (easy) to 1: the share of wrong answers of all other recipes."""
    wrong = {
        name: np.mean([[not row.correct for row in rows] for rows in each], axis=0)
        for name, each in by_recipe(given).items()
    }
    return {name: np.mean([one for other, one in wrong.items() if other != name], axis=0) for name in wrong}


def with_interval(by_seed: np.ndarray, draws: np.ndarray) -> dict:
    """{slope, ci_low, ci_high, by_seed} of slopes by seed and of their mean in each draw of questions."""
    low, high = np.percentile(draws, [2.5, 97.5])
    if len(by_seed) > 1:
        low, high = seeds_and_questions(by_seed.tolist(), float(low), float(high))
    figures = {"slope": by_seed.mean(), "ci_low": low, "ci_high": high}
    return {key: round(float(value), 4) for key, value in figures.items()} | {
        "by_seed": [round(float(slope), 4) for slope in by_seed]
    }


def effort(given: Answers) -> dict:
    """{students: name to slope, minus: name to (other to difference of slopes)}, each as `with_interval` has it.

    Differences are of checkpoints of one training seed, paired by question.
    """
    hard, names = difficulties(given), by_recipe(given)
    n = len(next(iter(hard.values())))
    drawn = np.random.default_rng(SEED).integers(0, n, (DRAWS, n))
    logs = {name: np.log2([max(1, row.n_tokens) for row in rows]) for name, rows in given.items()}

    def of(recipe: str, checkpoints: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Slopes of the checkpoints, and of their mean in each draw."""
        y = np.array([logs[name] for name in checkpoints])
        return slopes(hard[recipe], y), slopes(hard[recipe][drawn], y.mean(0)[drawn])

    minus: dict[str, dict] = {}
    for name, other in permutations(names, 2):
        if other in COMPARED and (pairs := paired(given, name, other)):
            ours, theirs = (of(*side) for side in zip((name, other), zip(*pairs, strict=True), strict=True))
            minus.setdefault(name, {})[other] = with_interval(ours[0] - theirs[0], ours[1] - theirs[1])
    own = {name: [one for one in given if recipe_of(one) == name] for name in names}
    return {"students": {name: with_interval(*of(name, own[name])) for name in names}, "minus": minus}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    place = Path(sys.argv[1])
    try:
        found = {"command": f"python -m benchmarks.effort {place.as_posix()}"} | effort(answers(place))
    except StageError as error:
        print(f"effort: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    write_text(place / "effort.json", json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["students"], indent=1))

"""The reward of GRPO, term by term, and the guards that say when it teaches nothing or the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence

from distil.verify.registry import is_correct, verifier_of
from distil.workspace.errors import StageError
from distil.workspace.rows import Problem

TERMS = ("correct", "rv", "cd", "format", "short")
REWARDS = {  # what may stand for a list of weights: the whole reward, and what it is worth without a part of it
    "full": "rv:0.2,cd:0.2,format:0.1",
    "correctness": "",
    "length": "short:0.4,format:0.1",
    "no-cd": "rv:0.4,format:0.1",
    "no-gate": "rv:0.2,cd:0.2,format:0.1,gate:0",
}
CD_CAP = 5.0  # grade of difficulty up to which a chain costs nothing
FIRST = 8  # steps of a reward that never differs, after which a run is stopped
ENOUGH = 20  # steps from which a trend of the length can be told from the luck of the draw
COLLAPSE, EXPLOSION = 0.5, 2.0  # of the mean length at the end, against that at the beginning


def parse_weights(text: str) -> tuple[dict[str, float], bool]:
    """({term: weight}, gated) from a name in `REWARDS` or from "rv:0.2,cd:0.2,format:0.1"; `correct` weighs 1.

    `gate:0` takes the gate off: the style terms then count for wrong answers, too. Raises StageError for anything else.
    """
    weights, gate = {"correct": 1.0}, 1.0
    for part in filter(None, REWARDS.get(text, text).split(",")):
        name, colon, value = (piece.strip() for piece in part.partition(":"))
        try:
            number = float(value)
        except ValueError:
            colon, number = "", 0.0
        if not colon or name not in (*TERMS, "gate") or (name == "gate" and number not in (0, 1)):
            raise StageError(
                f"weights {text!r}: write one of {', '.join(REWARDS)}, or name:number for {', '.join(TERMS[1:])}, "
                "separated by commas (gate:0 lets style count for wrong answers)"
            )
        if name == "gate":
            gate = number
        else:
            weights[name] = number
    return {term: weights.get(term, 0.0) for term in TERMS}, bool(gate)


def well_formed(text: str, problem: Problem) -> float:
    """1.0 for a text that shows its steps, none of them twice, and one answer in the form asked for; else 0.0."""
    verifier = verifier_of(problem)
    steps = verifier.reasoning_steps(text)
    return float(verifier.answers_once(text, problem) and bool(steps) and len(set(steps)) == len(steps))


def reward_terms(
    text: str,
    problem: Problem,
    rv: float,
    cd: float,
    line: tuple[float, float],
    used: float,
    gated: bool = True,
    correct: bool | None = None,
) -> dict[str, float]:
    """Every term of the reward of one completion, unweighted, each in 0-1.

    `rv` and `cd` are its grades, 0-9; `line` is (a, b) of the verbosity asked for; `used` the share, 0-1, of the tokens
    allowed that it took. If `gated`, the style terms rv, cd and short are multiplied by correctness: a wrong answer
    cannot buy itself reward with a pleasant length. `correct` says whether the answer is right, where that is known
    already. rv: 1 - |RV - RV*|/9, RV* = clip(a + b*CD, 0, 9); cd:
    1 - max(0, CD - cap)/9; short: 1 - used. (Our own; the source of RV and CD gives no formula.)
    """
    correct = float(is_correct(text, problem, boxed_only=True) if correct is None else correct)
    wanted = min(9.0, max(0.0, line[0] + line[1] * cd))
    gate = correct if gated else 1.0
    return {
        "correct": correct,
        "rv": gate * (1 - abs(rv - wanted) / 9),
        "cd": gate * (1 - max(0.0, cd - CD_CAP) / 9),
        "format": well_formed(text, problem),
        "short": gate * (1 - min(1.0, used)),
    }


def target_verbosity(scores: Sequence[dict]) -> tuple[float, float]:
    """(a, b) of RV* = a + b*CD, least squares over the judge's grades of correct chains."""
    import numpy as np

    rv, cd = np.array([s["rv"] for s in scores], float), np.array([s["cd"] for s in scores], float)
    if np.ptp(cd) == 0:
        return float(rv.mean()), 0.0
    b, a = np.polyfit(cd, rv, 1)
    return float(a), float(b)


def check_spread(log: Sequence[dict]) -> None:
    """Raise StageError, saying why, if in the first `FIRST` steps no two attempts at a problem earned differently.

    `log` holds {stuck, correct, cut_off} of the steps so far: the share of problems without any difference, of right
    answers and of answers cut off at the limit.
    """
    first = log[:FIRST]
    if len(first) < FIRST or any(row["stuck"] < 1 for row in first):
        return
    right, cut = (sum(row[key] for row in first) / FIRST for key in ("correct", "cut_off"))
    if cut > 0.5:
        why = f"{cut:.0%} of the answers were cut off: raise max_completion"
    elif right > 0.5:
        why = "the student solves these problems every time: take harder ones"
    elif right == 0:
        why = "the student never solves these problems: take easier ones (`distil filter`), or train longer in 04"
    else:
        why = "its attempts at a problem do not differ: raise `group`"
    raise StageError(f"GRPO: the reward was the same for all attempts in each of the first {FIRST} steps; {why}")


def length_trend(lengths: Sequence[float]) -> tuple[str, float]:
    """(steady, collapse or explosion; the ratio): mean length of the last quarter of steps over that of the first.

    A step's length depends on the problems drawn, so that fewer than `ENOUGH` steps say nothing.
    """
    part = max(1, len(lengths) // 4)
    ratio = sum(lengths[-part:]) / max(1e-9, sum(lengths[:part]))
    word = "collapse" if ratio < COLLAPSE else "explosion" if ratio > EXPLOSION else "steady"
    return word if len(lengths) >= ENOUGH else "too few steps to say", round(ratio, 2)

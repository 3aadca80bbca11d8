"""The reward of GRPO, term by term, and the guards that stop a run which teaches nothing or the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from distil.models import formats
from distil.verify.registry import is_correct, verifier_of
from distil.workspace.errors import StageError
from distil.workspace.rows import Problem

TERMS = ("correct", "rv", "cd", "format", "short")
REWARDS = {  # names for lists of weights: the whole reward, and the reward without a part of it
    "full": "rv:0.2,cd:0.2,format:0.1",
    "correctness": "",
    "length": "short:0.4,format:0.1",
    "no-cd": "rv:0.4,format:0.1",
    "no-gate": "rv:0.2,cd:0.2,format:0.1,gate:0",
}
CD_CAP = 5.0  # grade of difficulty up to which a chain costs nothing
FIRST_STEPS = 8  # if the reward differs in none of them, the run is stopped
TREND_STEPS = 20  # from which a trend of the length can be told from the luck of the draw
COLLAPSE, EXPLOSION = 0.5, 2.0  # of the mean length at the end, against that at the beginning
TRL_COLUMNS = {  # what TRL's log calls the fields of a `Step`
    "step": "step",
    "reward": "reward",
    "stuck": "frac_reward_zero_std",
    "tokens": "completions/mean_length",
    "cut_off": "completions/clipped_ratio",
    **{term: f"rewards/{term}/mean" for term in TERMS},
}


@dataclass(kw_only=True)
class Step:
    """A step of GRPO, a row of `rewards.csv`. The terms are means over the attempts, unweighted."""

    step: int
    reward: float
    stuck: float  # share of problems whose attempts all earned the same
    tokens: float  # mean length of an attempt
    cut_off: float  # share of attempts cut off at the limit
    correct: float
    rv: float
    cd: float
    format: float
    short: float


def parse_weights(text: str) -> tuple[dict[str, float], bool]:
    """({term: weight}, gated) from a name in `REWARDS` or from "rv:0.2,cd:0.2,format:0.1"; `correct` weighs 1.

    `gate:0` takes the gate off: the style terms then count for wrong answers, too. Raises StageError for any other
    text.
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


def well_formed(text: str, problem: Problem, student_format: str = "plain") -> float:
    """1.0 for a text of the format that shows its steps, none of them twice, and one answer as asked for; else 0.0."""
    verifier = verifier_of(problem)
    steps = verifier.reasoning_steps(formats.untagged(text))
    answered = verifier.answers_once(formats.said(text), problem) and formats.fault(text, student_format) is None
    return float(answered and bool(steps) and len(set(steps)) == len(steps))


def reward_terms(
    text: str,
    problem: Problem,
    *,
    rv: float,
    cd: float,
    line: tuple[float, float],
    used: float,
    gated: bool = True,
    correct: bool | None = None,
    student_format: str = "plain",
) -> dict[str, float]:
    """Every term of the reward of one completion, unweighted, each in 0-1.

    `rv` and `cd` are its grades, 0-9. `line` is (a, b) of the verbosity asked for. `used` is the share, 0-1, of the
    allowed tokens that it took. `correct` says whether the answer is right; None asks the verifier. If `gated`, the
    style terms rv, cd and short are multiplied by correctness: a wrong answer earns nothing by a pleasant length.

    rv: 1 - |RV - RV*|/9 with RV* = clip(a + b*CD, 0, 9). cd: 1 - max(0, CD - cap)/9. short: 1 - used. (The formulas
    are our own; the source of RV and CD gives none.)
    """
    correct = float(is_correct(formats.said(text), problem, boxed_only=True) if correct is None else correct)
    wanted = min(9.0, max(0.0, line[0] + line[1] * cd))
    gate = correct if gated else 1.0
    return {
        "correct": correct,
        "rv": gate * (1 - abs(rv - wanted) / 9),
        "cd": gate * (1 - max(0.0, cd - CD_CAP) / 9),
        "format": well_formed(text, problem, student_format),
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


def steps_of(log: Sequence[dict]) -> list[Step]:
    """The steps of TRL's log."""
    return [Step(**{name: row[column] for name, column in TRL_COLUMNS.items()}) for row in log if "reward" in row]


def check_spread(steps: Sequence[Step]) -> None:
    """Raise StageError, saying why, if in each of the first `FIRST_STEPS` all attempts at a problem earned the same."""
    first = steps[:FIRST_STEPS]
    if len(first) < FIRST_STEPS or any(step.stuck < 1 for step in first):
        return
    right = sum(step.correct for step in first) / FIRST_STEPS
    cut = sum(step.cut_off for step in first) / FIRST_STEPS
    if cut > 0.5:
        why = f"{cut:.0%} of the answers were cut off: raise max_completion"
    elif right > 0.5:
        why = "the student solves these problems every time: take harder ones"
    elif right == 0:
        why = "the student never solves these problems: take easier ones (`distil filter`), or train longer in 04"
    else:
        why = "its attempts at a problem do not differ: raise `group`"
    raise StageError(f"GRPO: the reward was the same for all attempts in each of the first {FIRST_STEPS} steps; {why}")


def both_ends(rewards: Sequence[float]) -> dict[str, float | int | None]:
    """The mean reward of the first steps and of the last, as fields of `GRPOResult`; pm is twice the standard error.

    A step's reward depends on the problems drawn. So each end is a quarter of the steps, at least `FIRST_STEPS` if
    there are twice as many, else half of them.
    """
    n = max(1, min(len(rewards) // 2, max(FIRST_STEPS, len(rewards) // 4)))
    found: dict[str, float | int | None] = {"reward_steps": n}
    for name, some in (("first", rewards[:n]), ("last", rewards[-n:])):
        found[f"reward_{name}"] = round(mean(some), 3)
        found[f"reward_{name}_pm"] = round(2 * stdev(some) / n**0.5, 3) if n > 1 else None
    return found


def length_trend(lengths: Sequence[float]) -> tuple[str, float]:
    """(steady, collapse or explosion; the ratio): mean length in the last quarter of steps over that in the first.

    A step's length depends on the problems drawn. So fewer than `TREND_STEPS` steps say nothing.
    """
    part = max(1, len(lengths) // 4)
    ratio = sum(lengths[-part:]) / max(1e-9, sum(lengths[:part]))
    word = "collapse" if ratio < COLLAPSE else "explosion" if ratio > EXPLOSION else "steady"
    return word if len(lengths) >= TREND_STEPS else "too few steps to say", round(ratio, 2)

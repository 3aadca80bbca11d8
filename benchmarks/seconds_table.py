"""The arithmetic of seconds.py: which problems are asked, figures of a round, medians, ratios with their intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from distil.evaluate import suites
from distil.evaluate.answers import right
from distil.workspace.row_cache import RowCache
from distil.workspace.rows import Problem, Row
from distil.workspace.statistics import DRAWS

ROUNDS = 3
SEED = 0  # of the draw of problems, and of the bootstrap
KEY = ("student", "at_once", "round", "number")


@dataclass(kw_only=True)
class Timed(Row):
    """One answer, a row of `answers.jsonl`."""

    student: str
    at_once: int
    round: int
    number: int  # of the request in its round
    id: str  # of the problem
    of: str  # digest of weights, server, machine and request
    text: str
    n_tokens: int
    finish_reason: str
    latency: float  # seconds from the request to the end of its answer
    share: float  # of the wall time: the latency if it was asked alone, else wall time over requests


def key_of(row: Timed) -> tuple:
    return tuple(getattr(row, name) for name in KEY)


def asked(problems: Sequence[Problem], at_once: int, n: int) -> list[Problem]:
    """The problems of a round: `n`, drawn evenly over the families, or all, repeated up to `at_once`."""
    if at_once > 1:
        return list(islice(cycle(problems), max(len(problems), at_once)))
    mixed = random.Random(SEED).sample(problems, len(problems))
    return suites.by_turns(mixed)[:n]


def figures(rows: Sequence[Timed], correct: Sequence[bool]) -> dict[str, float]:
    """The figures of one round of a student."""
    seconds, tokens, latency = sum(r.share for r in rows), sum(r.n_tokens for r in rows), [r.latency for r in rows]
    return {
        "seconds": seconds,
        "seconds_per_answer": seconds / len(rows),
        "latency_median": float(np.median(latency)),
        "latency_p95": float(np.percentile(latency, 95)),
        "tokens_per_answer": tokens / len(rows),
        "tokens_per_s": tokens / seconds,
        "cut_off": sum(r.finish_reason == "length" for r in rows),
        "accuracy": sum(correct) / len(rows),
    }


def over_rounds(rounds: Sequence[dict[str, float]]) -> dict:
    """Of each figure its median over the rounds; and under `least` and `most` the ends."""
    of = {name: [found[name] for found in rounds] for name in rounds[0]}
    ends = {end: {k: round(pick(v), 4) for k, v in of.items()} for end, pick in (("least", min), ("most", max))}
    return {name: round(float(np.median(values)), 4) for name, values in of.items()} | ends


def times_fewer(theirs: Sequence[float], ours: Sequence[float]) -> dict:
    """How many times fewer `ours` are, question by question: {ratio of the means, ci_low, ci_high}.

    95% percentile bootstrap over questions, drawn in pairs. It is about these two checkpoints and this server.
    """
    drawn = np.random.default_rng(SEED).integers(len(ours), size=(DRAWS, len(ours)))
    a, b = np.asarray(theirs, float), np.asarray(ours, float)
    low, high = np.percentile(a[drawn].sum(axis=1) / b[drawn].sum(axis=1), [2.5, 97.5])
    return {"ratio": round(a.sum() / b.sum(), 3), "ci_low": round(low, 3), "ci_high": round(high, 3)}


def table(cache: RowCache[Timed], plan: dict[int, list[Problem]], names: list[str], known: dict) -> dict:
    """{rows, ratios} of the rounds that are complete; ratios over `slow`, if it is asked, else over the first."""
    rows, alone = [], {}
    for name in names:
        for at_once, problems in plan.items():
            keys = [[(name, at_once, r, i) for i in range(len(problems))] for r in range(ROUNDS)]
            rounds = [[cache.rows[k] for k in of] for of in keys if all(k in cache.rows for k in of)]
            if not rounds:
                continue
            found = [figures(of, right([row.text for row in of], problems, known=known)) for of in rounds]
            about = {"student": name, "at_once": at_once, "requests": len(problems), "rounds": len(rounds)}
            rows.append(about | over_rounds(found))
            if at_once == 1:
                alone[name] = {what: np.median([[getattr(row, field) for row in of] for of in rounds], axis=0)
                               for what, field in (("seconds", "latency"), ("tokens", "n_tokens"))}  # fmt: skip
    over = "slow" if "slow" in names else names[0]
    ratios = [
        {"student": name, "over": over, **{what: times_fewer(alone[over][what], own[what]) for what in own}}
        for name, own in alone.items()
        if over in alone and name != over
    ]
    return {"rows": rows, "ratios": ratios}

"""The verifiers by name, and what is asked of a problem's verifier most often.

Everything that depends on the kind of a problem is asked of `verifier_of(problem)`; see `distil.verify.verifier`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distil.verify.choice import Choice
from distil.verify.code import Code
from distil.verify.exact import Exact
from distil.verify.gym import ReasoningGym
from distil.verify.math import Math
from distil.verify.verifier import Verifier
from distil.workspace.environment import cores
from distil.workspace.rows import Problem

T = TypeVar("T")
VERIFIERS: dict[str, type[Verifier]] = {
    "reasoning_gym": ReasoningGym,  # reasoning_gym:FAMILY
    "math": Math,
    "choice": Choice,
    "exact": Exact,
    "code": Code,
}


@functools.cache
def verifier_named(name: str) -> Verifier:
    """The verifier of a name, `KIND` or `KIND:FAMILY`. Raises ValueError if there is none."""
    kind, _, family = name.partition(":")
    if kind not in VERIFIERS:
        known = ", ".join(f"{k}:FAMILY" if k == "reasoning_gym" else k for k in VERIFIERS)
        raise ValueError(f"verifier {name!r} is unknown; use one of {known}")
    return VERIFIERS[kind](family)


def verifier_of(problem: Problem) -> Verifier:
    """The problem's verifier. Raises ValueError if there is none of that name."""
    return verifier_named(problem.verifier)


def verifiable(problem: Problem) -> bool:
    """Can an answer to this problem be scored on this machine?"""
    return verifier_of(problem).available()


def is_right(answer: str | None, problem: Problem) -> bool:
    """Is an answer right? None is where the problem is not `verifiable`: what is not proven is no lesson."""
    return verifiable(problem) and verifier_of(problem).is_right(answer, problem)


def is_correct(text: str, problem: Problem, *, boxed_only: bool = False) -> bool:
    """Does a text give the right answer? As `is_right`; `boxed_only` is the rule for training chains."""
    return verifiable(problem) and verifier_of(problem).is_correct(text, problem, boxed_only=boxed_only)


def map_problems(work: Callable[..., T], problems: Sequence[Problem], *more: Sequence) -> list[T]:
    """`work(problem, *its part of more)` for all problems, in order. What it raises is raised.

    Of problems whose verifier is `concurrent`, one and a half a core are worked on at once.
    """
    jobs = list(zip(problems, *more, strict=True))
    waiting = [i for i, problem in enumerate(problems) if verifier_of(problem).concurrent]
    with ThreadPoolExecutor(cores() * 3 // 2) as pool:
        done = dict(zip(waiting, pool.map(lambda i: work(*jobs[i]), waiting), strict=True))
    return [done[i] if i in done else work(*job) for i, job in enumerate(jobs)]

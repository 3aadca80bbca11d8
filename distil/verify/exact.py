"""Verifier `exact`: the same text, but for case."""

from __future__ import annotations

from distil.verify.answers import normalise_answer
from distil.verify.verifier import Verifier
from distil.workspace.rows import Problem


class Exact(Verifier):
    """Answers are compared as texts, whatever their case."""

    def matches(self, answer: str, problem: Problem) -> bool:
        return answer.casefold() == normalise_answer(problem.answer).casefold()

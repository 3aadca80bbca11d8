"""Verifier `reasoning_gym:FAMILY`: the scorer of the family that generated the problem."""

from __future__ import annotations

from distil.verify.verifier import Verifier
from distil.workspace.rows import Problem


class ReasoningGym(Verifier):
    """The library scores an answer by the problem's `metadata`."""

    library = "reasoning_gym"

    def check_gold(self, problem: Problem) -> None:
        import reasoning_gym.factory

        if self.family not in reasoning_gym.factory.DATASETS:
            raise ValueError(f"verifier {problem.verifier!r}: reasoning-gym has no family {self.family!r}")

    def matches(self, answer: str, problem: Problem) -> bool:
        from reasoning_gym import get_score_answer_fn

        entry = {"question": problem.question, "answer": problem.answer, "metadata": problem.metadata}
        try:
            return get_score_answer_fn(self.family)(answer, entry) >= 0.999
        except Exception:  # some families' scorers fail on what has not the form of an answer
            return False

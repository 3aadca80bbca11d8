"""Verifier `choice`: one of several answers, by its letter or its text."""

from __future__ import annotations

import re
import string

from distil.verify.answers import normalise_answer
from distil.verify.verifier import Verifier
from distil.workspace.rows import Problem

LETTERS = string.ascii_uppercase[:10]  # A to J, as the largest common sets have ten choices


class Choice(Verifier):
    """The gold answer is a letter; field `choices` of the problem, which may be left out, holds the texts."""

    def check_gold(self, problem: Problem) -> None:
        last = LETTERS[min(len(problem.choices or LETTERS), len(LETTERS)) - 1]
        if not re.fullmatch(f"[A-{last}]", problem.answer):
            raise ValueError(f"answer {problem.answer!r}: verifier 'choice' wants one letter from A to {last}")

    def matches(self, answer: str, problem: Problem) -> bool:
        letter = chosen_letter(answer)
        if letter is not None:
            return letter == problem.answer
        if not problem.choices:
            return False
        text = problem.choices[LETTERS.index(problem.answer)]
        return answer.casefold() == normalise_answer(str(text)).casefold()


def chosen_letter(answer: str) -> str | None:
    """The letter of a multiple-choice answer: `B`, `(B)`, `B.`, `B)`, `B: text` or `B) text`; None for other texts.

    A letter that a text follows needs a sign after it: "A dog" is a text.
    """
    match = re.fullmatch(r"\(?([A-Ja-j])(?:[).:]{0,2}|[).:]{1,2}\s.*)", answer.strip(), flags=re.DOTALL)
    return match.group(1).upper() if match else None

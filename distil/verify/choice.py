"""Verifier `choice`: one of several answers, by its letter or its text."""

from __future__ import annotations

import re
import string

from distil.verify.answers import normalise_answer
from distil.verify.verifier import Verifier
from distil.workspace.rows import Problem

LETTERS = string.ascii_uppercase
LETTER = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer|选项?)(?: is)?\s*[:：]?\s*)?"
    r"(?P<open>\(?)\s*(?P<letter>[A-Z])\s*(?:[).:、]{0,2}|[).:、]{1,2}\s*(?P<text>\S.*))",
    flags=re.DOTALL | re.IGNORECASE,
)
ANOTHER = re.compile(r"\b[A-Z]\b|\b(?:or|not|wrong|incorrect|false|neither)\b|[或和不错非]")


class Choice(Verifier):
    """The gold answer is a letter; field `choices` of the problem, which may be left out, holds the texts."""

    def check_gold(self, problem: Problem) -> None:
        letters = known_letters(problem)
        if not letters:
            raise ValueError(f"{len(problem.choices or [])} choices: verifier 'choice' wants 1 to {len(LETTERS)}")
        if len(problem.answer) != 1 or problem.answer not in letters:
            wanted = f"one letter from A to {letters[-1]}"
            raise ValueError(f"answer {problem.answer!r}: verifier 'choice' wants {wanted}")

    def matches(self, answer: str, problem: Problem) -> bool:
        letters = known_letters(problem)
        if len(answer) == 1 and answer.upper() in letters:
            return answer.upper() == problem.answer
        texts = [as_text(choice) for choice in problem.choices or []]
        answer = re.sub(r"\*\*|^\\[(\[]|\\[)\]]$", "", answer).strip()
        match = LETTER.fullmatch(answer)
        if match and match["letter"].upper() in letters:
            if match["letter"].upper() != problem.answer:
                return False
            said = as_text(match["text"] or "")
            own = texts[letters.index(problem.answer)] if texts else ""
            return said in ("", own) or (said not in texts and not ANOTHER.search(match["text"]))
        if not texts:
            return False
        own = texts[letters.index(problem.answer)]
        return as_text(answer) == own and texts.count(own) == 1


def known_letters(problem: Problem) -> str:
    """The letters of a problem's choices; all where the choices are not known, none where they are too many."""
    count = len(LETTERS) if problem.choices is None else len(problem.choices)
    return LETTERS[:count] if count <= len(LETTERS) else ""


def as_text(choice: str) -> str:
    """A choice's text to be compared: without dress, case, blanks and full stop."""
    return " ".join(normalise_answer(str(choice)).casefold().split()).rstrip(".。")

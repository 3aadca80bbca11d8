"""What a verifier is: how its problems are asked, how an answer is read and scored, what a chain of them looks like.

The methods of `Verifier` are those of a problem with a short answer, which a model boxes. A new kind of verifier is a
class that defines `matches`, overrides what is different, and has a line in `distil.verify.registry`.
"""

from __future__ import annotations

from distil.verify.answers import boxed_answers, extract_answer, extract_boxed, normalise_answer
from distil.verify.chain_text import split_chain, split_steps
from distil.verify.equations import false_equation
from distil.verify.time_limit import TookTooLong, within
from distil.workspace.rows import Chain, Problem

MAX_CHARACTERS = 2000  # of an answer that is looked at, if the gold answer is no longer
TIME_LIMIT_S = 5.0  # for one answer


class Verifier:
    """One kind of verifier. `family` is what follows the colon of its name, as in `reasoning_gym:FAMILY`."""

    library = ""  # Python package that `matches` needs
    domain = ""  # of its problems in sets that name none
    needs_answer = True  # a gold answer; False where something else decides, such as tests
    asks_in_turns = True  # slow chains may be made in several turns of a conversation
    can_corrupt = True  # one wrong step can be put into a chain and carried through to a wrong answer
    concurrent = False  # scoring mostly waits, so that several answers are scored at once

    def __init__(self, family: str = ""):
        self.family = family

    # how its problems are asked

    def prompt_name(self, style: str) -> str:
        """The prompt that asks for an answer; `style` is fast or slow for a teacher, student for a student."""
        return style

    def rewrite_prompt_name(self, kind: str) -> str:
        """The prompt that asks to rewrite a chain; `kind` is long2short, expand, simplify or corrupt."""
        return kind

    # how an answer is scored

    def check_gold(self, problem: Problem) -> None:
        """Raise ValueError if the problem's gold answer cannot be read."""

    def available(self) -> bool:
        """Can answers be scored on this machine?"""
        return True

    def extract(self, text: str, problem: Problem, *, boxed_only: bool = False) -> str | None:
        """The answer that a text gives, or None. `boxed_only` accepts the form that was asked for and no other."""
        return extract_boxed(text) if boxed_only else extract_answer(text)

    def matches(self, answer: str, problem: Problem) -> bool:
        """Is `answer`, normalised, the problem's answer?"""
        raise NotImplementedError

    def compare(self, answer: str, problem: Problem) -> bool:
        """Is `answer`, as a text gave it, the problem's answer?"""
        return self.matches(normalise_answer(answer), problem)

    def is_right(self, answer: str | None, problem: Problem) -> bool:
        """Is an extracted answer right? None is not, nor is one that is far too long or takes too long to compare."""
        if answer is None or len(answer) > max(MAX_CHARACTERS, 10 * len(problem.answer)):
            return False
        try:
            return within(TIME_LIMIT_S, self.library, self.compare, answer, problem)
        except TookTooLong:
            return False

    def is_correct(self, text: str, problem: Problem, *, boxed_only: bool = False) -> bool:
        """Does a text give the right answer?"""
        return self.is_right(self.extract(text, problem, boxed_only=boxed_only), problem)

    def answers_once(self, text: str, problem: Problem) -> bool:
        """Does a text give exactly one answer, in the form that was asked for?"""
        return len(boxed_answers(text)) == 1

    def fault(self, text: str, problem: Problem, *, check_steps: bool) -> str | None:
        """What is wrong with a chain that ended by itself, or None. `check_steps` asks for true equations, too."""
        answers = boxed_answers(text)
        if len(answers) != 1:
            return "several boxed answers" if answers else "no boxed answer"
        if not self.is_correct(text, problem, boxed_only=True):
            return "wrong answer"
        return "right answer, false step" if check_steps and false_equation(text) else None

    # what a chain looks like

    def split(self, text: str, reasoning: str = "", cut: bool = False) -> tuple[str, str]:
        """(thought, solution) of a teacher's reply; see `split_chain`."""
        return split_chain(text, reasoning, cut)

    def reasoning_steps(self, text: str) -> list[str]:
        """The steps of an answer that must not repeat each other; none unless it shows its work."""
        return split_steps(text) if "\n\n" in text.strip() else []

    def rewritable(self, chain: Chain) -> str:
        """The part of a chain that a rewriter rewrites."""
        return chain.full_text

    def fixed(self, chain: Chain) -> str:
        """The part of a chain that stays after what is rewritten, as it is."""
        return ""

    def stated_answer(self, chain: Chain, problem: Problem) -> str:
        """The answer that a rewriter is told."""
        return problem.answer

    def rewrite_fault(self, text: str) -> str | None:
        """What is wrong with the form of a rewritten part, or None."""
        return None if len(boxed_answers(text)) == 1 else "not one boxed answer"

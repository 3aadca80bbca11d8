"""Is this completion right? Answers are read from the last `\\boxed{}` and checked by the problem's own verifier.

The answer of a problem with verifier `code` is the program in the last fenced block; it runs in a sandbox, or not at
all.
"""

from __future__ import annotations

import importlib
import re
import signal
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distil.verify.math import contradicts, near, plain, without_unit

LETTERS = string.ascii_uppercase[:10]  # of multiple choice: A to J, as the largest common sets have ten
LONGEST = 2000  # characters of an answer that is looked at, if the gold answer is no longer
PATIENCE = 5.0  # seconds for one answer
VERIFIERS = "reasoning_gym:FAMILY, math, choice, exact or code"


SAID = re.compile(r"(?:answer(?: is)?|答案[是为]?)\s*[:：]?\s*", re.IGNORECASE)
REVISED = re.compile(r"\b(wait|actually|correction|mistake|wrong|incorrect|sorry)\b", re.IGNORECASE)


def box_spans(text: str) -> list[tuple[int, int]]:
    r"""(begin, end) of what each `\boxed{...}` holds whose braces balance, however they nest, in order."""
    found = []
    opened: list[int | None] = []  # for each brace that is open: where a box begins, or None
    for match in re.finditer(r"\\boxed\{|[{}]", text):
        if match.group() != "}":
            opened.append(match.end() if len(match.group()) > 1 else None)
        elif opened and (begin := opened.pop()) is not None:
            found.append((begin, match.start()))
    return sorted(found)


def all_boxed(text: str) -> list[str]:
    r"""Contents of every `\boxed{...}`, as `box_spans` finds them."""
    return [text[begin:end].strip() for begin, end in box_spans(text)]


def unboxed(text: str) -> str:
    r"""A text with what its boxes hold in their place.

    >>> unboxed(r"so \boxed{\frac{1}{2}}.")
    'so \\frac{1}{2}.'
    """
    dress = {i for begin, end in box_spans(text) for i in (*range(begin - len(r"\boxed{"), begin), end)}
    return "".join(sign for i, sign in enumerate(text) if i not in dress)


def extract_boxed(text: str) -> str | None:
    r"""Content of the last balanced `\boxed{...}`; None if there is none.

    >>> extract_boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    found = all_boxed(text)
    return found[-1] if found else None


def boxed_answers(text: str) -> set[str]:
    """The different answers that a text boxes; empty boxes do not count."""
    return {clean(answer) for answer in all_boxed(text) if answer}


def extract_answer(text: str) -> str | None:
    """The boxed answer; failing that, what follows the last "answer is"; failing that, a short last line.

    Short is 30 letters or less. The second and third readings are for models never taught to box (a base student), so
    that they are not marked down for form. Of an equation the right-hand side is taken, of several sentences the first;
    None if a later one takes it back.
    """
    boxed = extract_boxed(text)
    if boxed is not None:
        return boxed
    said = [part for part in SAID.split(text)[1:] if re.search(r"\w", part.split("\n")[0])]
    last = text.strip().rsplit("\n", 1)[-1]
    if not said and len(last) > 30:
        return None
    answer, _, after = re.sub(r"([.!。])(\s)", r"\1\n\2", said[-1] if said else last).strip().partition("\n")
    if REVISED.search(after):
        return None
    if "=" in answer:
        answer = answer.rsplit("=", 1)[1]
    return answer.strip().strip('*`"$').rstrip(".!。").strip('*`"$ ') or None


def clean(answer: str) -> str:
    r"""An answer without the dress it is often boxed in: `\text{}`, dollar signs, quotes, thousands commas."""
    answer = re.sub(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\{([^{}]*)\}", r"\1", answer.strip())
    answer = answer.strip("$ ").strip()
    if len(answer) > 1 and answer[0] == answer[-1] == '"':
        answer = answer[1:-1]
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer) if re.fullmatch(r"-?[\d,]+(\.\d+)?", answer) else answer


def check_verifier(problem: dict) -> None:
    """Raise ValueError unless the problem's verifier exists and can read its gold answer."""
    kind, _, task = problem["verifier"].partition(":")
    if kind == "reasoning_gym":
        import reasoning_gym.factory

        if task not in reasoning_gym.factory.DATASETS:
            raise ValueError(f"verifier {problem['verifier']!r}: reasoning-gym has no family {task!r}")
    elif kind == "math":
        from math_verify import parse

        words = re.fullmatch(r"[^\W\d_]{2,}([ -][^\W\d_]+)*", problem["answer"])  # parsed as a product of letters
        if words or all(isinstance(part, str) for part in parse(f"${problem['answer']}$")):
            raise ValueError(f"answer {problem['answer']!r} cannot be read as mathematics; use verifier 'exact'")
    elif kind == "choice":
        last = LETTERS[min(len(problem.get("choices") or LETTERS), len(LETTERS)) - 1]
        if not re.fullmatch(f"[A-{last}]", problem["answer"]):
            raise ValueError(f"answer {problem['answer']!r}: verifier 'choice' wants one letter from A to {last}")
    elif kind == "code":
        from distil.verify.code import read_tests

        read_tests(problem)
    elif kind != "exact":
        raise ValueError(f"verifier {problem['verifier']!r} is unknown; use {VERIFIERS}")


def answered_once(text: str, problem: dict) -> bool:
    """Does a text give one answer in the form that was asked for: one boxed answer, or a program?"""
    if problem["verifier"] == "code":
        from distil.verify.code import extract_code

        return extract_code(text, problem.get("entry_point", "")) is not None
    return len(boxed_answers(text)) == 1


def verifiable(problem: dict) -> bool:
    """Can an answer to this problem be checked here? Code only where a sandbox works (see distil.sandbox.confine)."""
    if problem["verifier"] != "code":
        return True
    from distil.sandbox.confine import mechanism

    return mechanism() is not None


def chosen_letter(answer: str) -> str | None:
    """The letter of a multiple-choice answer: `B`, `(B)`, `B.`, `B)`, `B: text` or `B) text`; None for other texts.

    A letter that a text follows needs a sign after it: "A dog" is a text.
    """
    match = re.fullmatch(r"\(?([A-Ja-j])(?:[).:]{0,2}|[).:]{1,2}\s.*)", answer.strip(), flags=re.DOTALL)
    return match.group(1).upper() if match else None


def right_choice(answer: str, problem: dict) -> bool:
    """Is this the right letter, or else the text of the right choice?"""
    letter = chosen_letter(answer)
    if letter is not None:
        return letter == problem["answer"]
    if not problem.get("choices"):
        return False
    text = problem["choices"][LETTERS.index(problem["answer"])]
    return answer.casefold() == clean(str(text)).casefold()


class TookTooLong(BaseException):
    """Checking an answer takes too long. No Exception: the libraries catch those and go on."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block after so many seconds. It needs a signal, so it works in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, should the first be lost in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_answer(answer: str | None, problem: dict) -> bool:
    """Does `answer` match the problem's gold answer? None, an answer that could not be read, does not.

    No answer counts as a match where the problem is not `verifiable`: what is not proven is no lesson. Nor does one
    that is far too long, or takes too long to work out: 9^{9^{9}} would never end.
    """
    if answer is None or not verifiable(problem):
        return False
    if problem["verifier"] == "code":
        from distil.verify.code import check_code

        return check_code(answer, problem).passed
    if len(answer) > max(LONGEST, 10 * len(problem["answer"])):
        return False
    load_library(problem["verifier"])
    try:
        with patience(PATIENCE):
            return matches(clean(answer), problem)
    except TookTooLong:
        return False


def load_library(verifier: str) -> None:
    """Import what a verifier needs. The first time, on a cold disk, it takes longer than an answer may take."""
    kind = verifier.partition(":")[0]
    if library := {"reasoning_gym": "reasoning_gym", "math": "math_verify"}.get(kind):
        importlib.import_module(library)


def matches(answer: str, problem: dict) -> bool:
    """Does the problem's verifier find `answer` right?"""
    kind, _, task = problem["verifier"].partition(":")
    if kind == "reasoning_gym":
        from reasoning_gym import get_score_answer_fn

        entry = {"question": problem["question"], "answer": problem["answer"], "metadata": problem["metadata"]}
        try:
            return get_score_answer_fn(task)(answer, entry) >= 0.999
        except Exception:  # some families' scorers fail on what has not the form of an answer
            return False
    if kind == "math":
        from math_verify import parse, verify

        gold, answer = plain(clean(problem["answer"])), plain(answer)
        if contradicts(gold, answer):
            return False
        # no time limits of its own: they raise an Exception, which sympy may catch
        gold, answer = (parse(f"${without_unit(text)}$", parsing_timeout=None) for text in (gold, answer))
        same = gold and answer and verify(gold, answer, timeout_seconds=None)
        return bool(same) and near(gold[0], answer[0])
    if kind == "choice":
        return right_choice(answer, problem)
    return answer.casefold() == clean(problem["answer"]).casefold()


def is_correct(completion: str, problem: dict, *, boxed_only: bool = False) -> bool:
    """Is the completion's final answer right? `boxed_only` accepts no other form: the rule for training chains."""
    if problem["verifier"] == "code":
        from distil.verify.code import extract_code

        return check_answer(extract_code(completion, problem.get("entry_point", "")), problem)
    return check_answer(extract_boxed(completion) if boxed_only else extract_answer(completion), problem)

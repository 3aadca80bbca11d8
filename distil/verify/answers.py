"""How an answer is read from a text: the last `\\boxed{}`, or what a model never taught to box says instead."""

from __future__ import annotations

import re

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
    dress = [cut for begin, end in box_spans(text) for cut in ((begin - len(r"\boxed{"), begin), (end, end + 1))]
    ends = [0, *(end for cut in sorted(dress) for end in cut), len(text)]
    return "".join(text[begin:end] for begin, end in zip(ends[::2], ends[1::2], strict=True))


def extract_boxed(text: str) -> str | None:
    r"""Content of the last balanced `\boxed{...}`; None if there is none.

    >>> extract_boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    found = all_boxed(text)
    return found[-1] if found else None


def boxed_answers(text: str) -> set[str]:
    """The different answers that a text boxes; empty boxes do not count."""
    return {normalise_answer(answer) for answer in all_boxed(text) if answer}


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


def normalise_answer(answer: str) -> str:
    r"""An answer without the dress it is often boxed in: `\text{}`, dollar signs, quotes, thousands commas."""
    answer = re.sub(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\{([^{}]*)\}", r"\1", answer.strip())
    answer = answer.strip("$ ").strip()
    if len(answer) > 1 and answer[0] == answer[-1] == '"':
        answer = answer[1:-1]
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer) if re.fullmatch(r"-?[\d,]+(\.\d+)?", answer) else answer

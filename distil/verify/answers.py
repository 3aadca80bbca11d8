"""How an answer is read from a text: the last `\\boxed{}`, or what a model never taught to box says instead."""

from __future__ import annotations

import re

WIDE = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20}  # full-width signs and digits to ASCII
SAID = re.compile(r"(?:answer(?: is)?|答案[是为]?|故选|应选)\s*[:：]?\s*", re.IGNORECASE)
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
OTHER_BOX = re.compile(r"\\(?:boxed\s+|fbox\s*|framebox\s*)\{")
BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?![a-zA-Z])\s*((?:[-+\w.(√]|\\[a-zA-Z])[^\n$]*?)\s*(?:\$|\\\)|\\\]|\n|[.。]?\s*\Z)"
)
STATED = re.compile(r"\s*(?:(?:so|thus|therefore),? )?(?:the )?(?:final )?answer(?: is|:)|答案", re.IGNORECASE)
BARE = re.compile(r"-?[0-9A-Za-z]+(?:\.\d+)?")  # an answer without any dress
DRESS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf)|mbox|bm|boldsymbol|emph|operatorname)\s*\{([^{}]*)\}"
)
REVISED = re.compile(r"\b(wait|actually|correction|mistake|wrong|incorrect|sorry|rather)\b", re.IGNORECASE)


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
    r"""Content of the last balanced `\boxed{...}` that is not empty; "" if all are, None if there is none.

    >>> extract_boxed(r"so \boxed{\frac{1}{2}}, as \boxed{}.")
    '\\frac{1}{2}'
    """
    spans = box_spans(text)
    for begin, end in reversed(spans):
        if normalise_answer(text[begin:end]):
            return "" if begin != spans[-1][0] and REVISED.search(text[end:]) else text[begin:end].strip()
    return "" if spans else None


def boxed_answers(text: str) -> set[str]:
    """The different answers that a text boxes; empty boxes do not count."""
    return {normalise_answer(answer) for answer in all_boxed(text) if normalise_answer(answer)}


def extract_answer(text: str) -> str | None:
    r"""The boxed answer; failing that, what follows the last "answer is"; failing that, a short last line.

    Short is 30 letters or less. The second and third readings are for models never taught to box (a base student), so
    that they are not marked down for form; so are `<answer>` tags after the last box, `\fbox{}` and `\boxed 5`. Of an
    equation the right-hand side is taken, of several sentences the first; None if a later one takes it back.
    """
    tags = list(TAGGED.finditer(text))
    if tags and r"\boxed{" not in text[tags[-1].end() :]:
        text = tags[-1][1]
    boxed = extract_boxed(text if r"\boxed{" in text else OTHER_BOX.sub(lambda _: r"\boxed{", text))
    if boxed is not None:
        return boxed
    if bare := BARE_BOX.findall(text):
        return bare[-1]
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


def final_answer(text: str) -> str:
    r"""The answer that a gold answer ends with, if it is a solution: after ####, boxed, or after "The answer is"."""
    _, sign, after = text.rpartition("####")
    if sign and after.strip():
        return after.strip()
    return extract_boxed(text) or (STATED.match(text) and extract_answer(text)) or text


def normalise_answer(answer: str) -> str:
    r"""An answer without the dress it is often boxed in: `\text{}`, `**`, dollar signs, quotes, thousands commas."""
    answer = answer.strip()
    if BARE.fullmatch(answer):
        return answer
    answer = answer.translate(WIDE).strip()
    while (bared := undressed(answer)) != answer:
        answer = bared
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer) if re.fullmatch(r"-?[\d,]+(\.\d+)?", answer) else answer


def undressed(answer: str) -> str:
    """An answer without the outermost of its dress. What follows a number stays apart from it: it may be a unit."""
    answer = DRESS.sub(r"\1", re.sub(r"(?:(?<=[\d}])|(?<=\\pi))(?=\\(?:text|mathrm|mbox))", " ", answer))
    answer = re.sub(r"^(?:\*\*|[`\"])(.+?)(?:\*\*|[`\"])$", r"\1", answer)
    answer = re.sub(r"^\$(?=\d[^$]*$)", r"\\$", answer.strip())  # alone, it is money
    return re.sub(r"(?<!\\)\$$", "", answer.lstrip("$")).strip()

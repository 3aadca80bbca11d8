"""Numbers and expressions in plain LaTeX: read whole, or not at all, and compared exactly."""

from __future__ import annotations

import functools
import logging
import re
from fractions import Fraction
from typing import Any

from distil.verify.parts import bare

# it warns that it has no time limit of its own: that raises an Exception, which sympy may catch. Ours is `time_limit`'s
logging.getLogger("math_verify").setLevel(logging.ERROR)

WRITTEN = re.compile(r"[+-]?\s*(?:\d+(?:\.\d*)?|\.\d+)")  # an integer or a decimal
NUMBER = re.compile(WRITTEN.pattern + r"(?:\s*/\s*\d+)?")
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\d.])")
OPEN_END = re.compile(r"\\[lc]?dots|\.\.\.|…|\?")
RELATION = re.compile(r"([<>]|\\(?:le|ge|ne)(?![a-z]))")
COMMANDS = re.compile(r"\\[a-zA-Z]+(?:_\{\w+\})?")
# what the parser would pass over, or take for a product: signs it does not know, 3 5, x2, 5_{3}, 5.
UNREADABLE = re.compile(r"[^\x20-\x7e]|[$#@~?\"'`]|!!|[})a-zA-Z\d%!.]\s+\.?\d|[})a-zA-Z%!]\.?\d|[\d)}]_|\.(?!\d)")
PRODUCT = re.compile(r"\\approx|\d\s*\\frac|\\(?:pi|theta|alpha|beta|gamma|lambda|mu|sigma|phi|omega)\s*\d")


def number(text: str) -> Fraction | None:
    """A number as it is written, exactly; None for division by zero."""
    above, _, below = text.replace(" ", "").partition("/")
    return Fraction(above) / Fraction(below or 1) if not below or int(below) else None


def roughly(value: str, rounded: str) -> bool:
    """Is a number what another comes to, give or take a twentieth?"""
    exact, about = read(value, False), read(rounded, False)
    try:
        size = abs(complex(exact))
        return size < float("inf") and abs(complex(exact) - complex(about)) <= size / 20
    except (TypeError, ValueError, OverflowError):  # no numbers
        return False


def same_expression(gold: str, answer: str) -> bool:
    """Are two expressions equal: exactly, or one of them rounded to at least six digits?"""
    gold, answer = gold.strip(), answer.strip()
    if NUMBER.fullmatch(gold) and NUMBER.fullmatch(answer) and number(gold) == number(answer) is not None:
        return True
    if bare(gold).casefold() == bare(answer).casefold() and words_of(gold):
        return True
    fold = not any(clash(text) for text in (gold, answer))
    if not stays_with(gold, answer, fold):
        return False
    from math_verify import verify

    a, b = read(gold, fold), read(answer, fold)
    if a is None or b is None:
        return False
    written = [bool(WRITTEN.fullmatch(text)) for text in (gold, answer)]
    if written[0] != written[1] and rounds(*((gold, b) if written[0] else (answer, a))):
        return True
    # no time limit of its own: it raises an Exception, which sympy may catch
    return bool(verify(a, b, timeout_seconds=None)) and near(a, b)


def letters(text: str) -> set[str]:
    return set(re.findall("[a-zA-Z]", COMMANDS.sub(" ", text)))


def clash(text: str) -> bool:
    """Does a text use a letter both large and small?"""
    return any(letter.swapcase() in letters(text) for letter in letters(text))


def words_of(text: str) -> set[str]:
    return set(re.findall("[a-zA-Z]{3,}", COMMANDS.sub(" ", text)))


def stays_with(gold: str, answer: str, fold: bool) -> bool:
    """Does an answer use no letters, words, relations or open ends but those of the gold answer?

    Words would be read as products of letters, of which "not 0" is nought.
    """
    texts = [text.casefold() if fold else text for text in (gold, answer)]
    return (
        letters(texts[1]) <= letters(texts[0]) | {"e", "i"}
        and not (words_of(gold) or words_of(answer))
        and bool(RELATION.search(gold)) == bool(RELATION.search(answer))
        and not any(OPEN_END.search(text) or r"\infty" in text for text in texts)  # 2\infty is no answer
    )


@functools.lru_cache(maxsize=1024)
def read(text: str, fold: bool) -> Any:
    """The whole of a text as an object of sympy, its decimals exact; None if it is no expression or relation."""
    import sympy
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from latex2sympy2_extended.logic import And
    from math_verify.grader import should_treat_as_complex

    if UNREADABLE.search(COMMANDS.sub(r"\\", text)) or PRODUCT.search(text):
        return None
    text = DECIMAL.sub(lambda match: fraction(Fraction(match[0])), text)
    config = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=fold)
    real = not should_treat_as_complex(text)
    try:
        found = latex2sympy(text, is_real=real, normalization_config=None, conversion_config=config)
    except Exception:  # of its parser and of sympy, of many classes: it cannot be read
        return None
    return found if isinstance(found, (sympy.Expr, sympy.MatrixBase, sympy.core.relational.Relational, And)) else None


def fraction(value: Fraction) -> str:
    return rf"(\frac{{{value.numerator}}}{{{value.denominator}}})"


def rounds(decimal: str, value: Any) -> bool:
    """Is a decimal of six digits or more, six of them after the point, a value rounded?"""
    places, digits = len(decimal.partition(".")[2]), re.sub(r"\D", "", decimal).lstrip("0")
    if min(places, len(digits)) < 6:
        return False
    try:
        value = Fraction(str(value.evalf(places + 20)))
    except (TypeError, ValueError, AttributeError):  # no real number
        return False
    return abs(value - number(decimal)) <= Fraction(1, 2 * 10**places)


def near(gold: Any, answer: Any) -> bool:
    """Are two values equal to 25 digits? math-verify takes any two for equal that differ by less than 1e-15."""
    try:
        difference, size = (gold - answer).evalf(30), gold.evalf(30)
        return not size.is_number or size.is_infinite or bool(abs(difference) <= 1e-25 * abs(size))
    except (TypeError, ValueError, AttributeError):  # no numbers: nothing more is known of them
        return True

"""Does every equation that a chain writes down hold? A right answer reached by a false step is a bad lesson."""

from __future__ import annotations

import ast
import operator
import re

from distil.verify.answers import WIDE

ASCII = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "—": "-", r"\times": "*", r"\cdot": "*", r"\div": "/"}
ASCII |= {"°": "", r"\$": "", "$": ""}
TIMES = re.compile(r"(?<=[\d)])(?<!\b0)(?:\s+[xX]\s+(?=[\d(])|[xX](?=\d))")
DATE = re.compile(r"\b(?:\d\d?[/.-]\d\d?[/.-](?:19|20)\d\d|(?:19|20)\d\d[/.-]\d\d?[/.-]\d\d?)\b")
OTHER_NUMBERS = re.compile(r"\b(?:base|binary|octal|hex\w*|p?mod\w*|clock)\b", re.IGNORECASE)  # where 7 + 8 may be 3
# words that do something to the number after them, or doubt what is said, and those that do so to the number before
BEFORE = (
    "of|from|by|to|than|over|plus|minus|negative|times|root|sqrt|log|ln|exp|sin|cos|tan|max|min|gcd|lcm|choose|factorial|"
    "sum|product|difference|quotient|average|mean|add|adding|subtract|subtracting|multiply|multiplying|divide|dividing|"
    "twice|thrice|double|triple|half|more|less|not|if|suppose|assume|step|case|part|and|or"
)
AFTER = (
    "of|over|plus|minus|times|multiplied|divided|squared|cubed|to|choose|factorial|percent|more|less|r|rem|remainder|with|"
    "am|pm|o'clock|余"
)
LARGER = re.compile(
    r"(?:dozen|hundred|thousand|hour|minute|day|week|month|year|foot|feet|yard|dollar)s?\b", re.IGNORECASE
)
ACTS = re.compile(rf"(?:\\[a-zA-Z]+|\b(?:{BEFORE}))$", re.IGNORECASE)
GOES_ON = re.compile(
    rf"[\^_%\\!?…|]|[,:]\d|\.\.|(?:{AFTER})\b|(?:is|are|was)(?: not|n't| wrong| false| incorrect)", re.IGNORECASE
)
SIGNS = "0123456789.+-*/() "
SUM = r"[0-9.+\-*/() ]*"
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
OPERATORS[ast.FloorDiv] = operator.floordiv


def false_equation(text: str) -> str | None:
    """The first equation of plain numbers that does not hold; None if all hold.

    Both sides may have + - * / and brackets. An equation with letters ("5*z - 27 = 33") or one that cannot be read for
    sure is skipped: so are units that differ ("30 + 30 = 1 hour"), times, and lines about other bases or remainders.
    A decimal on the right may be off by half of its last digit. "2 + 3 = 5 + 1 = 6" does not hold.

    >>> false_equation("57 + 68 = 115, so x = 115")
    '57 + 68 = 115'
    """
    text = text.translate(WIDE)
    for sign, ascii_sign in ASCII.items():
        text = text.replace(sign, ascii_sign)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", DATE.sub("date", text))  # thousands
    text = TIMES.sub(" * ", text)
    for line in text.splitlines():
        if OTHER_NUMBERS.search(line):
            continue
        sides = re.sub(r"^\s*(?:\d+[.)]|[-*])\s+", "", line).split("=")  # without the number or dash of a list
        for before, after in zip(sides, sides[1:], strict=False):
            left, (right, rest) = last_sum(before), first_sum(after)
            if not (is_sum(left) or is_sum(right)) and re.match(r"\s*[^\s.,;:)\]]", rest):
                continue
            a, b = value(left), value(right)
            if a is None or b is None or (LARGER.match(rest) and b and a / b >= 3 and a % b == 0):
                continue
            if abs(a - b) > slack(right) + 1e-9 * max(abs(a), abs(b)):
                return f"{left} = {right}"
    return None


def is_sum(text: str) -> bool:
    """Is it more than a number?"""
    return re.search(r"[\d)]\s*[-+*/]", text) is not None


def last_sum(text: str) -> str:
    """The arithmetic at the end of `text`; "" where it may be part of a longer term ("z - 27", "2^3", "double 4")."""
    text = text.rstrip()
    before = text.rstrip(SIGNS)  # a search for the pattern would begin anew at every sign
    run = text[len(before) :]
    if not before:
        return run.strip()
    if run.lstrip()[:1] in ("", *"+-*/."):
        return ""
    word = before[-2:].isalpha() and before[-1:] != "余"
    if word and (not run.startswith(" ") or not is_sum(run) or ACTS.search(before[-20:])):
        return ""
    if not word and (before[-1] not in ":;,[{("):
        return ""
    if before[-2:-1].isdigit() and (before[-1] != ":" or not run.startswith(" ") or not is_sum(run)):  # 2, 4 or 10:30
        return ""
    return "" if before[-1] == "," and not is_sum(run) else run.strip()


def first_sum(text: str) -> tuple[str, str]:
    """(arithmetic at the beginning of `text`, the rest); "" where it goes on ("7y", "6 remainder 1", "3!", "12:30")."""
    run = re.match(SUM, text).group()
    after = text[len(run) :]
    if GOES_ON.match(after) or run.rstrip().endswith("..") or (after[:1].isalpha() and not run.endswith(" ")):
        return "", after
    run = run.rstrip(" .")
    return ("" if run[-1:] in tuple("+-*/(") else run.strip()), after


def slack(number: str) -> float:
    """How far a rounded decimal may be off: half of its last digit."""
    decimals = re.search(r"\.(\d+)$", number)
    return 0.5 * 10 ** -len(decimals.group(1)) if decimals else 0.0


def value(arithmetic: str) -> float | None:
    """The value of an arithmetic expression; None if it cannot be parsed or is beyond a float."""
    try:
        return float(evaluate(ast.parse(re.sub(r"\b0+(?=\d)", "", arithmetic), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None  # Python's parser reports what is nested too deep as any of the last two


def evaluate(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):  # "..." is a constant too
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -evaluate(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](evaluate(node.left), evaluate(node.right))
    raise ValueError(ast.dump(node))

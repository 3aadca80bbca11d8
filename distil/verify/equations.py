"""Does every equation that a chain writes down hold? A right answer reached by a false step is a bad lesson."""

from __future__ import annotations

import ast
import operator
import re

ASCII = {"×": "*", "·": "*", "÷": "/", "−": "-", r"\times": "*", r"\cdot": "*", r"\div": "/", "°": "", "$": ""}
WIDE = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20}  # full-width signs and digits to ASCII
SIGNS = "0123456789.+-*/() "
SUM = r"[0-9.+\-*/() ]*"
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def false_equation(text: str) -> str | None:
    """The first equation of plain numbers that does not hold; None if all hold.

    Both sides may have + - * / and brackets. An equation with letters ("5*z - 27 = 33") or one that cannot be parsed
    is skipped. A decimal on the right may be off by half of its last digit.

    >>> false_equation("57 + 68 = 115, so x = 115")
    '57 + 68 = 115'
    """
    text = text.translate(WIDE)
    for sign, ascii_sign in ASCII.items():
        text = text.replace(sign, ascii_sign)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # thousands
    for line in text.splitlines():
        sides = re.sub(r"^\s*(?:\d+[.)]|[-*])\s+", "", line).split("=")  # without the number or dash of a list
        for before, after in zip(sides, sides[1:], strict=False):
            left, right = last_sum(before), first_sum(after)
            a, b = value(left), value(right)
            if a is not None and b is not None and abs(a - b) > slack(right) + 1e-9 * max(abs(a), abs(b)):
                return f"{left} = {right}"
    return None


def last_sum(text: str) -> str:
    """The arithmetic at the end of `text`; "" where it is part of a longer term ("z - 27", "2^3", "a1 + 2")."""
    text = text.rstrip()
    before = text.rstrip(SIGNS)  # a search for the pattern would begin anew at every sign
    run = text[len(before) :]
    if before and (run.lstrip()[:1] in ("", *"+-*/.") or not (run.startswith(" ") or before[-1] in ":;,[{(")):
        return ""
    return run.strip()


def first_sum(text: str) -> str:
    """The arithmetic at the beginning of `text`; "" where it is part of a longer term ("7y", "6 remainder 1")."""
    run = re.match(SUM, text).group()
    after = text[len(run) :]
    if re.match(r"[\^_%\\]|(?:r|remainder)\b", after, re.IGNORECASE):
        return ""
    if after[:1].isalpha() and not run.endswith(" "):
        return ""
    run = run.rstrip(" .")
    return "" if run[-1:] in tuple("+-*/(") else run.strip()


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

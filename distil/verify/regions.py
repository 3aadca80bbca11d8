"""Regions of the real line: intervals, their unions, and inequalities in one variable say the same in many ways."""

from __future__ import annotations

import re
from typing import Any

from distil.verify.expressions import RELATION, read
from distil.verify.parts import brackets, split, values

ALTERNATIVES = {"or", "或", "或者", r"\cup", r"\lor", r"\vee"}
MEMBER = re.compile(r"^([a-zA-Z])\s*\\in\s*(?=[\[({\\])")
SUCH_THAT = re.compile(r"^\\\{\s*([a-zA-Z])(?:\s*\\in\s*\\mathbb\{R\})?\s*(?:\\mid|\||:)\s*(.*)\\\}$")


def region(text: str) -> tuple[Any, str] | None:
    """(set of real numbers, name of the variable) of intervals and of inequalities in one variable; None for others."""
    import sympy

    text = found[2] if (found := SUCH_THAT.match(text)) else text
    pieces, separators = split(text)
    regions = [found for piece in pieces if (found := piece_of_region(piece))]
    names = {name for _, name in regions if name}
    if not regions or len(regions) < len(pieces) or len(names) > 1:
        return None
    sets = [found for found, _ in regions]
    if separators <= ALTERNATIVES:
        whole = sympy.Union(*sets)
    elif separators & ALTERNATIVES:
        return None
    else:
        whole = sympy.Intersection(*sets)
    return None if whole.is_empty else (whole, "".join(names))


def piece_of_region(text: str) -> tuple[Any, str] | None:
    """As `region`, of one interval, set or chain of inequalities."""
    import sympy

    text = MEMBER.sub("", text)
    found = brackets(text)
    terms = values(found[1]) if found else RELATION.split(text)[::2]
    read_terms = [read(term, False) for term in map(str.strip, terms)]
    if not all(isinstance(term, sympy.Expr) for term in read_terms):
        return None
    ends = [sympy.simplify(term.doit()) for term in read_terms]
    symbols = set().union(*(end.free_symbols for end in ends))
    try:
        if found:
            if symbols or (found[0] != "{" and len(ends) != 2):
                return None
            if found[0] == "{":
                return sympy.FiniteSet(*ends), ""
            if any(end.is_infinite and sign in "[]" for end, sign in zip(ends, found[::2], strict=True)):
                return None
            return sympy.Interval(*ends, left_open=found[0] == "(", right_open=found[2] == ")"), ""
        if (
            len(symbols) != 1
            or len(ends) < 2
            or not all(a.free_symbols or b.free_symbols for a, b in zip(ends, ends[1:], strict=False))
        ):
            return None
        (symbol,) = symbols
        x = sympy.Symbol("x", real=True)
        names = {r"\le": "<=", r"\ge": ">=", r"\ne": "!="}
        signs = [names.get(sign, sign) for sign in RELATION.findall(text)]
        ends = [end.subs(symbol, x) for end in ends]
        chain = [sympy.Rel(*pair, sign).as_set() for *pair, sign in zip(ends, ends[1:], signs, strict=False)]
        return sympy.Intersection(*chain), str(symbol)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return None


def same_region(gold: Any, gold_name: str, answer: Any, name: str) -> bool:
    """Are two sets of real numbers the same, and their variables, if both are named?"""
    if gold_name and name and gold_name.casefold() != name.casefold():
        return False
    return gold == answer or gold.symmetric_difference(answer).is_empty is True

"""Verifier `math`: mathematics compared by value.

An answer is put into plain LaTeX and taken apart (several values, tuples, intervals, equations, units). Two numbers are
compared exactly, all else by math-verify, and only if it reads the whole of it: a beginning that is right is no answer.
"""

from __future__ import annotations

import re

from distil.verify.answers import normalise_answer
from distil.verify.expressions import NUMBER, WRITTEN, number, roughly, same_expression
from distil.verify.parts import NO_UNIT, bare, brackets, quantity, sides, split, values
from distil.verify.plain import plain
from distil.verify.regions import MEMBER, RELATION, region, same_region
from distil.verify.time_limit import TookTooLong, within
from distil.verify.verifier import TIME_LIMIT_S, Verifier
from distil.workspace.rows import Problem

WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
MOST_WORDS = 6  # of an answer that is compared as mathematics: "12 square feet per day"
LABELLED = re.compile(rf"({WRITTEN.pattern})\s+([^\W\d_]{{3,}}(?: [^\W\d_]+)*)")
BASE = re.compile(r"(\d[\dA-Za-z]*)_\{(\d+)\}")
TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\s*(?:([ap])\.?\s*m\.?)?", re.IGNORECASE)
VALUE = re.compile(r"\\?[a-zA-Z]\w*\(.+\)")  # a function's name at a point
MATRIX = re.compile(r"\\begin\{([pb]?)matrix\}(.*)\\end\{\1matrix\}")
PERCENT = re.compile(r"\s*(?:\\?%|percent|per cent)$")


class Math(Verifier):
    """Equal in value, whatever the form: 1/2 and 0.5."""

    library = "math_verify"

    def check_gold(self, problem: Problem) -> None:
        gold = plain(normalise_answer(problem.answer))
        words = re.fullmatch(r"[^\W\d_]{2,}([ -][^\W\d_]+)*", problem.answer)  # parsed as a product of letters
        try:
            known = NUMBER.fullmatch(gold) or (not words and within(TIME_LIMIT_S, self.library, readable, gold))
        except TookTooLong:
            known = False
        if not known:
            raise ValueError(f"answer {problem.answer!r} cannot be read as mathematics; use verifier 'exact'")
        if len(WORD.findall(gold)) > MOST_WORDS:
            raise ValueError(f"answer {problem.answer[:80]!r}... is a text: give the final answer alone")

    def matches(self, answer: str, problem: Problem) -> bool:
        gold = normalise_answer(problem.answer)
        if WRITTEN.fullmatch(gold) and WRITTEN.fullmatch(answer):
            return number(gold) == number(answer)
        gold, answer = plain(gold), plain(answer)
        return bool(gold) and bool(answer) and same(gold, answer)


def readable(text: str) -> bool:
    """Does math-verify read more in a text than words?

    Without a time limit of its own, an Exception, which sympy may catch: whoever calls this has one.
    """
    from math_verify import parse

    return not all(isinstance(part, str) for part in parse(f"${text}$", parsing_timeout=None))


def same(gold: str, answer: str) -> bool:
    """Do two answers in plain LaTeX say the same?"""
    gold, answer = (MEMBER.sub("", text.strip()) for text in (gold, answer))
    if bare(gold) == bare(answer):
        return True
    if any(RELATION.search(text) or r"\cup" in text for text in (gold, answer)):
        regions = region(gold), region(answer)
        if regions[0] and regions[1]:
            return same_region(*regions[0], *regions[1])
        if regions[0] or regions[1]:
            return False
    golds, answers = values(gold), values(answer)
    if len(golds) == len(answers) == 1:
        return same_sides(golds[0], answers[0])
    ordered = by_name(golds), by_name(answers)
    if not any(ordered):
        return same_set(golds, answers)
    if all(ordered) and ordered[0].keys() != ordered[1].keys():
        return False
    golds, answers = (list(n.values()) if n else point(p) for n, p in zip(ordered, (golds, answers), strict=True))
    return len(golds) == len(answers) and all(map(same, golds, answers))


def by_name(parts: list[str]) -> dict[str, str]:
    """The values of `x = 3, y = 4` by name, in the order of the names; empty if this is something else."""
    found = {name: kept[-1] for name, kept, rounded in map(sides, parts) if name and kept and not rounded}
    return dict(sorted(found.items())) if len(found) == len(parts) > 1 else {}


def point(parts: list[str]) -> list[str]:
    """The coordinates of a point that is the only part, else the parts; none if any has a name."""
    found = brackets(parts[0]) if len(parts) == 1 else None
    parts = split(found[1])[0] if found and found[0] + found[2] == "()" else parts
    return [] if any("=" in part for part in parts) else parts


def same_set(golds: list[str], answers: list[str]) -> bool:
    """Are two lists of answers the same, whatever their order?"""
    left = list(answers)
    for gold in golds:
        match = next((answer for answer in left if same_sides(gold, answer)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def same_sides(gold: str, answer: str) -> bool:
    """Do two answers of one value say the same, with or without the name of the value?"""
    (gold_name, golds, _), (name, found, rounded) = sides(gold), sides(answer)
    if not golds or not found or not all(roughly(found[0], side) for side in rounded):
        return False
    other_name = gold_name and name and bare(gold_name) != bare(name)
    if other_name and VALUE.fullmatch(bare(gold_name)) and VALUE.fullmatch(bare(name)):
        return False  # f(2) = 5 says nothing of f(3)
    if len(golds) > 1 or other_name or (gold_name and not name and len(found) > 1):
        return "=" in gold and "=" in answer and same_expression(gold, answer)
    return all(same_term(golds[0], value) for value in found)


def unwrapped(text: str) -> str:
    """A term without brackets around the whole of it."""
    found = brackets(text)
    return (
        unwrapped(found[1]) if found and found[0] + found[2] in ("()", "{}") and len(split(found[1])[0]) == 1 else text
    )


def same_term(gold: str, answer: str) -> bool:
    """Do two terms say the same? A term is a number with or without a unit, a tuple, an interval, an expression."""
    gold, answer = unwrapped(gold.strip()), unwrapped(answer.strip())
    if bare(gold) == bare(answer):
        return True
    wanted, found = brackets(gold), brackets(answer)
    if wanted and found:
        return wanted[::2] == found[::2] and same_inside(wanted[0], wanted[1], found[1])
    if wanted or found:
        return False
    matrix, other = MATRIX.fullmatch(gold), MATRIX.fullmatch(answer)
    if matrix and other:
        return same_matrix(matrix[2], other[2])
    if ":" in gold or ":" in answer:
        return same_ratio(gold, answer)
    bases = [BASE.fullmatch(text) for text in (gold, answer)]
    if any(bases):
        base = bases[0][2] if bases[0] else "10"
        pairs = [match.groups() if match else (text, base) for match, text in zip(bases, (gold, answer), strict=True)]
        return pairs[0] == pairs[1]
    percents = [PERCENT.sub("", text) for text in (gold, answer)]
    if percents != [gold, answer]:
        return same_percent(gold, answer, *percents)
    return same_quantity(gold, answer)


def same_inside(opening: str, gold: str, answer: str) -> bool:
    """Are the parts within brackets the same? The order counts, but for sets."""
    golds, answers = values(gold), values(answer)
    if opening == "{":
        return same_set(golds, answers)
    return len(golds) == len(answers) and all(map(same, golds, answers))


def same_matrix(gold: str, answer: str) -> bool:
    """Are all entries of two matrices the same?"""
    golds, answers = (
        [row.split("&") for row in text.strip().removesuffix("\\\\").split("\\\\")] for text in (gold, answer)
    )
    if [len(row) for row in golds] != [len(row) for row in answers]:
        return False
    return all(same(g, a) for rows in zip(golds, answers, strict=True) for g, a in zip(*rows, strict=True))


def same_ratio(gold: str, answer: str) -> bool:
    """Are two times of day, or two ratios, the same? What can be read as a time is one."""
    time, other = TIME.fullmatch(gold), TIME.fullmatch(answer)
    if time:
        return other is not None and clock(time, other) == clock(other, time)
    golds, answers = gold.split(":"), answer.split(":")
    if len(golds) == len(answers):
        pairs = zip(golds, golds[1:], answers, answers[1:], strict=False)
        return all(same_term(f"({a})/({b})", f"({c})/({d})") for a, b, c, d in pairs)
    ratio, value = (golds, answer) if len(golds) > 1 else (answers, gold)
    return (
        len(ratio) == 2 and re.search(r"/|\\frac", value) is not None and same_term(f"({ratio[0]})/({ratio[1]})", value)
    )


def clock(time: re.Match, other: re.Match) -> tuple[object, ...]:
    """A time of day; by 24 hours if one of the two says a.m. or p.m. and the other has more than 12 hours."""
    hour, minute, second, half = time.groups()
    if half and not other[4] and int(other[1]) > 12:
        return int(hour) % 12 + 12 * (half in "pP"), int(minute), int(second or 0), None
    return int(hour), int(minute), int(second or 0), half and half.lower()


def same_percent(gold: str, answer: str, gold_term: str, term: str) -> bool:
    """Are two values the same of which one is a percentage at least?

    Where one of the two has no sign, 25% is 0.25 and, as an answer to "how many per cent", 25; not so 0.5% and 0.5.
    """
    if gold != gold_term and answer != term:
        return same_term(gold_term, term)
    if WRITTEN.fullmatch(gold_term) and WRITTEN.fullmatch(term) and number(gold_term) == number(term):
        return number(term).denominator == 1 and abs(number(term)) != 1
    return same_term(*(f"({a})/100" if a != b else b for a, b in ((gold_term, gold), (term, answer))))


def same_quantity(gold: str, answer: str) -> bool:
    """Are two terms the same with their units? One that is left out is no mistake."""
    golds, found = quantity(gold), quantity(answer)
    if golds.unit and found.unit:
        return golds.unit == found.unit and same_expression(golds.term, found.term)
    labelled = LABELLED.fullmatch(gold)
    if labelled and not golds.unit and not NO_UNIT.search(gold):
        return same_expression(labelled[1], answer.removesuffix(labelled[2]).strip())
    return same_expression(golds.term if golds.sure else gold, found.term if found.sure else answer)

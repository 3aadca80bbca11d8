"""Verifier `math`: mathematics compared by value, with math-verify.

Answers are first put into the form that math-verify reads; what it would wave through is refused here.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction

from distil.verify.answers import normalise_answer
from distil.verify.time_limit import TookTooLong, within
from distil.verify.verifier import TIME_LIMIT_S, Verifier
from distil.workspace.rows import Problem

# Spellings of units, a unit a line or between bars, its name first. A wrong unit makes an answer wrong, a missing one
# does not.
SPELLINGS = r"""cm centimeter centimeters 厘米|mm millimeter millimeters|m meter meters metre metres 米
km kilometer kilometers|in inch inches|ft foot feet|yd yard yards|mi mile miles|g gram grams 克
kg kilogram kilograms 千克|mg|lb lbs pound pounds|oz ounce ounces
s sec second seconds 秒|min minute minutes 分钟|h hr hour hours 小时
day days 天|week weeks|month months|year years|cents cent|dollars dollar USD|€ euro euros EUR|£|元 yuan
L l liter liters litre litres|mL ml|degrees degree ° ^\circ ^{\circ}|radians radian rad|% \% percent
km/h kph|m/s|mph"""
UNITS = {word: group.split()[0] for group in SPELLINGS.replace("\n", "|").split("|") for word in group.split()}
UNIT = re.compile(
    r"(?<=[\d})])\s*(" + "|".join(map(re.escape, sorted(UNITS, key=len, reverse=True))) + r")(\^\{?[23]\}?)?\s*\.?$"
)
RELATION = re.compile(r"[<>≤≥≠]|\\(?:leq?|geq?|neq?|lt|gt)(?![a-z])")
BASE = re.compile(r"\d_\{?(\d+)\}?$")
OPEN_END = re.compile(r"\\[lc]?dots|\.\.\.|…|\?")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Math(Verifier):
    """Equal in value, whatever the form: 1/2 and 0.5."""

    library = "math_verify"

    def check_gold(self, problem: Problem) -> None:
        words = re.fullmatch(r"[^\W\d_]{2,}([ -][^\W\d_]+)*", problem.answer)  # parsed as a product of letters
        try:
            known = not words and within(TIME_LIMIT_S, self.library, readable, problem.answer)
        except TookTooLong:
            known = False
        if not known:
            raise ValueError(f"answer {problem.answer!r} cannot be read as mathematics; use verifier 'exact'")

    def matches(self, answer: str, problem: Problem) -> bool:
        from math_verify import verify

        gold, answer = normalise_latex(normalise_answer(problem.answer)), normalise_latex(answer)
        if contradicts(gold, answer):
            return False
        gold, answer = (parsed(without_unit(text)) for text in (gold, answer))
        same = gold and answer and verify(gold, answer, timeout_seconds=None)
        return bool(same) and near(gold[0], answer[0])


def readable(text: str) -> bool:
    """Does math-verify read more in a text than words?"""
    return not all(isinstance(part, str) for part in parsed(text))


def parsed(text: str) -> list:
    """What math-verify reads in a text: without a time limit of its own, an Exception, which sympy may catch.

    It warns that there is none; whoever calls this has one (`distil.verify.time_limit`).
    """
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    from math_verify import parse

    return parse(f"${text}$", parsing_timeout=None)


def normalise_latex(text: str) -> str:
    r"""`text` with the spaces of LaTeX taken out of its numbers, `0.\overline{3}` as a fraction, `\log_e` as `\ln`."""
    text = re.sub(r"(?<=\d)(?:,\\!|(?<!\\)\\[,!;: ]|~)\s*(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<!\\)\\[,!;: ]|~", " ", text)
    text = re.sub(r"\\log_\{?e\}?(?![a-z])", r"\\ln", text)
    return re.sub(r"(\d*)\.(\d*)\\(?:overline|dot)\{?(\d+)\}?", repeating, text).strip()


def repeating(match: re.Match) -> str:
    """A repeating decimal as a fraction in LaTeX."""
    whole, fixed, again = match.groups()
    without = int(whole + fixed or 0)
    value = Fraction(int(whole + fixed + again) - without, 10 ** len(fixed) * (10 ** len(again) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def unit_of(text: str) -> str | None:
    """The unit at the end of a number, with its power, by one name for all its spellings; None without one."""
    if text.startswith(("\\$", "$")):
        return "dollars"
    match = UNIT.search(text)
    return match and UNITS[match[1]] + re.sub(r"\W", "", match[2] or "")


def without_unit(text: str) -> str:
    """A number alone; degrees and percent stay, which math-verify knows."""
    unit = unit_of(text)
    return text if unit in (None, "degrees", "%") else UNIT.sub("", text)


def words_of(text: str) -> set[str]:
    """The words of an answer that are neither LaTeX nor units, without case."""
    found = re.findall(r"(?<!\w)[^\W\d_]{3,}(?!\w)", re.sub(r"\\(?:(?:begin|end)\{\w+\}|[a-zA-Z]+)", " ", text))
    return {word.casefold() for word in found if word not in UNITS}


def contradicts(gold: str, answer: str) -> bool:
    """Does `answer` say something else than `gold` that math-verify does not notice?

    That is: another unit, another base, wholly other words, a set for a tuple, a relation or an open end where the gold
    answer is one value, or two different numbers joined by an equals sign.
    """
    units = unit_of(gold), unit_of(answer)
    if all(units) and units[0] != units[1]:
        return True
    words = words_of(gold), words_of(answer)
    if all(words) and words[0].isdisjoint(words[1]):
        return True
    bases = [(match := BASE.search(text)) and match[1] for text in (gold, answer)]
    if bases[1] and bases[1] != (bases[0] or "10"):
        return True
    if OPEN_END.search(answer) and not OPEN_END.search(gold):
        return True
    if RELATION.search(answer) and not (RELATION.search(gold) or re.search(r"[\[(]|\\in(?![a-z])", gold)):
        return True
    opens = [text.replace("\\left", "").lstrip("\\ ")[:1] for text in (gold, answer)]
    if "{" in opens and set(opens) & {"(", "["}:
        return True
    sides = [side.strip() for side in answer.split("=")]
    return len(sides) > 1 and all(map(NUMBER.fullmatch, sides)) and len({float(side) for side in sides}) > 1


def near(gold: object, answer: object) -> bool:
    """Are two values near each other? math-verify compares six decimals, too few for a gold answer below 0.001."""
    try:
        gold, answer = float(gold), float(answer)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # no numbers: nothing more is known of them
        return True
    return not 0 < abs(gold) < 1e-3 or abs(gold - answer) <= 1e-6 * abs(gold)

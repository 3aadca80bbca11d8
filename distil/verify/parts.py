r"""The parts of an answer in plain LaTeX: several values, the sides of an equation, what brackets hold, units."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from distil.verify.plain import CLOSER, closing

# Spellings of units, a unit a line or between bars, its name first. A wrong unit makes an answer wrong, a missing one
# does not.
SPELLINGS = r"""cm centimeter centimeters centimetre centimetres 厘米|mm millimeter millimeters millimetres 毫米
m meter meters metre metres 米|km kilometer kilometers kilometres 千米 公里|in inch inches|ft foot feet|yd yard yards
mi mile miles|g gram grams 克|kg kilogram kilograms 千克 公斤|mg|t ton tons tonnes 吨
lb lbs pound pounds|oz ounce ounces
s sec second seconds 秒|min minute minutes 分钟|h hr hour hours 小时
day days 天|week weeks 周|month months 月|year years 年 岁|cents cent|dollars dollar USD|euros € euro EUR|£
元 yuan ¥ 块|L l liter liters litre litres 升|mL ml milliliters 毫升|degrees degree ^\circ 度|°C ^\circC|°F ^\circF
radians radian rad|km/h kph|m/s|mph|unit units 个 人 种 只 本 棵|people person|apple apples|student students|coin coins
ball balls|book books|way ways|point points|egg eggs|child children|marble marbles|card cards"""
UNITS = {word: group.split()[0] for group in SPELLINGS.replace("\n", "|").split("|") for word in group.split()}
POWERS = {"square": "2", "sq": "2", "sq.": "2", "cubic": "3", "cu": "3", "平方": "2", "立方": "3", "": ""}
UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi))(?P<gap>\s*)(?P<power>(?:square|sq\.?|cubic|cu)(?=\s)|平方|立方|)\s*"
    rf"(?P<unit>{'|'.join(map(re.escape, sorted(UNITS, key=len, reverse=True)))})(?:\^\{{?(?P<raised>[23])\}}?)?\s*\.?$"
)
MONEY = re.compile(r"^-?\s*(\\?\$|USD|€|£|¥)\s*(?=[\d.(\\])")
CURRENCIES = {"\\$": "dollars", "$": "dollars", "USD": "dollars", "€": "euros", "£": "£", "¥": "元"}
VARIABLES = {"mg", "ml"}  # glued to a number these are as good as products of variables, as single letters are
NO_UNIT = re.compile(
    r"\b(?:dozen|hundred|thousand|million|billion|trillion|hal(?:f|ves)|thirds?|quarters?|(?:four|fif|six|seven|eigh|nin|"
    r"ten|hundred|thousand)ths?|percent|not|less|more|than|least|most|about|over|under|times|mod|remainder)\b"
)
SEPARATOR = re.compile(
    r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|以及|或者|[和或与且]|\\(?:lor|land|vee|wedge|cup)(?![a-zA-Z])"
)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
EQUALS = re.compile(r"=|\\(?:approx|equiv)(?![a-zA-Z])")
NAME = re.compile(r"(?:\\(?:angle|triangle|overline|vec|frac|alpha|beta|gamma|theta|lambda|mu|sigma|phi|omega)(?![a-z])"
    r"|_\{\w+\}|\([a-z0-9, ]+\)|[^\W\d_]|[{}'/+ ]|(?<=\w)\s*-)+")  # fmt: skip


def bare(text: str) -> str:
    """A text without blanks, but for those between digits: 3 5 is not 35."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def split(text: str) -> tuple[list[str], set[str]]:
    """(parts, what separates them) of an answer, outside brackets. The comma in 1,200 separates nothing."""
    parts, separators, begin, i = [], set(), 0, 0
    grouped = {k for match in THOUSANDS.finditer(text) for k in range(*match.span()) if text[k] == ","}
    while i < len(text):
        match = SEPARATOR.match(text, i)
        if text[i] in CLOSER or text.startswith(r"\begin", i):
            end = closing(text, i) if text[i] in CLOSER else text.rfind(r"\end")
            i = max(end, i) + 1
        elif match and i not in grouped:
            parts.append(text[begin:i])
            separators.add(match[0])
            begin = i = match.end()
        else:
            i += 1
    parts = [part.strip() for part in (*parts, text[begin:])]
    return [THOUSANDS.sub(lambda m: m[0].replace(",", ""), part) for part in parts if part], separators


def signed(parts: list[str]) -> list[str]:
    r"""Parts with one \pm in them as two."""
    both = [
        [p.replace(r"\pm", sign) for sign in "+-"] if p.count(r"\pm") == 1 and r"\mp" not in p else [p] for p in parts
    ]
    return list(itertools.chain(*both))


def brackets(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, closing) of a text that is one pair of brackets; None for others. `\{` is one of them."""
    opening = 1 if text.startswith(r"\{") else 0
    if text[opening : opening + 1] not in CLOSER or closing(text, opening) != len(text) - 1:
        return None
    return text[opening], text[opening + 1 : -1].removesuffix("\\").strip(), text[-1]


def values(text: str) -> list[str]:
    """The values that a text names: of a set its elements, of several answers each, of plus-minus both."""
    parts = split(text)[0]
    if len(parts) == 1 and (found := brackets(parts[0])) and found[0] == "{" and found[2] == "}":
        parts = split(found[1])[0]
    return signed(parts)


def sides(text: str) -> tuple[str, list[str], list[str]]:
    r"""(name, values, roundings) of `x = 1 + 2/3 = 5/3 \approx 1.67`; the name is "" where there is none.

    Letters that name a point must stand in order: (y, x) = (1, 2) is another point than (1, 2).
    """
    signs, found = EQUALS.findall(text), [side.strip() for side in EQUALS.split(text)]
    name, kept, rounded = "", [], []
    if (
        len(found) > 1
        and NAME.fullmatch(found[0])
        and re.search(r"[^\W\d_]", found[0])
        and not NO_UNIT.search(found[0])
    ):
        letters = re.findall("[a-z]", found[0]) if brackets(found[0]) else []
        name = found.pop(0) if letters == sorted(letters) else ""
    for sign, side in zip(["", *signs][-len(found) :], found, strict=True):
        if side:
            (rounded if kept and sign == r"\approx" else kept).append(side)
    return name, kept, rounded


@dataclass(frozen=True)
class Quantity:
    """A number or term and its unit, by one name for all spellings, with its power; "" without one."""

    term: str
    unit: str
    sure: bool = True  # that it is a unit, no product of variables


def quantity(text: str) -> Quantity:
    """A term and the unit at its end, or the currency at its beginning."""
    if match := MONEY.match(text):
        return Quantity(text.replace(match[1], "", 1).strip(), CURRENCIES[match[1]])
    match = UNIT.search(text)
    if not match:
        return Quantity(text, "")
    spelling = match["unit"]
    sure = (
        bool(match["gap"])
        or not (spelling.isascii() and spelling.isalpha())
        or (len(spelling) > 1 and spelling not in VARIABLES)
    )
    return Quantity(text[: match.start()], UNITS[spelling] + (match["raised"] or POWERS[match["power"]]), sure)

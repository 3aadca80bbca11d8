r"""An answer as people write it, in plain LaTeX: one spelling for each sign, number, fraction, root and power."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from distil.verify.answers import WIDE

SPELT = {
    "-": "−–—‐‑‒﹣", " ": "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f", "": "\u200b\ufeff", "'": "’‘", ",": "、",
    "/": "÷∕⁄", "%": "﹪", "¥": "￥", r"\times ": "×✕", r"\cdot ": "·⋅∙•∗", r"\pm ": "±", r"\approx ": "≈",
    r"\le ": "≤⩽≦", r"\ge ": "≥⩾≧", r"\ne ": "≠", r"\in ": "∈", r"\cup ": "∪", r"\cap ": "∩", r"\emptyset ": "∅",
    r"\infty ": "∞", r"^\circ ": "°", r"^\circ C": "℃", r"\angle ": "∠", r"\mathbb{R}": "ℝ", r"\mathbb{Z}": "ℤ",
    r"\sqrt ": "√", r"\alpha ": "α", r"\beta ": "β", r"\gamma ": "γ", r"\theta ": "θ", r"\lambda ": "λ",
    r"\mu ": "μ", r"\pi ": "π", r"\sigma ": "σ", r"\phi ": "φ", r"\omega ": "ω",
}  # fmt: skip
SIGNS = WIDE | {ord(sign): spelling for spelling, signs in SPELT.items() for sign in signs}
RAISED, LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
DIGITS = str.maketrans(RAISED + LOWERED, "0123456789+-0123456789")
NAMES = r"arcsin|arccos|arctan|sin|cos|tan|cot|csc|ln|log|exp|gcd|lcm|sqrt|pi|infinity"  # of functions and constants
CLOSER = {"(": ")", "[": "]", "{": "}"}
SPELLINGS = [(re.compile(pattern), plain) for pattern, plain in (
    (r"\\(?:left|right|displaystyle|limits|[bB]igg?[lr]?)(?![a-zA-Z])|\\!", ""),
    (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\lbrace(?![a-zA-Z])", r"\\{"),
    (r"\\rbrace(?![a-zA-Z])", r"\\}"),
    (r"\\(?:quad|qquad)(?![a-zA-Z])|(?<!\\)\\[,;: ]|~", " "),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\(le|ge)(?:q|qslant|qq)(?![a-zA-Z])", r"\\\1 "),
    (r"\\neq(?![a-zA-Z])", r"\\ne "),
    (r"\\lt(?![a-zA-Z])|&lt;", "<"),
    (r"\\gt(?![a-zA-Z])|&gt;", ">"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\log_\{?e\}?(?![a-z])", r"\\ln "),
    (r"\\div(?![a-zA-Z])", "/"),
    (r"\^\{\\circ\}|\\degree(?![a-zA-Z])", r"^\\circ"),
    (r"(?<=\d)\{,\}\s*(?=\d{3}(?!\d))", ""),
    (rf"(?<![\\a-zA-Z])({NAMES})(?![a-zA-Z])", r"\\\1"),
    (r"\\infinity", r"\\infty"),
    (r"\*\*", "^"),
    (r"\*", r"\\cdot "),
    (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
    (r"(?<![\w.])(\d+(?:\.\d+)?)[eE]\+?(-?\d+)(?!\w)", r"\1\\times 10^{\2}"),
)]  # fmt: skip


def plain(text: str) -> str:
    r"""A text with all its mathematics in plain LaTeX.

    >>> plain("１ 1/2 ≤ 2√(3)²")
    '(\\frac{3}{2}) \\le 2\\sqrt{3}^{2}'
    """
    text = re.sub(r"^\\[(\[](.+)\\[)\]]$", r"\1", text.translate(SIGNS).strip())
    text = re.sub(r"(\d*)\s*([¼-¾⅐-⅞])", vulgar, text)
    text = re.sub(f"[{RAISED}]+", lambda match: f"^{{{match[0].translate(DIGITS)}}}", text)
    text = re.sub(f"[{LOWERED}]+", lambda match: f"_{{{match[0].translate(DIGITS)}}}", text)
    text = re.sub(r",\\!", r"{,}", text)
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    text = re.sub(r"(?<![\d.,_'])(\d{1,3})((?:[ ']\d{3})+)(?![\d'])", lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
    text = re.sub(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|dot)(?:\{(\d+)\}|(\d))", repeating, text)
    text = re.sub(r"(?<![\d.])(\d+)\.(\d*?)(?:(\d)\3{2,}|(\d{2,6}?)\4+)\s*(?:\.\.\.+|…|\\[lc]?dots)$", repeating, text)
    text = in_braces(text)
    text = re.sub(
        r"(?<![\w.^}\\])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}|(?<![\w.^}\\])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", mixed, text
    )
    return re.sub(r"(?<![.;])[.;。]$", "", " ".join(text.split())).removeprefix("+").strip()


def vulgar(match: re.Match) -> str:
    """A sign such as ½, with the whole number before it, as a fraction."""
    above, below = unicodedata.normalize("NFKC", match[2]).split("⁄")
    return rf"{match[1]}\frac{{{above}}}{{{below}}}"


def repeating(match: re.Match) -> str:
    """A repeating decimal as a fraction."""
    whole, fixed, *again = match.groups()
    again = "".join(digits or "" for digits in again)
    value = Fraction(int(whole + fixed + again) - int(whole + fixed or 0), 10 ** len(fixed) * (10 ** len(again) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def mixed(match: re.Match) -> str:
    """A mixed number as one fraction; what is no mixed number stays."""
    whole, above, below = (int(number) for number in match.groups() if number is not None)
    return rf"(\frac{{{whole * below + above}}}{{{below}}})" if whole and 0 < above < below else match[0]


def closing(text: str, begin: int) -> int:
    """Where the bracket closes that opens at `begin`, whatever its form; -1 if it does not."""
    depth = 0
    for i in range(begin, len(text)):
        depth += (text[i] in CLOSER) - (text[i] in CLOSER.values())
        if depth == 0:
            return i
    return -1


def in_braces(text: str) -> str:
    r"""What belongs to \frac, \sqrt, ^ and _ in braces: `\frac12`, `\sqrt3`, `\sqrt(2)`, `2^-10`, `2^(1/3)`."""
    parts, end = [], 0
    for match in re.finditer(r"\\frac(?![a-zA-Z])|\\sqrt(?![a-zA-Z])(?:\[[^\]]*\])?|\^|_", text):
        if match.start() < end:
            continue
        parts.append(text[end : match.end()])
        end = match.end()
        for _ in range(2 if match[0] == r"\frac" else 1):
            argument, end = read_argument(text, end, single=match[0] == r"\frac")
            parts.append(argument)
    return "".join(parts) + text[end:]


def read_argument(text: str, begin: int, *, single: bool) -> tuple[str, int]:
    """(argument in braces, where it ends); a number is one argument, unless only its first digit is (`single`)."""
    begin += len(text[begin:]) - len(text[begin:].lstrip())
    if (
        text[begin : begin + 1] in ("{", "(")
        and (end := closing(text, begin)) > 0
        and not (single and text[begin] == "(")
    ):
        return "{" + in_braces(text[begin + 1 : end]) + "}", end + 1
    match = re.compile(r"\d|[a-zA-Z]" if single else r"[+-]?\d+(?:\.\d+)?|[+-]?[a-zA-Z]").match(text, begin)
    return ("{" + match[0] + "}", match.end()) if match else ("", begin)

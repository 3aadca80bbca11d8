"""Read a judge's reply: one verdict, one set of ratings, or None where it does not clearly give one."""

from __future__ import annotations

import re

from distil.verify.equations import WIDE

VERDICTS = ("easy", "medium", "hard")
MARKUP = re.compile(r"</?[a-z][^<>\n]*>|\\[a-z]+|[*_`#]")  # of HTML, LaTeX and markdown; "<4>" is no tag
WORD = r"(?<![a-z])(?<![a-z]-)(easy|medium|hard)(?![a-z]|-[a-z]|\s*\?|[ \t]+(?!{}\b)[a-z])"
# the verdict itself: "hard to say" and "medium-hard" are none
SAID = WORD.format("(?:because|since|verdict)")
GIVEN = re.compile(rf"(?<![a-z])(?:verdict|判断|判定|结论)(?:\W|是|为|is\b)*{SAID}")
# what contradicts it: also "easy or", but not "easy to follow"
NAMED = re.compile(WORD.format("(?:because|since|verdict|and|or|nor|vs)"))
DENIED = re.compile(r"\b(?:no|not|never|cannot)\b|n['’]t\b|不|没")
RATINGS = (("rv", "verbosity", 9), ("cd", "difficulty", 9), ("correct", "correct", 1))


def normalise_reply(text: str) -> str:
    """A reply in lower case, without markup, and with full-width signs as ASCII."""
    return MARKUP.sub(" ", text.translate(WIDE).lower())


def parse_verdict(text: str) -> str | None:
    """The one verdict in a judge's reply; None if there is none or they contradict each other.

    >>> parse_verdict("**Verdict:** *Hard*, since it wanders"), parse_verdict("Verdict: easy/medium/hard")
    ('hard', None)
    """
    text = normalise_reply(text)
    named = set(NAMED.findall(text))
    if len(named) != 1:
        return None
    verdict = named.pop()
    if re.findall(r"\w+", text) == [verdict]:  # the whole reply
        return verdict
    given = None
    for match in GIVEN.finditer(text):
        sentence = re.split(r"[.!?。\n]", text[max(0, match.start() - 100) : match.start()])[-1]
        if DENIED.search(sentence):  # "I cannot say Verdict: hard"
            return None
        given = match.group(1)
    return given


def parse_rating(text: str) -> dict | None:
    """{rv, cd, correct} from a reply; None unless each is there with one whole number that is in range."""
    text = re.sub(r"<\s*(\d)\s*>", r"\1", normalise_reply(text))
    values = {}
    for field, name, top in RATINGS:
        # a sign before the number, a fraction, another scale or a second number after it: not a rating
        found = re.findall(
            rf"(?<![a-z]){name}(?:[^\w\-−–~≈<>.]*|\s+[-–]\s+)([0-9]{{1,3}})(?:\s*/\s*{top}(?![0-9]))?"
            r"(?!\w|\s*[?%°]|[^\w\n]*(?:(?:or|and|to|of|out)\b|[0-9]))",
            text,
        )
        if len(set(found)) != 1 or int(found[0]) > top:
            return None
        if len(found) != len(re.findall(rf"(?<![a-z]){name}\W*[0-9]", text)):  # one is clear, another is not
            return None
        values[field] = int(found[0])
    return values

"""How a figure is written: the filters of the templates, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()


def percent(share: float, digits: int = 0) -> str:
    """0.4325 is 43%."""
    return f"{share:.{digits}%}"


def count(number: float) -> str:
    """1453 is 1,453."""
    return f"{number:,.0f}"


def fixed(number: float, digits: int = 1) -> str:
    return f"{number:.{digits}f}"


def signed(share: float) -> str:
    """A difference in points, without the word: 0.048 is +4.8; what rounds to nothing is +0.0."""
    return f"{round(100 * share, 1) + 0:+.1f}"


def by_seed(row: dict) -> str:
    return ", ".join(map(signed, row["by_seed"]))


def gap(row: dict) -> str:
    """A difference with its 95% interval, without the word points."""
    gain, low, high = (signed(row[key]) for key in ("difference", "ci_low", "ci_high"))
    return f"{gain} ({low} to {high})"


def points(row: dict) -> str:
    return gap(row).replace(" ", " points ", 1)


def accuracy(row: dict) -> str:
    """Accuracy with its 95% interval, of a row of a benchmark."""
    low, high = (percent(share, 1) for share in row["ci"])
    return f"{percent(row['accuracy'], 1)} ({low} to {high})"


def minutes(seconds: float, digits: int = 0) -> str:
    return f"{seconds / 60:.{digits}f}"


def words(number: int) -> str:
    """4 is four. Raises IndexError from 13 on."""
    return WORDS[number]


def named(rows: list[dict], by: str = "name") -> dict[str, dict]:
    """Rows by what they are called; of several with one name the first."""
    return {row[by]: row for row in reversed(rows)}


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; an empty cell has two blanks, as the tables of a run have."""
    head, *body = ("| " + " | ".join(map(str, line)) + " |" for line in (heads, *rows))
    return "\n".join((head, "|" + "---|" * len(heads), *body))


FILTERS = {form.__name__: form for form in (
    percent, count, fixed, signed, by_seed, gap, points, accuracy, minutes, words, named,
)}  # fmt: skip

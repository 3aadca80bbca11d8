"""Completions beside gold answers, in answers.tsv: which is right is settled there by hand, question by question."""

import csv
from pathlib import Path

import pytest
from factories import a_problem

from distil.verify.math import normalise_latex, unit_of
from distil.verify.registry import is_correct, verifier_of
from distil.workspace.rows import Problem

TABLE = Path(__file__).with_name("answers.tsv")
# right answers that are refused; what is worse, a wrong one that is accepted, must not happen at all
KNOWN_MISSES = {
    (r"x \in [-2,7]", r"\boxed{-2 \le x \le 7}"),
    (r"\sqrt{2}", r"\boxed{2^{0.5}}"),
    (r"\frac{1}{2}", r"\boxed{\text{one half}}"),
    ("12", r"\boxed{\text{twelve}}"),
    (r"1\text{ hour}", r"\boxed{60\text{ minutes}}"),
    (r"\frac{1}{3}", r"\boxed{0.333\ldots}"),
    ("7", "Answer: 7 (see above)"),
}
CHOICES = ["a stone", "a pear", "A"]


def rows() -> list[dict]:
    with open(TABLE, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def problem(row: dict) -> Problem:
    choices = CHOICES if row["verifier"] == "choice" else None
    return a_problem(answer=row["gold"], verifier=row["verifier"], choices=choices)


def test_every_gold_answer_can_be_read():
    for gold in {(row["verifier"], row["gold"]) for row in rows()}:
        with_gold = problem({"verifier": gold[0], "gold": gold[1]})
        verifier_of(with_gold).check_gold(with_gold)


@pytest.mark.slow
def test_no_wrong_answer_passes_and_the_misses_are_known():
    table = rows()
    assert len(table) > 600 and {row["is"] for row in table} == {"right", "wrong"}
    passed = {(row["gold"], row["completion"]): is_correct(row["completion"], problem(row)) for row in table}
    wrong = [row for row in table if row["is"] == "wrong" and passed[row["gold"], row["completion"]]]
    assert wrong == []
    page = (TABLE.parents[2] / "docs/measuring.md").read_text(encoding="utf-8")
    assert f"[{len(table)} completions]" in page and f"{len(KNOWN_MISSES)} right ones are refused" in page
    right = {(row["gold"], row["completion"]) for row in table if row["is"] == "right"}
    assert {pair for pair in right if not passed[pair]} == KNOWN_MISSES


@pytest.mark.parametrize(("written", "read"), [
    (r"1\,234\,567", "1234567"), (r"11,\! 111,\! 100", "11111100"), (r"(1,\,200)", "(1, 200)"),
    (r"0.1\overline{6}", r"\frac{1}{6}"), (r"\log_e 2", r"\ln 2"), (r"1 & 2 \\ 3", r"1 & 2 \\ 3"),
])  # fmt: skip
def test_latex_is_put_into_plain_form(written, read):
    assert normalise_latex(written) == read


@pytest.mark.parametrize(("text", "unit"), [
    ("5 cm", "cm"), ("5 cm^2", "cm2"), (r"\$5", "dollars"), ("12 apples", None), ("5m", "m"), ("42", None),
    (r"90^\circ", "degrees"), ("3 厘米", "cm"), ("xm", None),
])  # fmt: skip
def test_units(text, unit):
    assert unit_of(text) == unit

"""Rows of a data set on the Hub as problems, by the map of `distil.problems.hub`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable

from distil.problems.errors import ProblemError
from distil.problems.fields import field_of, text_of
from distil.verify.answers import extract_boxed, final_answer, normalise_answer
from distil.verify.choice import LETTERS
from distil.verify.registry import verifier_named, verifier_of
from distil.workspace.rows import Problem

NO_ANSWER = {"", "none", "proof", "notfound", "not found"}  # what NuminaMath and its children write for want of one
TEXTS = re.compile(r"[^\W\d_]{2,}([ '-][^\W\d_]+)*")  # words, which math-verify would read as products of letters


def rows_from(
    records: Iterable[tuple[int, dict]], mapping: dict, split: str, wanted: int
) -> tuple[list[Problem], list[dict]]:
    """(problems, removed) from numbered records of a data set, until `wanted` problems are found.

    Raises ProblemError, naming the row, for a field that is not there (with those that are), or an answer that cannot
    be read, unless the map drops such rows.
    """
    rows, removed = [], []
    records = iter(records)
    while len(rows) < wanted:
        number, record = next(records, (None, None))
        if record is None:
            break
        if is_wanted(record, mapping, number):
            try:
                rows.append(problem_of(record, mapping, split, number))
            except Unreadable as error:
                removed.append(error.row)
    return rows, removed


class Unreadable(Exception):
    """A row whose question or answer cannot be used, of a map that drops such rows; `row` is one of removed.jsonl."""

    def __init__(self, row: dict):
        super().__init__(row["reason"])
        self.row = row


def is_wanted(record: dict, mapping: dict, number: int) -> bool:
    """Has a row the values that the map wants? Raises ProblemError for a field that is not there."""
    where = mapping.get("where", {})
    return all(value_of(record, field, mapping, number) == value for field, value in where.items())


def value_of(record: dict, field: str, mapping: dict, number: int) -> object:
    """A field's value. Raises ProblemError, naming the row and its fields, if it is not there."""
    try:
        return field_of(record, field)
    except KeyError:
        raise ProblemError(
            f"hub:{mapping['name']}, row {number}: no field {field!r}; there are: {', '.join(record)}"
        ) from None


def problem_of(record: dict, mapping: dict, split: str, number: int) -> Problem:
    """The problem of a row. Raises ProblemError or, if the map drops such rows, Unreadable."""
    keys = [key for key in ("question", "answer", "tests", "starter", "choices") if isinstance(mapping.get(key), str)]
    values = {key: value_of(record, mapping[key], mapping, number) for key in keys}
    if isinstance(mapping.get("choices"), list):
        values["choices"] = [value_of(record, field, mapping, number) for field in mapping["choices"]]
    name = mapping["name"].rpartition("/")[2]
    problem = Problem(
        id=f"{name}-{split}-{number:06d}",
        domain=verifier_named(mapping["verifier"]).domain or "hub",
        task=name,
        question="",
        answer="",
        verifier=mapping["verifier"],
        source=mapping["repository"],
        split=split,
    )
    try:
        fill_in(problem, values, mapping)
    except ValueError as error:
        if mapping["unreadable"] == "refuse":
            where = f"hub:{mapping['name']}, row {number}"
            raise ProblemError(f"{where}: {error}; unreadable=drop leaves such rows out") from None
        reason = {"reason": str(error), "collides_with": None, "collides_with_question": None}
        raise Unreadable(problem.to_dict() | reason) from None
    return problem


def fill_in(problem: Problem, values: dict, mapping: dict) -> None:
    """Question, answer, verifier, choices and tests of a problem, in place. Raises ValueError if they cannot be used.

    `values` holds the row's question, answer, tests, starter and choices, as far as the map names them.
    """
    problem.question = text_of(values["question"] or "", "question").strip()
    if not problem.question:
        raise ValueError("the question is empty")
    if "tests" in values:
        tests = values["tests"]
        problem.tests = json.loads(tests) if isinstance(tests, str) and tests.strip() else tests
    if starter := values.get("starter"):
        problem.question += f"\n\nStart from this code:\n{starter}"
        if method := re.search(r"def (\w+)\(self", starter):
            problem.entry_point = method.group(1)
    if "choices" in values:
        if not isinstance(values["choices"], list) or len(values["choices"]) > len(LETTERS):
            raise ValueError(f"field `{mapping['choices']}` is no list of at most {len(LETTERS)} choices")
        problem.choices = [str(choice) for choice in values["choices"]]
        if isinstance(mapping["choices"], list):
            problem.choices = [choice.strip() for choice in problem.choices]
            right = problem.choices[0]
            random.Random(problem.question).shuffle(problem.choices)  # the same for every run and every student
            problem.answer = LETTERS[problem.choices.index(right)]
        problem.question += "\n\n" + "\n".join(f"{chr(65 + i)}) {text}" for i, text in enumerate(problem.choices))
    if "answer" in values:
        problem.answer = read_answer(values["answer"], mapping["read"])
    if problem.verifier == "math" and TEXTS.fullmatch(normalise_answer(problem.answer)):
        problem.verifier = "exact"
    verifier_of(problem).check_gold(problem)


def read_answer(value: object, how: str) -> str:
    """The gold answer in a field's value. Raises ValueError if there is none."""
    text = "" if value is None else text_of(value, "answer")
    if how == "hash":
        _, sign, text = text.rpartition("####")
        if not sign:
            raise ValueError("no answer after ####")
    elif how == "boxed":
        text = extract_boxed(text) or ""
    else:
        text = final_answer(text)
    text = text.strip()
    if text.casefold() in NO_ANSWER:
        raise ValueError(f"no answer to be read ({how})")
    return text

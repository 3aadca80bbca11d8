"""Functions to write: enough of them, each told from its like by its tests, and solved by its own reference."""

import threading

import pytest

from distil.problems import programs
from distil.problems.program_kinds import KINDS
from distil.problems.sources import generate
from distil.sandbox import confine
from distil.verify.check import check_verifier
from distil.verify.code import check_all, read_tests, side_by_side

ROWS = list(programs.pool(0))
needs_sandbox = pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")


def test_enough_without_repeats_and_the_same_every_time():
    assert len(KINDS) >= 12 and len({row["question"] for row in ROWS}) == len(ROWS)
    assert list(programs.pool(0)) == ROWS
    assert next(programs.pool(1)) != ROWS[0]
    for number in (150, 50):  # what comes first holds as many of each kind as can be
        for half in (ROWS[: 2 * number : 2], ROWS[1 : 2 * number : 2]):
            counts = [sum(row["more"]["entry_point"] == kind.name for row in half) for kind in KINDS]
            assert max(counts) - min(counts) <= 1 and sum(counts) == number


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tests_tell_every_function_from_the_others_of_its_kind(kind):
    functions = {}
    for row in ROWS:
        if row["more"]["entry_point"] == kind.name:
            check_verifier(row | row["more"])
            place = {}
            exec(row["more"]["prompt"] + row["more"]["solution"], place)
            functions[row["question"]] = (place[kind.name], row["more"]["tests"])
    assert len(functions) >= 20
    for question, (_, tests) in functions.items():
        checks = compile(read_tests({"tests": tests}), "tests", "exec")
        passing = [other for other, (function, _) in functions.items() if passes(checks, kind.name, function)]
        assert passing == [question]


def passes(checks, name: str, function) -> bool:
    try:
        exec(checks, {name: function})
    except AssertionError:
        return False
    return True


def test_programs_go_several_at_once_and_the_order_stays():
    """A problem that waits for the one after it would wait for ever, if they came one by one."""
    meeting = threading.Barrier(2, timeout=20)

    def work(problem: dict, number: int) -> int:
        if problem["verifier"] == "code":
            meeting.wait()
        return number

    problems = [{"verifier": kind} for kind in ("code", "exact", "code")]
    assert side_by_side(work, problems, [1, 2, 3]) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda problem: 1 // 0, problems)


@pytest.mark.slow
@needs_sandbox
def test_verdicts_in_the_sandbox():
    rows = [r for r in generate("reference", 0, 12 * len(KINDS), 0) if r["task"] == "programs"]
    assert len({r["entry_point"] for r in rows}) == len(rows) == len(KINDS)
    block = "Some words.\n\n```python\n{}```"
    whole = [block.format(r["prompt"] + r["solution"]) for r in rows]
    assert all(verdict.passed for verdict in check_all(whole, rows))
    assert not any(verdict.passed for verdict in check_all([block.format("") for _ in rows], rows))
    stubs = [block.format(r["prompt"] + "    return None\n") for r in rows]
    assert not any(verdict.passed for verdict in check_all(stubs, rows))

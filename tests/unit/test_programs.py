"""Functions to write: enough of them, each told from its like by its tests, and solved by its own reference."""

import threading

import pytest
from factories import a_problem

from distil.problems import programs
from distil.problems.program_kinds import KINDS
from distil.problems.sources import generate
from distil.sandbox import confine
from distil.verify.code import read_tests, result_of
from distil.verify.registry import map_problems, verifier_of
from distil.workspace.rows import Problem

ROWS = list(programs.pool(0))
needs_sandbox = pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")


def test_enough_without_repeats_and_the_same_every_time():
    assert len(KINDS) >= 12 and len({row.question for row in ROWS}) == len(ROWS)
    assert list(programs.pool(0)) == ROWS
    assert next(programs.pool(1)) != ROWS[0]
    for number in (150, 50):  # what comes first holds as many of each kind as can be
        for half in (ROWS[: 2 * number : 2], ROWS[1 : 2 * number : 2]):
            counts = [sum(row.entry_point == kind.name for row in half) for kind in KINDS]
            assert max(counts) - min(counts) <= 1 and sum(counts) == number


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tests_tell_every_function_from_the_others_of_its_kind(kind):
    functions = {}
    for row in ROWS:
        if row.entry_point == kind.name:
            verifier_of(row).check_gold(row)
            place = {}
            exec(row.prompt + row.solution, place)
            functions[row.question] = (place[kind.name], row)
    assert len(functions) >= 20
    for question, (_, row) in functions.items():
        checks = compile(read_tests(row), "tests", "exec")
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

    def work(problem: Problem, number: int) -> int:
        if problem.verifier == "code":
            meeting.wait()
        return number

    problems = [a_problem(verifier=kind) for kind in ("code", "exact", "code")]
    assert map_problems(work, problems, [1, 2, 3]) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        map_problems(lambda problem: 1 // 0, problems)


@pytest.mark.slow
@pytest.mark.slow
@needs_sandbox
def test_solutions_and_stubs_in_the_sandbox():
    rows = [r for r in generate("reference", 0, 12 * len(KINDS), 0) if r.task == "programs"]
    assert len({r.entry_point for r in rows}) == len(rows) == len(KINDS)
    block = "Some words.\n\n```python\n{}```"
    whole = [block.format(r.prompt + r.solution) for r in rows]
    assert all(result.passed for result in map_problems(result_of, rows, whole))
    empty = [block.format("") for _ in rows]
    assert not any(result.passed for result in map_problems(result_of, rows, empty))
    stubs = [block.format(r.prompt + "    return None\n") for r in rows]
    assert not any(result.passed for result in map_problems(result_of, rows, stubs))

"""Run a program that a model wrote: does it pass its tests, or give the output that is expected?

The program sees no test and no expected output. Its functions are called from another process, with plain values (see
inside.py); its output is compared here. What keeps it in is chosen by `confine.mechanism`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from distil.sandbox.confine import HOW, SandboxError, Started, limits_of, mechanism, start
from distil.sandbox.launcher import Launched

TIMEOUT_S = 10.0
MEMORY_MB = 512
OUTPUT_BYTES = 1 << 20  # of a program, beyond ten times what is expected


@dataclass(frozen=True)
class RunResult:
    """`passed` only if every test was; `reason` says what was not, in a few words."""

    passed: bool
    reason: str


def run(
    code: str,
    tests: str,
    *,
    setup: str = "",
    entry_point: str = "",
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
) -> RunResult:
    """Do the functions that `code` defines pass `tests`?

    `tests` is Python: asserts that call the functions by name, or a function `check(candidate)`, which gets the
    function `entry_point`. A method of a class Solution is called by its own name. `setup` is trusted code of the
    problem, run before the code and before the tests.

    Arguments and results are plain values: None, numbers, strings, bytes, lists, tuples, sets, dicts, ranges, a
    generator's values. If a function changes a list, dict or set in place, the test sees the change.

    `timeout_s` are seconds on the clock; `memory_mb` is the address space of each of the two processes. Raises
    SandboxError where nothing can keep the program in.
    """
    how = checked_mechanism()
    limits = limits_of(timeout_s, memory_mb, OUTPUT_BYTES)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        mine, theirs = Path(folder) / "tests" / "main", Path(folder) / "candidate" / "main"
        for file, content in (
            (mine, {"setup": setup, "tests": tests, "entry_point": entry_point}),
            (theirs, [setup, code]),
        ):
            file.parent.mkdir()
            file.write_text(json.dumps(content), encoding="utf-8")
        said = stack.enter_context(open(Path(folder) / "said", "w+b"))
        asked, asking = os.pipe()
        answers, answering = os.pipe()
        ends = [stack.enter_context(os.fdopen(end, "rb", buffering=0)) for end in (asked, asking, answers, answering)]
        null = stack.enter_context(open(os.devnull, "wb"))
        candidate = start(how, "candidate", theirs, limits, stdin=asked, stdout=answering, stderr=null.fileno())
        stack.callback(end, candidate)
        judge = start(how, "tests", mine, limits, stdin=answers, stdout=asking, stderr=said.fileno())
        stack.callback(end, judge)
        for one in ends:  # or neither would see the other's end
            one.close()
        if not ended(judge, timeout_s):
            return RunResult(False, f"took longer than {timeout_s:g} s")
        return read_result(said)


def run_program(
    code: str, cases: Sequence[tuple[str, str]], *, timeout_s: float = TIMEOUT_S, memory_mb: int = MEMORY_MB
) -> RunResult:
    """Does a program give the expected output for every case, (what it reads, what it should write)?

    Each case is a run of at most `timeout_s`; the first failure ends the check. Outputs are equal if each line has the
    same text or the same numbers; blanks at line ends do not count. Raises SandboxError as `run` does, and ValueError
    without a case.
    """
    if not cases:
        raise ValueError("a program without a case to run it on")
    how = checked_mechanism()
    for number, (given, expected) in enumerate(cases, 1):
        where = f"case {number} of {len(cases)}"
        room = OUTPUT_BYTES + 10 * len(expected)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            for name, content in (("main.py", code), ("in", given)):
                (Path(folder) / name).write_text(content, encoding="utf-8", errors="replace")
            streams = {
                stream: stack.enter_context(open(Path(folder) / name, mode))
                for stream, name, mode in (("stdin", "in", "rb"), ("stdout", "out", "w+b"), ("stderr", "err", "w+b"))
            }
            file, limits = Path(folder) / "main.py", limits_of(timeout_s, memory_mb, room)
            process = start(how, "program", file, limits, **{name: one.fileno() for name, one in streams.items()})
            stack.callback(end, process)
            if not ended(process, timeout_s):
                return RunResult(False, f"{where} took longer than {timeout_s:g} s")
            if process.returncode:
                last = tail(streams["stderr"]).strip().rpartition("\n")[2]
                return RunResult(False, f"{where} ended with code {process.returncode}: {last[:200]}")
            streams["stdout"].seek(0)
            if not same_output(streams["stdout"].read(room).decode(errors="replace"), expected):
                return RunResult(False, f"wrong output in {where}")
    return RunResult(True, "passed")


def checked_mechanism() -> str:
    """What keeps a program in. Raises SandboxError if nothing does."""
    how = mechanism()
    if how is None:
        raise SandboxError(f"a program that a model wrote is not run without a sandbox, and none works here: {HOW}")
    return how


def ended(process: Started | Launched, timeout_s: float) -> bool:
    """Has the process ended by itself within so many seconds?"""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def end(process: Started | Launched) -> None:
    """Kill a process and all of its session; bubblewrap and sandlock take with them what they hold."""
    process.kill()
    process.wait()


def tail(file) -> str:
    """The last 2,000 bytes of a file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2000))
    return file.read().decode(errors="replace")


def read_result(said) -> RunResult:
    """The result that the tests' process wrote; without one the tests were not passed."""
    text = tail(said)
    try:
        found = json.loads(text)
        return RunResult(found["passed"] is True, str(found["reason"]))
    except (ValueError, TypeError, KeyError):
        return RunResult(False, f"the tests gave no result: {text.strip()[-200:]}")


def same_output(got: str, expected: str) -> bool:
    """Are two outputs the same, line by line, or number by number?"""
    mine, theirs = ([line.strip() for line in text.strip().splitlines()] for text in (got, expected))
    return len(mine) == len(theirs) and all(map(same_line, mine, theirs))


def same_line(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return [Decimal(word) for word in one.split()] == [Decimal(word) for word in other.split()]
    except InvalidOperation:
        return False

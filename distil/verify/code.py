"""Problems whose answer is a program: which code a completion gives, and whether it passes the problem's tests."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distil.sandbox.run import Verdict, run, run_program

T = TypeVar("T")
LONGEST = 100_000  # characters of a program that is looked at
FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", flags=re.DOTALL | re.MULTILINE)
PYTHON = ("", "python", "python3", "py")
# outputs are JSON, which has no tuples; some sets wrap each output in a list of its own
SAME = "def listed(x):\n    return [listed(y) for y in x] if isinstance(x, (list, tuple)) else x\n"


def extract_code(text: str, entry_point: str = "") -> str | None:
    """The last fenced block of Python in a text, or rather the last that defines `entry_point`; None without a block.

    A last block that is not closed counts too.
    """
    blocks = [code for label, code in FENCE.findall(text) if label.lower() in PYTHON]
    own = [code for code in blocks if entry_point and defines(code, entry_point)]
    return (own or blocks or [None])[-1]


def defines(code: str, name: str) -> bool:
    """Does a program define a function of that name?"""
    return re.search(rf"^\s*(?:async\s+)?def\s+{re.escape(name)}\b", code, flags=re.MULTILINE) is not None


def read_tests(problem: dict) -> str | list[tuple[str, str]]:
    """A problem's tests as Python that calls its functions, or as (input, output) of a program.

    Field `tests` is one of: Python; a list of asserts or of expressions that must be true; a list of {input, output,
    testtype: stdin or functional} (LiveCodeBench); {inputs, outputs, fn_name if it is a function} (APPS, TACO).
    Functions are called `entry_point` where the tests do not name them. Raises ValueError, saying what is wrong.
    """
    tests = problem.get("tests")
    if not tests:
        raise ValueError("verifier 'code' wants the tests of the problem in field `tests`")
    try:
        if isinstance(tests, str):
            compile(tests, "tests", "exec")
            return tests
        if isinstance(tests, dict):
            name, pairs = tests.get("fn_name"), list(zip(tests["inputs"], tests["outputs"], strict=True))
            return calls(name, pairs) if name else [(as_text(given), as_text(wanted)) for given, wanted in pairs]
        if all(isinstance(test, str) for test in tests):
            return "\n".join(asserted(test) for test in tests)
        kinds = {test.get("testtype", "stdin") for test in tests}
        if kinds == {"stdin"}:
            return [(test["input"], test["output"]) for test in tests]
        if kinds == {"functional"}:
            lines = [([json.loads(line) for line in t["input"].splitlines()], json.loads(t["output"])) for t in tests]
            return calls(problem["entry_point"], lines)
    except (SyntaxError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"field `tests` cannot be read: {type(error).__name__}: {error}") from None
    raise ValueError(
        f"field `tests` holds tests of kinds {sorted(kinds)}; there are stdin and functional, one at a time"
    )


def as_text(part: object) -> str:
    """What a program reads or writes: a text, or its lines."""
    return part if isinstance(part, str) else "\n".join(map(str, part))


def asserted(test: str) -> str:
    """A statement as it is, an expression as an assert."""
    body = ast.parse(test).body
    return f"assert ({test.strip()})" if len(body) == 1 and isinstance(body[0], ast.Expr) else test


def calls(name: str, pairs: list[tuple[list, object]]) -> str:
    """Python that asserts that a function gives each output for its arguments."""
    if not name or not name.isidentifier():
        raise ValueError("which function is called? Say so in `entry_point`")
    lines = []
    for args, wanted in pairs:
        right = [wanted, *(wanted if isinstance(wanted, list) and len(wanted) == 1 else [])]
        lines.append(f"assert listed({name}(*{args!r})) in {right!r}")
    return SAME + "\n".join(lines)


def check_code(code: str, problem: dict) -> Verdict:
    """Does a program pass the problem's tests? Raises SandboxError where it cannot be run safely.

    What the problem's `prompt` defines (imports, helpers, the head of the function) is there before the program; a
    program that does not define `entry_point` is taken as the rest of the prompt's function.
    """
    if len(code) > LONGEST:
        return Verdict(False, f"longer than {LONGEST} characters")
    tests, setup, name = read_tests(problem), problem.get("prompt", ""), problem.get("entry_point", "")
    if isinstance(tests, list):
        return run_program(code, tests)
    if setup and name and not defines(code, name):
        code = setup + code
    return run(code, tests, setup=setup, entry_point=name)


def check_text(text: str, problem: dict) -> Verdict:
    """The verdict on a completion. Raises SandboxError where programs cannot be run safely."""
    code = extract_code(text, problem.get("entry_point", ""))
    return Verdict(False, "no code") if code is None else check_code(code, problem)


def check_all(texts: Sequence[str], problems: Sequence[dict]) -> list[Verdict]:
    """A verdict on each completion, several at once, in order. Raises SandboxError as `check_text` does."""
    return side_by_side(lambda problem, text: check_text(text, problem), problems, texts)


def side_by_side(work: Callable[..., T], problems: Sequence[dict], *more: Sequence) -> list[T]:
    """`work(problem, *its part of more)` for all problems, in order. What it raises is raised.

    Where the answer is a program, one and a half a core at once, since they mostly wait.
    """
    jobs = list(zip(problems, *more, strict=True))
    programs = [i for i, problem in enumerate(problems) if problem["verifier"] == "code"]
    with ThreadPoolExecutor((os.cpu_count() or 1) * 3 // 2) as pool:
        done = dict(zip(programs, pool.map(lambda i: work(*jobs[i]), programs), strict=True))
    return [done[i] if i in done else work(*job) for i, job in enumerate(jobs)]

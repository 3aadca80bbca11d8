"""Verifier `code`: the answer is the program in the last fenced block, and right if it passes the problem's tests.

It runs in a sandbox, or not at all.
"""

from __future__ import annotations

import ast
import json
import re

from distil.sandbox import confine
from distil.sandbox.run import RunResult, run, run_program
from distil.verify.chain_text import TAGS, split_steps
from distil.verify.verifier import Verifier
from distil.workspace.rows import Chain, Problem

MAX_CHARACTERS = 100_000  # of a program that is looked at
FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", flags=re.DOTALL | re.MULTILINE)
PYTHON = ("", "python", "python3", "py")
# outputs are JSON, which has no tuples; some sets wrap each output in a list of its own
SAME = "def listed(x):\n    return [listed(y) for y in x] if isinstance(x, (list, tuple)) else x\n"


class Code(Verifier):
    """Problems hold `tests` (see `read_tests`) in place of a gold answer.

    Of a chain the last fenced block is the solution. A rewriter gets its thought only; the program stays as it is.
    """

    domain = "code"
    needs_answer = False
    asks_in_turns = False
    can_corrupt = False
    concurrent = True

    def prompt_name(self, style: str) -> str:
        return f"{style}_code"

    def rewrite_prompt_name(self, kind: str) -> str:
        return f"{kind}_code"  # the thought is rewritten, the program stays

    def check_gold(self, problem: Problem) -> None:
        read_tests(problem)

    def available(self) -> bool:
        return confine.mechanism() is not None

    def extract(self, text: str, problem: Problem, *, boxed_only: bool = False) -> str | None:
        return extract_code(text, problem.entry_point)

    def is_right(self, answer: str | None, problem: Problem) -> bool:
        """Does a program pass the tests? Raises SandboxError where it cannot be run safely."""
        return answer is not None and run_tests(answer, problem).passed

    def answers_once(self, text: str, problem: Problem) -> bool:
        return extract_code(text, problem.entry_point) is not None

    def fault(self, text: str, problem: Problem, *, check_steps: bool) -> str | None:
        program = self.extract(text, problem)
        return None if self.is_right(program, problem) else "fails its tests" if program else "no code"

    def split(self, text: str, reasoning: str = "", cut: bool = False) -> tuple[str, str]:
        """(thought, solution): the last fenced block, indentation and all, is the solution; none if `cut` off."""
        text = TAGS.sub("", text)
        begin = [match.start() for match in FENCE.finditer(text)][-1:] or [len(text)]
        thought, solution = text[: begin[0]].strip(), text[begin[0] :].strip()
        return "\n\n".join(part for part in (reasoning.strip(), thought) if part), "" if cut else solution

    def reasoning_steps(self, text: str) -> list[str]:
        """The steps before the program, which itself may repeat a line."""
        return split_steps(text.partition("```")[0])

    def rewritable(self, chain: Chain) -> str:
        return chain.thought

    def fixed(self, chain: Chain) -> str:
        return chain.solution

    def stated_answer(self, chain: Chain, problem: Problem) -> str:
        return chain.solution

    def rewrite_fault(self, text: str) -> str | None:
        return "a program of its own" if "```" in text else None


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


def read_tests(problem: Problem) -> str | list[tuple[str, str]]:
    """A problem's tests as Python that calls its functions, or as (input, output) of a program.

    Field `tests` is one of: Python; a list of asserts or of expressions that must be true; a list of {input, output,
    testtype: stdin or functional} (LiveCodeBench); {inputs, outputs, fn_name if it is a function} (APPS, TACO).
    Functions are called `entry_point` where the tests do not name them. Raises ValueError, saying what is wrong.
    """
    tests = problem.tests
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
            return calls(problem.entry_point, lines)
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


def run_tests(program: str, problem: Problem) -> RunResult:
    """Does a program pass the problem's tests? Raises SandboxError where it cannot be run safely.

    What the problem's `prompt` defines (imports, helpers, the head of the function) is there before the program; a
    program that does not define `entry_point` is taken as the rest of the prompt's function.
    """
    if len(program) > MAX_CHARACTERS:
        return RunResult(False, f"longer than {MAX_CHARACTERS} characters")
    tests, setup, name = read_tests(problem), problem.prompt, problem.entry_point
    if isinstance(tests, list):
        return run_program(program, tests)
    if setup and name and not defines(program, name):
        program = setup + program
    return run(program, tests, setup=setup, entry_point=name)


def result_of(problem: Problem, text: str) -> RunResult:
    """Does the program in a text pass the problem's tests? Raises SandboxError as `run_tests` does."""
    program = extract_code(text, problem.entry_point)
    return RunResult(False, "no code") if program is None else run_tests(program, problem)

"""Problems whose answer is a program: extraction, the shapes of tests, and the verdicts that the rest relies on."""

import pytest
from factories import a_problem

from distil.chains.collect import make_chain
from distil.llm.cache import Reply
from distil.llm.prompts import prompt_of
from distil.sandbox import confine
from distil.train.rewards import reward_terms
from distil.verify.code import extract_code, read_tests, run_tests
from distil.verify.registry import is_correct, verifiable, verifier_of

needs_sandbox = pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
BLOCK = "```python\ndef f(n):\n    m = n\n\n    return m + 1\n```"


@pytest.mark.parametrize(("text", "code"), [
    ("no code", None),
    ("```\na = 1\n```", "a = 1\n"),
    ("first\n```python\na = 1\n```\nthen\n``` py\nb = 2\n```\nthat is all", "b = 2\n"),
    ("```python\na = 1\n```\n```bash\nls\n```\n", "a = 1\n"),
    ("```python\ndef f():\n    return 1\n```\nUse it:\n```python\nprint(f())\n```", "def f():\n    return 1\n"),
    ("```python\nnot closed", "not closed"),
    ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
])  # fmt: skip
def test_extraction(text, code):
    assert extract_code(text, "f") == code


LCB = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "2 2", "output": "4", "testtype": "stdin"}]
FUNCTIONAL = [{"input": "[1, 2]\n2", "output": "[[1, 2], [2, 4]]", "testtype": "functional"}]
SUM = "print(sum(map(int, input().split())))"
ROWS = "class Solution:\n    def rows(self, a, n):\n        return [tuple(x * k for x in a) for k in range(1, n + 1)]"


@needs_sandbox
@pytest.mark.parametrize(("problem", "right", "wrong"), [
    ({"tests": ["f(1) == 2", "assert f(2) == 3"]}, "def f(n): return n + 1", "def f(n): return 2"),
    ({"tests": "assert f(1) == 2"}, "def f(n): return n + 1", "def f(n): return n"),
    ({"tests": LCB}, SUM, "print(3)"),
    ({"tests": FUNCTIONAL, "entry_point": "rows"}, ROWS, ROWS.replace("n + 1", "n")),
    ({"tests": {"inputs": ["1 2", ["3", "4"]], "outputs": ["3", ["7"]]}},
     "import sys\nprint(sum(map(int, sys.stdin.read().split())))", "print(7)"),
    ({"tests": {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}}, "def add(a, b): return a + b", ""),
    ({"tests": "def check(candidate):\n    assert candidate(2) == 3", "entry_point": "f",
      "prompt": "def f(n):\n    '''n + 1'''\n"}, "    return n + 1", "    return n"),
])  # fmt: skip
def test_every_shape_of_tests(problem, right, wrong):
    problem = a_problem(verifier="code", **problem)
    verifier_of(problem).check_gold(problem)
    assert verifiable(problem)
    assert run_tests(right, problem).passed and not run_tests(wrong, problem).passed
    assert is_correct(f"So:\n```python\n{right}\n```", problem) and not is_correct(right, problem), (
        "no block, no answer"
    )
    assert is_correct(f"So:\n```python\n{right}\n```", problem, boxed_only=True), "a block is the form of code"
    assert not run_tests(right + "\n#" + "x" * 200_000, problem).passed


@pytest.mark.parametrize(("tests", "message"), [
    (None, "wants the tests"),
    ("assert f(", "cannot be read: SyntaxError"),
    ([1], "cannot be read"),
    ({"inputs": ["1"], "outputs": []}, "cannot be read"),
    ({"inputs": ["1"]}, "cannot be read"),
    (FUNCTIONAL, "which function"),
    (LCB + FUNCTIONAL, "kinds"),
    ({"inputs": [[1]], "outputs": [1], "fn_name": "f(1); import os"}, "which function"),
])  # fmt: skip
def test_tests_that_cannot_be_read(tests, message):
    with pytest.raises(ValueError, match=message):
        read_tests(a_problem(verifier="code", tests=tests))


@needs_sandbox
def test_a_chain_that_is_a_program():
    problem = a_problem(question="Add one.", verifier="code", tests=["f(1) == 2"])

    def chain(text, reason="stop"):
        return make_chain("c", problem, "fast", Reply(text, "", reason, 1, 1), teacher="m")

    good = chain("Add one.\n\n" + BLOCK)
    assert good.correct and (good.thought, good.solution) == ("Add one.", BLOCK)
    assert is_correct(good.full_text, problem), "what is learned still runs"
    assert chain(BLOCK.replace("+ 1", "+ 2")).why == "fails its tests"
    assert chain("2").why == "no code"
    assert chain(BLOCK, "length").why == "cut off at the token limit"


def test_a_student_is_asked_for_a_program_or_for_an_answer():
    program, answer = (prompt_of(a_problem(question="Q", verifier=kind))[-1]["content"] for kind in ("code", "math"))
    assert "```python" in program and "boxed" not in program
    assert "boxed" in answer and "```" not in answer


@needs_sandbox
def test_a_program_earns_its_reward_and_its_form():
    problem = a_problem(question="f(n) is n + 1", verifier="code", tests="assert f(1) == 2")
    for text, correct, form in ((f"Add 1.\n\n{BLOCK}", 1, 1), (BLOCK, 1, 0), ("Add 1.\n\nThat is all.", 0, 0)):
        terms = reward_terms(text, problem, rv=3, cd=2, line=(3.0, 0.0), used=0.5)
        assert (terms["correct"], terms["format"]) == (correct, form), text

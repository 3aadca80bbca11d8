"""Programs that a model wrote: what is right passes, what cheats does not, and nothing does harm."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hostile import FUNCTIONS, PROGRAMS, adopt_orphans, attack, left_over

from distil.sandbox import confine, launcher
from distil.sandbox.run import RunResult, run, run_program, same_output

HERE = [how for how in ("bwrap", "sandlock") if confine.works(how)]
needs_sandbox = pytest.mark.skipif(not HERE, reason=f"no sandbox works here: {confine.HOW}")


@pytest.fixture(params=HERE)
def sandbox(request, monkeypatch):
    monkeypatch.setenv("DISTIL_SANDBOX", request.param)
    return request.param


@pytest.fixture(scope="module", params=HERE)
def attacked(request, tmp_path_factory):
    before = os.environ.get("DISTIL_SANDBOX")
    os.environ["DISTIL_SANDBOX"] = request.param
    try:
        yield attack(tmp_path_factory.mktemp("attacked"))
    finally:
        os.environ.pop("DISTIL_SANDBOX")
        if before is not None:
            os.environ["DISTIL_SANDBOX"] = before


@needs_sandbox
@pytest.mark.parametrize("name", [*FUNCTIONS, *(f"program: {name}" for name in PROGRAMS)])
def test_a_hostile_program_does_not_pass(attacked, name):
    verdict = attacked[0][name]
    assert not verdict.passed and verdict.reason


@needs_sandbox
def test_hostile_programs_do_no_harm(attacked):
    assert attacked[1] == []


RAISES = "try:\n    f()\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'"
THREAD = "import threading\ndef f():\n    t = threading.Thread(target=print)\n    t.start()\n    t.join()\n    return 1"
RIGHT = [
    ("def add(a, b): return a + b", "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'", ""),
    ("def f(n): return n", "def check(candidate):\n    assert candidate(4) == 4", "f"),
    ("class Solution:\n    def twice(self, n): return 2 * n", "assert twice(4) == 8", ""),
    ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]", ""),
    ("def f(n): return range(n)", "assert f(3) == range(3)", ""),
    ("def f(a): a.append(1); a.sort()", "a = [3, 2]\nassert f(a) is None and a == [1, 2, 3]", ""),
    ("def f(d): d['a'] = {1}", "d = {}\nf(d)\nassert d == {'a': {1}}", ""),
    ("def f(): return (1, 2.5), {3}, {4: None, (5,): b'6'}, 1j, float('inf'), 10**5000, '\\ud800'",
     "assert f() == ((1, 2.5), {3}, {4: None, (5,): b'6'}, 1j, float('inf'), 10**5000, '\\ud800')", ""),
    ("from collections import Counter\ndef f(s): return Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}", ""),
    ("def f(): raise ValueError('no')", RAISES, ""),
    (THREAD, "assert f() == 1", ""),
    ("print('noise')\ndef f(): print('more'); return 1", "assert f() == 1", ""),
    ("def f(x, *, y): return x - y", "assert f(3, y=1) == 2", ""),
]  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize(("code", "tests", "entry_point"), RIGHT)
def test_right_functions(sandbox, code, tests, entry_point):
    assert run(code, tests, entry_point=entry_point) == RunResult(True, "passed")


WRONG = [
    ("def f(n): return n + 1", "assert f(1) == 1", "wrong"),
    ("def f(n): return n +", "assert f(1) == 1", "SyntaxError"),
    ("", "assert f(1) == 1", "Solution"),
    ("def f(n): return 1 / 0", "assert f(1) == 1", "ZeroDivisionError"),
    ("def f(n): return 1", "pass", "call no function"),
    ("def f(n): return 1", "assert f(len) == 1", "no plain value"),
    ("def f(n): return f", "assert f(1)", "no plain value"),
    ("import numpy", "assert f(1)", "ModuleNotFoundError"),
    ("def f(n): return iter([n])", "assert f(1) == [1]", "wrong"),
]


@needs_sandbox
@pytest.mark.parametrize(("code", "tests", "reason"), WRONG)
def test_wrong_functions(sandbox, code, tests, reason):
    verdict = run(code, tests)
    assert not verdict.passed and reason in verdict.reason


@needs_sandbox
def test_the_tests_have_what_the_problem_defines(sandbox):
    setup = "def double(n):\n    return 2 * n\ndef half(n):\n    pass\n"
    tests = "def check(candidate):\n    assert candidate(double(3)) == 3"
    assert run("def half(n): return n // 2", tests, setup=setup, entry_point="half").passed
    assert run("def half(n): return double(n) // 4", tests, setup=setup, entry_point="half").passed
    assert not run("def double(n): return 0\ndef half(n): return 0", tests, setup=setup, entry_point="half").passed
    assert not run("", tests, setup=setup, entry_point="half").passed


@needs_sandbox
def test_programs(sandbox):
    code = "a, b = map(int, input().split())\nprint(a / b)"
    assert run_program(code, [("1 2\n", "0.5"), ("1 4\n", "0.25000\n")]) == RunResult(True, "passed")
    assert run_program(code, [("1 2", "0.5"), ("1 4", "0.5")]) == RunResult(False, "wrong output in case 2 of 2")
    assert "ZeroDivisionError" in run_program(code, [("1 0", "0")]).reason
    assert run_program("import sys\nif __name__ == '__main__':\n    print('a')\n    sys.exit()", [("", "a")]).passed
    with pytest.raises(ValueError, match="without a case"):
        run_program(code, [])


def test_outputs():
    assert same_output("1 2 \n3\n\n", "1.0 2\n3")
    assert not same_output("1 2 3", "1 2\n3") and not same_output("1 2", "1 2 3") and not same_output("a", "b")
    assert not same_output("nan", "1") and not same_output("", "0")


def test_without_a_sandbox_nothing_runs_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("DISTIL_SANDBOX", "none")
    monkeypatch.delenv("DISTIL_UNSAFE_CODE", raising=False)
    for work in (lambda: run("def f(): return 1", "assert f()"), lambda: run_program("print(1)", [("", "1")])):
        with pytest.raises(confine.SandboxError, match="install bubblewrap.*DISTIL_UNSAFE_CODE=1"):
            work()
    monkeypatch.setenv("DISTIL_UNSAFE_CODE", "1")
    assert run("def f(): return 1", "assert f() == 1").passed and run_program("print(1)", [("", "1")]).passed
    assert not run("def f(): return bytearray(10**9)", "assert f()", memory_mb=256).passed
    assert not run("import os\nos._exit(0)", "assert f()").passed
    monkeypatch.setenv("DISTIL_SANDBOX", "docker")
    with pytest.raises(confine.SandboxError, match="must be bwrap, sandlock or none"):
        run("", "assert f()")


needs_sandlock = pytest.mark.skipif("sandlock" not in HERE, reason="sandlock does not work here")
SLEEPS = "import time\ntime.sleep(300)"


@needs_sandlock
def test_what_starts_programs_knows_nothing_of_this_process(monkeypatch, tmp_path):
    """It starts without a variable and without an open file of ours, and a program has its own streams alone."""
    monkeypatch.setenv("DISTIL_SANDBOX", "sandlock")
    monkeypatch.setattr(launcher, "running", None)
    with open(tmp_path / "open", "w") as mine:
        os.set_inheritable(mine.fileno(), True)
        code = (
            "import os\ndef f():\n    found = []\n    for n in range(3, 64):\n"
            "        try: found.append(os.fstat(n).st_mode >> 12)\n        except OSError: pass\n    return found"
        )
        assert run(code, "assert sorted(f()) == [1, 1, 2], f()") == RunResult(True, "passed"), "two pipes and /dev/null"
        process = Path("/proc", str(launcher.running.process.pid))
        assert (process / "environ").read_bytes() == b""
        kinds = sorted(os.readlink(file).partition(":")[0] for file in (process / "fd").iterdir())
        assert kinds == ["/dev/null", "/dev/null", "anon_inode", "socket"]


@needs_sandlock
def test_programs_do_not_meet_in_what_starts_them(monkeypatch):
    monkeypatch.setenv("DISTIL_SANDBOX", "sandlock")
    leaves = "import builtins, json, os\nbuiltins.left = json.left = 1\nos.environ['LEFT'] = '1'\ndef f(): return 1"
    assert run(leaves, "assert f() == 1").passed
    left = "hasattr(builtins, 'left') or hasattr(json, 'left') or 'LEFT' in os.environ"
    assert run(f"import builtins, json, os\ndef f(): return {left}", "assert f() is False").passed


SLEEPS = "import time\ndef f(): time.sleep(300)"


@needs_sandlock
def test_a_program_is_not_wrong_because_what_starts_it_was_killed(monkeypatch):
    monkeypatch.setenv("DISTIL_SANDBOX", "sandlock")
    assert run("def f(): return 1", "assert f() == 1").passed
    killed = launcher.running.process
    soon = threading.Timer(1, killed.kill)
    soon.start()
    with pytest.raises(confine.SandboxError, match="was killed"):
        run(SLEEPS, "f()", timeout_s=60)
    soon.join()
    assert run("def f(): return 1", "assert f() == 1").passed and launcher.running.process is not killed, "a new one"


@needs_sandlock
def test_programs_end_with_the_process_that_runs_them():
    """They outlived a run that was killed, and those that slept for ever did so."""
    adopt_orphans()
    before = left_over()
    code = f"from distil.sandbox.run import run\nrun({SLEEPS!r}, 'f()', timeout_s=300)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTIL_SANDBOX": "sandlock"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    until = time.monotonic() + 60
    while sum("inside.py" in command for command in left_over()) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert sum("inside.py" in command for command in left_over()) == 2, "the program and its tests"
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while left_over() != before and time.monotonic() < until:
        time.sleep(0.05)
    assert left_over() == before

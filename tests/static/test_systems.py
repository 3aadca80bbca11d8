"""What only some systems have stands where it is guarded; texts say how they are encoded; CI names what exists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

import pytest
import yaml
from conftest import ROOT

from distil.cli import parser

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "posix"}
NAMES = {
    *("sched_getaffinity", "sched_setaffinity", "fork", "killpg", "getpgid", "setsid", "uname", "getuid", "geteuid"),
    *(
        "SIGKILL",
        "SIGALRM",
        "SIGHUP",
        "setitimer",
        "ITIMER_REAL",
        "alarm",
        "mkfifo",
        "symlink",
        "symlink_to",
        "sysconf",
    ),
    *("start_new_session", "preexec_fn", "pass_fds"),
}
FILES = re.compile(r"/(?:proc|tmp|dev)\b")
GUARDED = {  # the sandbox is for Linux: distil.sandbox.confine.mechanism says so
    "distil/workspace/environment.py": {"resource", "sched_getaffinity"},
    "distil/verify/time_limit.py": {"SIGALRM", "setitimer", "ITIMER_REAL"},
}
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def sources() -> dict[str, ast.AST]:
    """The package's modules, and the notebooks' code, by their path."""
    found = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in (ROOT / "distil").rglob("*.py")}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_bytes())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        found[f"notebooks/{path.name}"] = re.sub(r"^( *)%pip .*$", r"\1pass", code, flags=re.MULTILINE)
    return {name: ast.parse(text) for name, text in found.items()}


def of_some_systems(tree: ast.AST) -> Iterator[str]:
    """Names in a program that Windows or macOS lack."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from MODULES & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            yield from (MODULES & {node.module}) | (NAMES & {alias.name for alias in node.names})
        elif isinstance(node, ast.Attribute):
            yield from NAMES & {node.attr}
        elif isinstance(node, ast.keyword):
            yield from NAMES & {node.arg}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and FILES.match(node.value):
            yield node.value


def without_encoding(tree: ast.AST) -> Iterator[str]:
    """Calls that read or write text in whatever encoding the system has."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, of_object = getattr(node.func, "attr", getattr(node.func, "id", "")), isinstance(node.func, ast.Attribute)
        said = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        mode = getattr(node.args[1], "value", "b") if len(node.args) > 1 else said.get("mode", "r")
        text = (name == "open" and not of_object and "b" not in str(mode)) or said.get("text") is True
        if (text or (of_object and name in ("read_text", "write_text"))) and not {"encoding", "errors"} & {*said}:
            yield ast.unparse(node)


def test_what_only_some_systems_have_is_guarded():
    found = {name: {*of_some_systems(tree)} for name, tree in sources().items() if "/sandbox/" not in name}
    assert {name: names for name, names in found.items() if names} == GUARDED


@pytest.mark.parametrize("code", [
    "import fcntl", "from os import killpg", "import os\nos.sched_getaffinity(0)", "f(preexec_fn=g)",
    "x = '/proc/self'",
])  # fmt: skip
def test_a_name_of_some_systems_is_found(code):
    assert len([*of_some_systems(ast.parse(code))]) == 1


def test_texts_say_how_they_are_encoded():
    assert [f"{name}: {call}" for name, tree in sources().items() for call in without_encoding(tree)] == []


@pytest.mark.parametrize("code", ["open(x)", "open(x, 'w')", "p.read_text()", "run(x, text=True)", "p.write_text('')"])
def test_a_text_of_no_encoding_is_found(code):
    assert [*without_encoding(ast.parse(code))] and not [
        *without_encoding(ast.parse("open(x, 'rb')\nwrite_text(p, t)"))
    ]


def test_ci_runs_smoke_on_all_systems_without_make():
    job = WORKFLOW["jobs"]["smoke"]
    assert set(job["strategy"]["matrix"]["os"]) == {"ubuntu-latest", "macos-latest", "windows-latest"}
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert "distil run --profile smoke" in commands and not any("make" in command.split() for command in commands)


def test_ci_names_commands_that_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    for line in (line for step in steps if "run" in step for line in step["run"].strip().splitlines()):
        program, *words = line.split()
        if program == "make":
            assert set(words) <= targets, line
        elif program == "distil":
            parser().parse_args(words)  # else it exits
        else:
            assert [program, *words[:3]] == ["python", "-m", "pip", "install"], line
            assert all((ROOT / words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c"), line
    assert all("run" in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps)


def test_ci_publishes_the_book_of_the_main_branch_only():
    jobs = WORKFLOW["jobs"]
    able = [name for name, job in jobs.items() if job.get("permissions") or "environment" in job]
    assert able == ["publish"] and WORKFLOW["permissions"] == {"contents": "read"}
    assert jobs["publish"]["if"] == "github.ref == 'refs/heads/main'" and jobs["publish"]["needs"] == "book"
    assert "make bookcheck" in [step.get("run") for step in jobs["book"]["steps"]]

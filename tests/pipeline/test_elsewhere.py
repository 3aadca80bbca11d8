"""The command on Windows and macOS, as far as Linux can play them (tests/elsewhere/sitecustomize.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from conftest import ROOT

EVERY_MODULE = """
import importlib, pkgutil, distil
for module in pkgutil.walk_packages(distil.__path__, "distil."):
    if module.name != "distil.__main__":
        importlib.import_module(module.name)
from distil.workspace.environment import cores, peak_ram_gb
print(cores() >= 1, 0.02 < peak_ram_gb() < 2)
"""
NARROW = {"PYTHONIOENCODING": "cp1252"}  # a terminal in an encoding that lacks most signs


def elsewhere(system: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """Python with these arguments, on another system."""
    path = os.pathsep.join((str(ROOT / "tests" / "elsewhere"), str(ROOT)))
    environment = os.environ | {"ELSEWHERE": system, "PYTHONPATH": path} | variables
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, encoding="cp1252", timeout=900
    )


@pytest.fixture(scope="module", params=["win32", "darwin"])
def system(request) -> str:
    return request.param


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "notebooks", tmp_path / "Übung →" / "notebooks")
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path / "Übung →"))
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "Übung →"


def test_every_module_can_be_imported(system):
    done = elsewhere(system, "-c", EVERY_MODULE)
    assert done.stdout == "True True\n", done.stderr


def test_what_is_missing_is_missing():
    """So that the others can fail."""
    for code, wrong in (
        ("import fcntl", "no module fcntl on win32"),
        ("import os; os.sched_getaffinity(0)", "AttributeError: sched_getaffinity"),
        ("from signal import SIGALRM", "ImportError"),
        ("import sys; raise SystemExit(sys.platform)", "win32"),
    ):
        assert wrong in elsewhere("win32", "-c", f"exec({code!r}, {{'__name__': 'distil.x'}})").stderr


def test_doctor_says_what_needs_linux(system, home):
    done = elsewhere(system, "-m", "distil", "doctor", DISTIL_UNSAFE_CODE="1", **NARROW)
    assert done.returncode == 0, done.stderr
    assert "system " in done.stdout and "programs that a model wrote run on Linux only" in done.stdout
    assert r"Übung \u2192" in done.stdout, "a sign that the terminal lacks ends nothing"


@pytest.mark.parametrize("sets", [["problems=reference"], ["07_eval.suite=humaneval"], ["problems=mine.jsonl"]])
def test_programs_are_refused_before_anything_starts(system, home, sets):
    row = '{"question": "Add %d.", "verifier": "%s", "tests": ["f() == 1"], "answer": "1"}\n'
    rows = [row % (i, "code" if i == 3 else "exact") for i in range(20)]
    (home / "mine.jsonl").write_text("".join(rows), encoding="utf-8")
    words = ["--set", sets[0], "--set", "n_train=14", "--set", "n_test=6"]
    done = elsewhere(system, "-m", "distil", "run", *words, DISTIL_UNSAFE_CODE="1")
    assert done.returncode == 2 and "run on Linux only" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (home / "artifacts").exists()


def test_the_first_stages_run_on_macos(home):
    done = elsewhere("darwin", "-m", "distil", "run", "--profile", "smoke", "--to", "03", **NARROW)
    assert done.returncode == 0 and "run 'smoke' done" in done.stdout, done.stdout + done.stderr


def test_the_whole_runs_on_windows(home, forks):
    done = elsewhere("win32", "-m", "distil", "run", "--profile", "smoke", **NARROW)
    assert done.returncode == 0 and "| student | accuracy (95% CI) |" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    command = [sys.executable, "-m", "distil", "run", "--profile", "smoke", "--run", "linux", "--to", "03"]
    done = warm.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("01_collect/chains.jsonl", "02_rewrite/chains.jsonl", "03_judge/aligned.jsonl"):
        there, here = (home / "artifacts" / run / name for run in ("smoke", "linux"))
        assert there.read_bytes() == here.read_bytes(), "every verdict is the same, and every byte"
    files = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    assert not [path.name for path in files if set(path.name) & set('<>:"|?*\\')], "names that Windows takes"

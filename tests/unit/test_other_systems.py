"""Runs on Windows and macOS write what runs on Linux write; notebooks run with this interpreter."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from distil.pipeline import driver
from distil.publish import leaks
from distil.train.own_rows import student_name
from distil.verify import time_limit
from distil.verify.registry import is_right
from distil.workspace import files
from distil.workspace.errors import StageError
from distil.workspace.files import sha256, write_csv, write_text
from distil.workspace.rows import Problem
from distil.workspace.stage import run_folder

SUM = Problem(id="1", domain="math", task="t", question="1/2 + 0", answer="1/2", verifier="math", source="made up")
TOWER = "9^{9^{9}}"  # would never end
STALE = {"output_type": "stream", "name": "stdout", "text": "of an earlier run"}
NOTEBOOK = {
    "cells": [
        {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [], "execution_count": None,
         "source": "out: str = ''"},
        {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [STALE], "execution_count": 7,
         "source": "import pathlib, sys\npathlib.Path(out).write_text(f'{sys.executable} {sys.flags.utf8_mode}')"},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip


@pytest.mark.parametrize("argv", [["/no/such/python", "-f", "{connection_file}"], [sys.executable, "-c", "exit(3)"]])
def test_a_kernel_of_the_users_folders_is_not_taken(tmp_path, monkeypatch, argv):
    """It hid this interpreter's own kernel: a broken one, or that of another environment."""
    for folder in (tmp_path / "jupyter", tmp_path / ".local/share/jupyter", tmp_path / "Library/Jupyter"):
        (folder / "kernels/python3").mkdir(parents=True)
        spec = json.dumps({"argv": argv, "display_name": "Other", "language": "python"})
        (folder / "kernels/python3/kernel.json").write_text(spec)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_collect.ipynb").write_text(json.dumps(NOTEBOOK))
    for name, value in {
        "HOME": "",
        "JUPYTER_PATH": "jupyter",
        "JUPYTER_DATA_DIR": "jupyter",
        "DISTIL_HOME": "",
    }.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    out = tmp_path / "said"
    assert driver.execute_notebook("01_collect", tmp_path / "ran.ipynb", {"out": str(out)}) is None
    assert out.read_text() == f"{sys.executable} 1", "files are read as UTF-8, whatever the system's encoding"
    assert STALE["text"] not in (tmp_path / "ran.ipynb").read_text(encoding="utf-8"), "not shown again"


@pytest.fixture
def no_signals(monkeypatch):
    """A system without the signal that ends what takes too long."""
    for name in ("SIGALRM", "setitimer"):
        monkeypatch.delattr(signal, name)


def test_an_answer_that_takes_too_long_is_ended_without_a_signal(no_signals, monkeypatch):
    assert is_right("0.5", SUM) and not is_right("0.4", SUM)
    helper = time_limit.Helper.pool
    assert helper is not None
    monkeypatch.setattr("distil.verify.verifier.TIME_LIMIT_S", 1.0)
    begun = time.monotonic()
    assert not is_right(TOWER, SUM)
    assert time.monotonic() - begun < 5
    assert is_right("0.5", SUM) and time_limit.Helper.pool is not helper, "the next one has a helper of its own"


def test_an_answer_that_takes_too_long_is_ended_in_a_thread(monkeypatch):
    """No signal gets there: it went on for ever."""
    monkeypatch.setattr("distil.verify.verifier.TIME_LIMIT_S", 1.0)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(is_right(TOWER, SUM)), daemon=True)
    thread.start()
    thread.join(60)
    assert found == [False]


def test_a_folder_has_one_digest_on_every_system(tmp_path):
    folder = tmp_path / "checkpoints" / "fast"  # the name of a folder above says nothing
    for name in ("b/x.txt", "B.txt", "a.txt", "b.txt", "checkpoints/7.pt", "x.lock"):
        write_text(folder / name, name)
    wanted = hashlib.sha256()
    for name in ("B.txt", "a.txt", "b/x.txt", "b.txt"):  # by parts, capitals first, with slashes
        wanted.update(name.encode() + hashlib.sha256(name.encode()).digest())
    assert sha256(folder) == wanted.hexdigest()
    assert sha256(folder / "a.txt") != sha256(folder / "b.txt")


def test_lines_end_as_written_on_every_system(tmp_path, monkeypatch):
    """Windows ends them with \\r\\n, and the table's lines with \\r\\r\\n, where nobody says otherwise."""
    monkeypatch.setattr(files.os, "linesep", "\r\n")
    said: list[dict] = []
    real = open
    monkeypatch.setattr(files, "open", lambda *a, **more: said.append(more) or real(*a, **more), raising=False)
    write_text(tmp_path / "a", "one\ntwo\n")
    write_csv(tmp_path / "b", [[1]], ["n"])
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n" and (tmp_path / "b").read_bytes() == b"n\r\n1\r\n"
    assert [more["newline"] for more in said] == ["", ""]


def test_a_file_that_somebody_reads_is_replaced_when_it_is_free(tmp_path, monkeypatch):
    """On Windows a file that is open cannot be replaced: `distil status` beside a run ended it."""
    real, refused = os.replace, []

    def replace(old: Path, new: Path) -> None:
        if len(refused) < 3:
            refused.append(new)
            raise PermissionError(13, "Access is denied")
        real(old, new)

    monkeypatch.setattr(files.os, "replace", replace)
    write_text(tmp_path / "run.json", "{}")
    assert (tmp_path / "run.json").read_text() == "{}" and len(refused) == 3
    monkeypatch.setattr(files.os, "replace", lambda *_: real(tmp_path / "nowhere", tmp_path / "x"))
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "run.json", "{}")


def test_a_path_of_windows_is_not_published(tmp_path, monkeypatch):
    home = tmp_path / r"C:\Users\ann"
    monkeypatch.setenv("DISTIL_HOME", str(home))
    for text in (str(home), json.dumps({"train": str(home)}), str(home).replace("\\", "/")):
        assert leaks.paths(text, everywhere=False), text
    assert not leaks.paths("Users and ann", everywhere=False)


@pytest.mark.parametrize("name", ["Reference", "reference", "reference.", "a."])
def test_names_that_another_system_takes_for_the_same(name):
    with pytest.raises(StageError, match="run name"):
        run_folder(name)


@pytest.mark.parametrize("name", ["Base", "preferred", "Reinforced", "TEACHER"])
def test_a_student_has_a_folder_of_its_own_on_every_system(name):
    with pytest.raises(StageError, match="another one"):
        student_name("", f"{name}.jsonl")

"""Programs that want to pass without being right, or to do harm; and a way to run them all and to look for the harm.

Each is asked for `answer(7)`, which is a secret: it stands in a file outside, in the environment, in this process's
memory, in the tests, and nowhere that a program in the sandbox may look. So reading it is passing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from distil.sandbox.run import RunResult, run, run_program

TIMEOUT_S = 2.0
WORDS = ("OUTSIDE", "PARENT", "PORT", "REPOSITORY")  # replaced in the programs


def programs(name: str) -> dict[str, str]:
    """{title: code} of a file of programs, each under a line `### title`."""
    text = (Path(__file__).parent / "hostile_programs" / name).read_text(encoding="utf-8")
    return dict(part.split("\n", 1) for part in text.removeprefix("### ").split("\n### "))


FUNCTIONS, PROGRAMS = programs("functions.txt"), programs("programs.txt")
SECRET = secrets.token_hex(16)


@contextmanager
def watched(folder: Path, found: list[str]) -> Iterator[dict[str, str]]:
    """The words of the programs, with something to be harmed behind each; `found` gets the harm that was done."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    os.environ["HOSTILE_SECRET"] = SECRET
    adopt_orphans()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    before = state(outside)
    try:
        words = {"OUTSIDE": outside, "PARENT": os.getpid(), "PORT": listener.getsockname()[1]}
        yield {name: str(value) for name, value in (words | {"REPOSITORY": Path(__file__).parents[1]}).items()}
        until = time.monotonic() + 5  # those that were killed need a moment to go
        while (after := state(outside))["processes"] != before["processes"] and time.monotonic() < until:
            time.sleep(0.05)
        found += [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]
        try:
            listener.accept()
            found.append("a program reached the network")
        except BlockingIOError:
            pass
    finally:
        listener.close()
        del os.environ["HOSTILE_SECRET"]


def state(outside: Path) -> dict[str, object]:
    """What a program might have changed."""
    secret = outside / "secret"
    known = secret.stat() if secret.exists() else None
    return {
        "folder": sorted(path.name for path in outside.iterdir()) if outside.exists() else None,
        "file": known and (secret.read_text(), stat.filemode(known.st_mode), known.st_uid, known.st_mtime),
        "limits": [resource.getrlimit(which) for which in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processes": left_over(),
    }


def adopt_orphans() -> None:
    """Who daemonises, or outlives its parent, becomes a child of this process."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def left_over() -> list[str]:
    """Command lines of this process's descendants that are running, orphans too after `adopt_orphans`."""
    parents, commands = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            parents[int(entry.name)] = int(parent)
            if status != "Z":
                commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[-80:]
        except OSError:
            continue
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sorted(commands[pid] for pid in mine - {os.getpid()} if pid in commands)


def attack(folder: Path, workers: int = 8) -> tuple[dict[str, RunResult], list[str]]:
    """({program: verdict}, harm done) of all of them, run in `folder` as the mechanism of this machine allows."""
    harm: list[str] = []
    with watched(folder, harm) as words, ThreadPoolExecutor(workers) as pool:

        def fill(code: str) -> str:
            for word in WORDS:
                code = code.replace(word, words[word])
            return code

        def function(code: str) -> RunResult:
            return run(fill(code), f"assert answer(7) == {SECRET!r}", timeout_s=TIMEOUT_S, memory_mb=256)

        def program(code: str) -> RunResult:
            return run_program(fill(code), [("7\n", SECRET)], timeout_s=TIMEOUT_S, memory_mb=256)

        verdicts = dict(zip(FUNCTIONS, pool.map(function, FUNCTIONS.values()), strict=True))
        more = pool.map(program, PROGRAMS.values())
        verdicts |= {f"program: {name}": verdict for name, verdict in zip(PROGRAMS, more, strict=True)}
    return verdicts, harm

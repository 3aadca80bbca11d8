"""Programs that run beside this process, each with a log of its own, and end with it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE = 60  # seconds that a program has to end by itself


def start(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a program. Its command and its output go to the end of the file `log`.

    On Linux it ends with the thread that calls this, however that ends; elsewhere whoever starts it has to `stop` it.
    """
    with_parent = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        out.write(f"{shlex.join(words)}\n".encode())
        out.flush()
        return subprocess.Popen(
            [*with_parent, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment
        )


def stop(*running: subprocess.Popen) -> None:
    """End programs and wait for them; those that have ended already are left alone."""
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_lines(log: Path, n: int = 3) -> str:
    """The last lines of a log, in one."""
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-n:])

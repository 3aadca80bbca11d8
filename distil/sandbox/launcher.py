"""The process that starts programs under sandlock (launch.py): one for this process, started when first needed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")
STARTING = threading.Lock()


class SandboxError(RuntimeError):
    """No program can be run safely here; the message says what to do."""


class Launcher:
    """A process of launch.py, and the socket that it gets its orders from. It ends when this process does."""

    def __init__(self) -> None:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        site = str(Path(util.find_spec("sandlock").origin).parents[1])
        command = [os.path.realpath(sys.executable), "-I", "-S", "-B", str(LAUNCH), site]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with theirs:
            self.process = subprocess.Popen(command, env={}, stdin=theirs, start_new_session=True, **quiet)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Launched:
    """A program that was started, as far as `subprocess.Popen` is needed."""

    def __init__(self, launcher: Launcher, line: socket.socket):
        self.launcher, self.line = launcher, line
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative if a signal ended it. Raises subprocess.TimeoutExpired, SandboxError."""
        if self.returncode is None:
            self.line.settimeout(timeout)
            try:
                said = self.line.recv(4)
            except TimeoutError:
                raise subprocess.TimeoutExpired("a program", timeout) from None
            except OSError:
                said = b""
            if not said:
                self.launcher.end()
                raise SandboxError("the process that starts programs was killed: give the command again")
            self.returncode = int.from_bytes(said, "big", signed=True)
            self.line.close()
        return self.returncode

    def kill(self) -> None:
        """End it, and all of its session."""
        with contextlib.suppress(OSError):  # it has ended
            self.line.shutdown(socket.SHUT_WR)


running: Launcher | None = None


def launch(order: dict, streams: list[int]) -> Launched:
    """Start a program: `order` is what launch.py reads, `streams` are the program's stdin, stdout and stderr."""
    global running
    mine, theirs = socket.socketpair()
    with STARTING, theirs:
        if running is None or running.process.poll() is not None:
            running = Launcher()
        socket.send_fds(running.orders, [json.dumps(order).encode()], [*streams, theirs.fileno()])
        return Launched(running, mine)

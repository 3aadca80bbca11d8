"""Starts programs under sandlock with limits that they cannot raise: `python -I -S -B launch.py SITE` (see launcher).

To import sandlock takes longer than most programs run. So this process imports it once, and forks for each order. It
has an empty environment and runs no program: in the fork sandlock executes an interpreter anew, behind its walls.

stdin is a socket. An order comes with four descriptors: what the program has as stdin, stdout and stderr, and a line,
a socket on which its exit code is sent when it has ended. Who hangs up ends the program; closing stdin ends them all.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable

LONGEST = 1 << 17  # bytes of an order
DEATH_SIGNAL = 1  # of prctl: what is sent when the parent has ended


def launch(order: dict, streams: list[int], parent: int) -> int:
    """In the fork: run the program that is ordered, with these streams and nothing else open. Returns its exit code."""
    import resource  # not on Windows, where this is never run

    from sandlock import Sandbox

    os.setsid()
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it was to be told
        return 1
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order["folder"])
    for name, value in order["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    return Sandbox(**order["policy"]).run_interactive(order["command"])


def fork(message: bytes, streams: list[int]) -> int:
    """Launch an order in a fork. Returns its process ID."""
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    try:
        os._exit(launch(json.loads(message), streams, parent))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def end(pid: int) -> None:
    """Kill a fork that was not waited for, and its session."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no session yet
        os.kill(pid, signal.SIGKILL)


def watch(waiting: selectors.BaseSelector, pid: int, line: socket.socket) -> None:
    """End a fork when its line is hung up; when it has ended, say how on the line."""
    ended = os.pidfd_open(pid)

    def hung_up() -> None:
        waiting.unregister(line)
        end(pid)

    def over() -> None:
        end(pid)  # whom it left in its session
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        waiting.unregister(ended)
        os.close(ended)
        if line in waiting.get_map():
            waiting.unregister(line)
        with line, contextlib.suppress(OSError):
            line.sendall(code.to_bytes(4, "big", signed=True))

    waiting.register(line, selectors.EVENT_READ, hung_up)
    waiting.register(ended, selectors.EVENT_READ, over)


def serve(orders: socket.socket) -> None:
    """Fork for each order, until no more can come."""
    waiting = selectors.DefaultSelector()
    waiting.register(orders, selectors.EVENT_READ)
    while True:
        next_one, _ = waiting.select()[0]  # one at a time: it may unregister another
        if isinstance(next_one.data, Callable):
            next_one.data()
            continue
        message, descriptors, _, _ = socket.recv_fds(orders, LONGEST, 4, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        *streams, line = descriptors
        pid = fork(message, streams)
        for stream in streams:
            os.close(stream)
        watch(waiting, pid, socket.socket(fileno=line))


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    import sandlock  # noqa: F401

    serve(socket.socket(fileno=0))

"""What is shown while a stage runs in a kernel: one line that moves on a terminal, else a line a minute."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distil.workspace.bars import EVERY, FILE, read_bar

QUIETLY = 60.0  # seconds between two lines where they are kept


@contextmanager
def shown(stage: str, expected: float | None) -> Iterator[None]:
    """Show how a stage comes along while it runs; `expected`: the minutes that it was said to take.

    The kernel learns by a variable where it is to say so. No kernel writes where an earlier one has written.
    """
    moves, ended, begun = sys.stdout.isatty(), threading.Event(), time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "bar.json"

        def draw() -> None:
            while not ended.wait(EVERY if moves else QUIETLY):
                text = line(stage, (time.monotonic() - begun) / 60, expected, read_bar(file))
                if moves:
                    width = shutil.get_terminal_size().columns - 1
                    print("\r" + text[:width].ljust(width), end="", flush=True)
                else:
                    print(f"{time.strftime('%H:%M')} {text}", flush=True)

        thread = threading.Thread(target=draw, daemon=True)
        os.environ[FILE] = str(file)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            del os.environ[FILE]
            if moves:
                print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", flush=True)


def line(stage: str, minutes: float, expected: float | None, bar: dict | None) -> str:
    """A stage that has run for so many `minutes`, and its bar as `read_bar` has it, in words."""
    text = f"{stage:13} {minutes:.1f} min"
    if expected:
        left = expected - minutes
        text += f", about {left:.0f} left" if left >= 0.5 else f" of about {expected:.0f}"
    if bar:
        text += f" | {bar['what']}: {bar['unit']} {bar['done']} of {bar['total']}"
        if bar["left"] is not None and bar["done"] < bar["total"]:
            text += f", {bar['left'] / 60:.1f} min left"
        text += f", {bar['note']}" if bar["note"] else ""
    return text

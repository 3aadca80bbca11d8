"""Progress bars: drawn where a notebook is run by hand; in a headless run a file says the same, for the driver to draw.

The file holds the bar that moved last: {what, unit, done, total, left, note}; `left` in seconds, None if not known.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from distil.workspace.environment import quiet
from distil.workspace.files import write_text

FILE = "DISTIL_PROGRESS"  # variable of a headless run: where its driver reads
EVERY = 1.0  # seconds between two states of a bar in the file, at least


def bar(of: Iterable | None = None, total: int | None = None, *, desc: str, unit: str, hidden: bool = False, start=0):
    """A tqdm bar over `of`, or of `total` units, to be moved by `update`; `hidden` bars are shown nowhere."""
    if not quiet():
        from tqdm.auto import tqdm

        return tqdm(of, desc, total, unit=unit, disable=hidden, initial=start, mininterval=EVERY)
    reported = not hidden and FILE in os.environ
    return in_file()(of, desc, total, unit=unit, disable=not reported, initial=start, mininterval=EVERY, miniters=1,
                     file=io.StringIO())  # fmt: skip


def in_file():
    """tqdm, drawn into the file. A bar is an ornament: no error of the file gets out."""
    from tqdm import tqdm

    class InFile(tqdm):
        last = ("", 0.0)  # of all bars: what was written when

        def display(self, msg=None, pos=None):
            now = time.monotonic()
            if InFile.last[0] == self.desc and now - InFile.last[1] < EVERY and self.n != self.total:
                return
            InFile.last = (self.desc, now)
            moved, spent = self.n - self.initial, self.format_dict["elapsed"]
            left = spent / moved * (self.total - self.n) if self.total and moved > 0 else None
            state = {"what": self.desc, "unit": self.unit, "done": self.n, "total": self.total, "left": left}
            with contextlib.suppress(OSError):
                write_text(Path(os.environ[FILE]), json.dumps(state | {"note": self.postfix or ""}))

    return InFile


def read_bar(file: Path) -> dict | None:
    """What `file` holds; None if there is nothing yet, or nothing whole."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        return state if state["total"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Progress bars: drawn where a notebook is run by hand; in a headless run a file says the same, for the driver to draw.

The file holds the bar that moved last: {what, unit, done, total, left, note}; `left` in seconds, None if not known.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from distil.workspace.environment import quiet
from distil.workspace.files import write_text

FILE = "DISTIL_PROGRESS"  # variable of a headless run: where its driver reads
EVERY = 1.0  # seconds between two states of a bar in the file, at least


def bar(of: Iterable | None = None, total: int | None = None, *, desc: str, unit: str, hidden: bool = False, start=0):
    """A tqdm bar over `of`, or of `total` units, to be moved by `update`; `hidden` bars are shown nowhere."""
    from tqdm.auto import tqdm

    where = os.environ.get(FILE) if quiet() else None
    made = in_file(Path(where)) if where else tqdm
    return made(
        of,
        desc,
        total,
        unit=unit,
        disable=hidden or (quiet() and not where),
        initial=start,
        mininterval=EVERY,
        miniters=1,
        file=io.StringIO() if where else None,  # tqdm ends a bar with a new line
    )


def in_file(path: Path):
    """tqdm, drawn into a file. A bar is an ornament: no error of the file gets out."""
    from tqdm import tqdm

    class InFile(tqdm):
        def display(self, msg=None, pos=None):  # tqdm calls it at the begin, at the end, and once in `mininterval`
            moved, spent = self.n - self.initial, self.format_dict["elapsed"]
            left = spent / moved * (self.total - self.n) if self.total and moved > 0 else None
            state = {"what": self.desc, "unit": self.unit, "done": self.n, "total": self.total, "left": left}
            with contextlib.suppress(OSError):
                write_text(path, json.dumps(state | {"note": self.postfix or ""}))

    return InFile


def read_bar(file: Path) -> dict | None:
    """What `file` holds; None if there is nothing yet, or nothing whole."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        return state if state["total"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

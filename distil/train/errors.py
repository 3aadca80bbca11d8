"""What can stop a training midway, memory or disk, said in words that help; and which checkpoints survive it."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distil.workspace.errors import StageError

NO_MEMORY = ("out of memory", "can't allocate memory")  # the first words are CUDA's, the second the CPU allocator's
# the system's words, as safetensors repeats them; and torch's own, which say nothing of a disk
NO_ROOM = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter",
    "inline_container",
)


def complete(checkpoint: Path) -> bool:
    """Was this checkpoint written to its end? The trainer's state comes last; the disk may have ended within it."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest complete checkpoint, None if there is none. Those that are not complete are removed: they are lost,
    and take room."""
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(checkpoints))
    while last and not complete(Path(last)):
        shutil.rmtree(last, ignore_errors=True)  # of several processes one is enough
        last = get_last_checkpoint(str(checkpoints))
    return last


@contextmanager
def explained(checkpoints: Path) -> Iterator[None]:
    """Raise StageError where the block runs out of memory or of disk; every other error passes as it is."""
    try:
        yield
    except Exception as error:  # safetensors, torch and the system each have classes of their own for a full disk
        words = str(error)
        if isinstance(error, MemoryError) or any(sign in words for sign in NO_MEMORY):
            raise StageError(
                "the training ran out of memory. Lower max_length (longer rows are left out and counted), choose a "
                "smaller student or method='qlora', or free the memory that another process takes. The first words of "
                f"the error: {words[:200]}"
            ) from error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or any(sign in words for sign in NO_ROOM):
            last = last_checkpoint(checkpoints)
            on = f"from {Path(last).name}" if last else "from its beginning, as no checkpoint was complete"
            raise StageError(
                f"no room to save in {checkpoints.parent} ({shutil.disk_usage(checkpoints).free / 2**30:.2f} GiB free "
                f"on that disk): make room and run this again, and the training goes on {on}"
            ) from error
        raise

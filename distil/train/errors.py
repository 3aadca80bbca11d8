"""Errors that end a training midway: memory or disk ran out. They are raised again with words that help."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distil.train.checkpoints import last_checkpoint
from distil.workspace.errors import StageError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # CUDA's words, and those of the CPU allocator
# the system's words, as safetensors repeats them; and torch's own, which do not mention a disk
DISK_FULL = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter",
    "inline_container",
)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def is_disk_full(error: Exception) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return full or any(sign in str(error) for sign in DISK_FULL)


@contextmanager
def resource_errors_explained(checkpoints: Path) -> Iterator[None]:
    """Raise StageError if the block runs out of memory or of disk. Every other error passes unchanged."""
    try:
        yield
    except Exception as error:  # safetensors, torch and the system each have their own classes for a full disk
        if is_out_of_memory(error):
            raise StageError(
                "the training ran out of memory. Lower max_length (longer rows are left out and counted), choose a "
                "smaller student or method='qlora', or free the memory that another process takes. The first words of "
                f"the error: {str(error)[:200]}"
            ) from error
        if is_disk_full(error):
            last = last_checkpoint(checkpoints)
            on = f"from {Path(last).name}" if last else "from its beginning, as no checkpoint was whole"
            free = shutil.disk_usage(checkpoints.parent).free / 2**30
            raise StageError(
                f"no room to save in {checkpoints.parent} ({free:.2f} GiB free "
                f"on that disk): make room and run this again, and the training goes on {on}"
            ) from error
        raise

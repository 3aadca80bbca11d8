"""The checkpoints of a training: which are complete, and which belong to the same request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from distil.workspace.files import write_text


def is_complete(checkpoint: Path) -> bool:
    """Was this checkpoint written to its end? The trainer writes its state last; a full disk may have cut it off."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest complete checkpoint, or None. Incomplete ones are of no use and take room: they are removed."""
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(checkpoints))
    while last and not is_complete(Path(last)):
        shutil.rmtree(last, ignore_errors=True)  # another process may have removed it already
        last = get_last_checkpoint(str(checkpoints))
    return last


def discard_those_of_other_requests(checkpoints: Path, request: dict) -> None:
    """Empty the folder unless its checkpoints are of this request: the same settings and the same rows."""
    file = checkpoints / "request.json"
    if not (file.exists() and json.loads(file.read_text(encoding="utf-8")) == request):
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        write_text(file, json.dumps(request))

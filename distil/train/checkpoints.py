"""The checkpoints of a training: which are whole, and which belong to the same request."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from distil.workspace.files import write_text

SEAL = "whole.json"  # {file: bytes} of a checkpoint, written when all of them are on the disk


def seal(checkpoint: Path) -> None:
    """Flush a checkpoint's files to the disk, and write down their sizes."""
    sizes = {}
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
        sizes[str(file.relative_to(checkpoint))] = file.stat().st_size
    write_text(checkpoint / SEAL, json.dumps(sizes))


def damage(checkpoint: Path) -> str | None:
    """What is missing of a checkpoint, or None: a crash may have cut off any of its files."""
    try:
        sizes = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was not written to its end"
    for name, size in sizes.items():
        file = checkpoint / name
        there = file.stat().st_size if file.exists() else 0
        if there != size:
            return f"{name} has {there:,} of {size:,} bytes"
    return None


def sealing_callback(accelerator):
    """A callback that seals each checkpoint, and removes the older ones only then. Of several processes rank 0 does."""
    from transformers import TrainerCallback

    class Sealing(TrainerCallback):
        def on_save(self, args, state, control, **_):
            accelerator.wait_for_everyone()  # each process saves the state of its own random numbers
            if not state.is_world_process_zero:
                return
            newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            seal(newest)
            for older in Path(args.output_dir).glob("checkpoint-*"):
                if older != newest:
                    shutil.rmtree(older, ignore_errors=True)

    return Sealing()


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint, or None. Damaged ones only take room: they are removed, which is said in a line."""
    removed, last = [], None
    numbered = [path for path in checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    for path in sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if not (why := damage(path)):
            last = path
            break
        removed.append(f"{path.name} ({why})")
        shutil.rmtree(path, ignore_errors=True)  # another process may have removed it already
    if removed:
        goes_on = f"goes on from {last.name}" if last else "begins anew"
        print(f"removed as damaged: {', '.join(removed)}; the training {goes_on}", flush=True)
    return str(last) if last else None


def discard_those_of_other_requests(checkpoints: Path, request: dict) -> None:
    """Empty the folder unless its checkpoints are of this request: the same settings and the same rows."""
    file = checkpoints / "request.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != request:
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        write_text(file, json.dumps(request))

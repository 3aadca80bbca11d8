"""Stage 04 with several students at a time, each in a process of its own.

The training of a small student waits for the CPU, which starts kernels and compiles them: a GPU bears several.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from subprocess import Popen
from typing import Any

from distil.train import sft, sft_trainers
from distil.train.memory import GIB
from distil.train.recipe import Recipe
from distil.workspace import bars, processes
from distil.workspace.environment import cores, give_memory_back
from distil.workspace.errors import StageError
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder
from distil.workspace.students import seed_of

LOG = "process.log"  # in a student's folder
CONTEXT = 0.6  # GiB of a GPU that each process takes beside what torch counts
COMPILERS = 4  # threads that compile, a process
POLL = 0.5  # seconds between two looks at the processes


@dataclass(frozen=True)
class Place:
    """Where one process trains."""

    gpu: int | None = None  # among those that this process sees
    gib: float = 0.0  # that it may take of the GPU
    share: float = 1.0  # the same over the whole of it


def check(at_once: int) -> None:
    """Raise StageError for a number of students that cannot be trained at once."""
    if at_once < 1:
        raise StageError(f"at_once={at_once}: give 1, or how many students are trained side by side")


def places(at_once: int) -> list[Place]:
    """A place for each of `at_once` processes, over the GPUs in turn; what is free of one is shared evenly."""
    import torch

    if not torch.cuda.is_available():
        return [Place()] * at_once
    give_memory_back()
    torch.cuda.empty_cache()  # others cannot take what this process keeps
    found, gpus = [], torch.cuda.device_count()
    for gpu in (i % gpus for i in range(at_once)):
        free, whole = (size / GIB for size in torch.cuda.mem_get_info(gpu))
        gib = free / len(range(gpu, at_once, gpus)) - CONTEXT
        found.append(Place(gpu, gib, gib / whole))
    return found


def expected(student: str, recipe: Recipe, filled: Sequence[dict], at_once: int) -> tuple[str, dict[str, float]]:
    """What `sft_trainers.expected` says of each of `at_once` students.

    Raises StageError if one does not fit, and names the largest `at_once` with which it does.
    """

    for fewer in range(at_once, 0, -1):
        gib = min(place.gib for place in places(fewer)) if fewer > 1 else None
        try:
            found = sft_trainers.expected(student, recipe, filled, gib)
            break
        except StageError:
            if fewer == 1:
                raise
    if fewer < at_once:
        raise StageError(
            f"at_once={at_once} leaves each student too little of a GPU's memory for one row: give at_once={fewer}, or "
            "take shorter rows (max_length)"
        )
    return found


def train(
    run: str,
    rows: Mapping[str, Sequence[TrainingRow]],
    valid: Mapping[str, Sequence[TrainingRow]],
    student: str,
    at_once: int,
    **settings: Any,
) -> None:
    """Train the students of `rows`, by name, that are not finished, `at_once` at a time; `sft.sft` then finds them so.

    `rows` and `valid` are those of 03, as `settings` are those of 04. Nothing is done where one would be trained alone.
    Raises StageError if one could not be trained, after all others; what is finished is kept. No process is left when
    this ends.
    """
    folders = {name: run_folder(run) / "04_finetune" / name for name in rows}

    def finished(name: str) -> bool:
        recipe = Recipe(**settings | {"seed": seed_of(name, settings["seed"])})
        return sft.result_cache(rows[name], valid[name], student, folders[name], recipe).read() is not None

    todo = [name for name in rows if not finished(name)]
    if (at_once := min(at_once, len(todo))) < 2:
        return
    words = [f"--{name.replace('_', '-')}={value}" for name, value in {"student": student, **settings}.items()]
    free, waiting, failed = places(at_once), list(todo), []
    running: dict[str, tuple[Popen, Place]] = {}
    bar = bars.bar(total=len(rows), start=len(rows) - len(todo), desc="students trained", unit="student")
    try:
        while waiting or running:
            while waiting and free:
                name, place = waiting.pop(0), free.pop(0)
                command = [sys.executable, "-m", "distil.train.sft", *words]
                command += [f"--memory-share={place.share:.4f}", "--", run, name]
                running[name] = processes.start(command, folders[name] / LOG, environment(place, at_once)), place
            time.sleep(POLL)
            for name, (process, place) in list(running.items()):
                if (code := process.poll()) is None:
                    continue
                del running[name]
                free.append(place)
                if code:
                    log = folders[name] / LOG
                    failed.append(f"{name}, exit code {code}, {log} ends: {processes.last_lines(log)}")
                else:
                    bar.update()
    finally:
        processes.stop(*(process for process, _ in running.values()))
        bar.close()
    if failed:
        raise StageError(
            f"{len(failed)} of {len(todo)} students were not trained; the others are finished and kept. Mend the "
            "cause, or give a smaller at_once if memory ran out, and run this again. " + "; ".join(failed)
        )


def environment(place: Place, at_once: int) -> dict[str, str]:
    """The variables of one of `at_once` processes: its GPU, and its part of the cores, unless they are set."""
    usual = {
        "OMP_NUM_THREADS": str(max(1, cores() // at_once)),
        "TORCHINDUCTOR_COMPILE_THREADS": str(min(COMPILERS, cores())),
    }
    found = usual | os.environ | {"DISTIL_BATCH": "1"}
    found.pop(bars.FILE, None)  # its bar would be drawn over ours
    if place.gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        found["CUDA_VISIBLE_DEVICES"] = visible.split(",")[place.gpu] if visible else str(place.gpu)
    return found

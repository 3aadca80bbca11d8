"""One vLLM server for all students of a run: adapters on their base, each under the name by which 07 asks for it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence

from distil.card import PLACES, home
from distil.stage import StageError, run_folder
from distil.weights import resolve

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # --max-lora-rank takes no others


def command(run: str, more: Sequence[str]) -> list[str]:
    """`vllm serve` for the base and the students that are finished; `more` are options of its own.

    Sampling is left to who asks (`--generation-config vllm`). Raises StageError if there is no student, or one that is
    no adapter.
    """
    about = run_folder(run) / "04_finetune" / "meta.json"
    if not about.exists():
        raise StageError(f"{about} is missing: run 04_finetune first, distil run --run {run} --to 04")
    base = json.loads(about.read_text())["params"]["student"]
    names = [file.parent.name for file in sorted(about.parent.glob("*/tokenizer_config.json"))]
    places = {name: run_folder(run) / home(name) for name in (*names, *PLACES)}
    students = {name: place for name, place in places.items() if (place / "tokenizer_config.json").exists()}
    if not students:
        raise StageError(f"run {run!r} has no finished student: run 04_finetune, distil run --run {run} --to 04")
    for name, folder in students.items():
        if not (folder / "adapter_config.json").exists():
            raise StageError(
                f"{name} of run {run!r} is a whole model, no adapter, and a server has one model: serve each alone, "
                f"vllm serve {folder} --served-model-name {name}, and measure one after the other; answers are kept"
            )
    ranks = [json.loads((folder / "adapter_config.json").read_text())["r"] for folder in students.values()]
    rank = next((size for size in RANKS if size >= max(ranks)), max(ranks))
    modules = [f"{name}={folder.absolute()}" for name, folder in students.items()]
    start = ["vllm", "serve", resolve(base), "--served-model-name", "base", "--generation-config", "vllm"]
    return [*start, "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", *modules, *more]


def serve(run: str, more: Sequence[str]) -> int:
    """The command `distil serve`: become the server. Where there is no vLLM, print its command and return 2."""
    words = command(run, more)
    print(shlex.join(words), flush=True)
    if not shutil.which(words[0]):
        print("distil: vllm is not installed here (pip install vllm, on a machine with a GPU)", file=sys.stderr)
        return 2
    os.execvp(words[0], words)

"""Is a teacher's whole distribution worth more than its words? A fast student, taught further in either way.

    python benchmarks/whitebox.py RUN STUDENT TEACHER SEED [NAME ...]   measure, one seed (all variants unless named)
    python benchmarks/whitebox.py RUN --collect                         rows of all seeds into results/whitebox.json

RUN has been through 01 to 03; TEACHER is a model of the student's family, a Hub id or a folder. `longer` sees as many
tokens as `whitebox`, and the same rows. Rows are kept in artifacts/RUN/whitebox/rows.jsonl as they come.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from held_out import N_TEST, keep, measured, problems_of

from distil.train import gkd, sft
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, read_jsonl, write_text
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder

TOKENS = 120_000
SFT = {"learning_rate": 2e-4, "max_length": 512, "method": "lora"}
LOGITS = {"train_tokens": TOKENS, "learning_rate": 1e-4, "max_length": 512}
TRAINED = {"fast": TOKENS, "longer": 2 * TOKENS}  # by their tokens, with `train.sft.sft`
TAUGHT = {"whitebox": {"on_policy": 0.0}, "on-policy": {"on_policy": 0.5}}  # from `fast`, with `distil_from_logits`


def train_fast(run: str, student: str, tokens: int, out: Path, seed: int) -> None:
    judged = run_folder(run) / "03_judge"
    train, valid = (read_jsonl(judged / part / "fast.jsonl", TrainingRow) for part in ("train", "valid"))
    sft.sft(train, valid, student, out, train_tokens=tokens, seed=seed, **SFT)


def measure(run: str, student: str, teacher: str, seed: int, names: list[str]) -> None:
    folder = run_folder(run) / "whitebox"
    kept = folder / "rows.jsonl"
    test = problems_of(run)[1]
    import torch  # noqa: F401  environment() names the GPU only then

    write_text(folder / "machine.json", json.dumps(environment()))
    for name in ["fast", *(n for n in names if n != "fast")]:
        if kept.exists() and any((row["name"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        out, result = folder / f"{seed}-{name}", {}
        if name in TRAINED:  # in a process of its own: Unsloth would change the trainer of the other way, too
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                process.submit(train_fast, run, student, TRAINED[name], out, seed).result()
        else:
            rows = read_jsonl(run_folder(run) / "03_judge/train/fast.jsonl", TrainingRow)
            fast = str(folder / f"{seed}-fast")
            trained = gkd.distil_from_logits(rows, fast, teacher, out, seed=seed, **LOGITS, **TAUGHT[name])
            result = trained.to_dict()
        found = measured(name, test, out, folder / f"{seed}-{name}.jsonl")
        append_jsonl(kept, [{"name": name, "seed": seed, "student": student, "teacher": teacher, **found,
                             "tokens_per_s": result.get("tokens_per_s"), "loss": result.get("loss"),
                             "commit": commit()}])  # fmt: skip
        print(name, seed, found["accuracy"], flush=True)


def collect(run: str) -> None:
    """All rows, and for each variant its gain over `longer`, with its interval over seeds and questions."""
    about = {"command": "python benchmarks/whitebox.py RUN STUDENT TEACHER SEED", "n_test": N_TEST, "sft": SFT,
             "tokens": TRAINED, "logits": LOGITS, "variants": TAUGHT}  # fmt: skip
    keep(run_folder(run) / "whitebox", [*TRAINED, *TAUGHT], "longer", about)


if __name__ == "__main__":
    if sys.argv[2] == "--collect":
        collect(sys.argv[1])
    else:
        run, student, teacher, seed, *names = sys.argv[1:]
        measure(run, student, teacher, int(seed), names or [*TRAINED, *TAUGHT])

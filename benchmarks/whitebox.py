"""Is a teacher's whole distribution worth more than its words? A fast student, taught further in one way or another.

    python benchmarks/whitebox.py RUN STUDENT TEACHER SEED [NAME ...]   measure, one seed (all variants unless named)
    python benchmarks/whitebox.py RUN --collect                         rows of all seeds into results/whitebox.json

RUN has been through 01 to 03; TEACHER is a model of the student's family, a Hub id or a folder. Each variant but `fast`
goes on from it and sees as many tokens again, prompts included: `longer` and `whitebox` the same rows, `on-policy` and
`prompted` the student's own answers to the training problems, in as many steps of as many answers as `whitebox` has
rows. What they come to, in tokens, seconds and memory, stands in each row. Rows are kept in
artifacts/RUN/whitebox/rows.jsonl as they come.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from held_out import ANSWERS, N_TEST, keep, measured, problems_of

from distil.models.student import load_tokenizer
from distil.train import examples, gkd, on_policy, sft
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, read_csv, read_jsonl, write_text
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder

TOKENS = 120_000
SFT = {"learning_rate": 2e-4, "max_length": 512, "method": "lora"}
FURTHER = {"learning_rate": 1e-4}
WORDS = {"fast": 1, "longer": 2}  # times TOKENS, with `train.sft.sft` from the base
LOGITS = {"whitebox": {"max_length": 512}}  # from `fast`, with `train.gkd.distil_from_logits`
OWN = {  # from `fast`, with `train.on_policy.distil_on_policy`
    "on-policy": {"max_completion": ANSWERS["max_new_tokens"]},
    "prompted": {"max_completion": ANSWERS["max_new_tokens"], "teacher_prompt": "fast"},
}
VARIANTS = [*WORDS, *LOGITS, *OWN]


def train(name: str, run: str, student: str, teacher: str, seed: int, tokens: int) -> dict:
    """Train a variant into its folder: what its trainer reports, and the seconds and GiB of the whole."""
    began, folder, judged = time.monotonic(), run_folder(run) / "whitebox", run_folder(run) / "03_judge"
    rows, valid = (read_jsonl(judged / part / "fast.jsonl", TrainingRow) for part in ("train", "valid"))
    out, fast = folder / f"{seed}-{name}", str(folder / f"{seed}-fast")
    if name in WORDS:
        result = sft.sft(rows, valid, student, out, train_tokens=WORDS[name] * tokens, seed=seed, **SFT)
    elif name in LOGITS:
        settings = {"train_tokens": tokens, "seed": seed, **FURTHER, **LOGITS[name]}
        result = gkd.distil_from_logits(rows, fast, teacher, out, **settings)
    else:
        chosen = examples.training_set(
            rows, load_tokenizer(fast), max_length=LOGITS["whitebox"]["max_length"], train_tokens=tokens,
            batch_size=examples.default_batch_size(), seed=seed,
        )  # fmt: skip
        settings = {"steps": chosen.steps, "seed": seed, **FURTHER, **OWN[name]}
        result = on_policy.distil_on_policy(problems_of(run)[0], fast, teacher, out, **settings)
    peak = max(float(row["memory_gb"]) for row in read_csv(out / "log.csv") if row["memory_gb"])
    return {**result.to_dict(), "peak_gb": peak, "wall_s": round(time.monotonic() - began, 1)}


def measure(run: str, student: str, teacher: str, seed: int, names: list[str], tokens: int) -> None:
    folder = run_folder(run) / "whitebox"
    kept = folder / "rows.jsonl"
    test = problems_of(run)[1]
    import torch  # noqa: F401  environment() names the GPU only then

    write_text(folder / "machine.json", json.dumps(environment()))
    for name in ["fast", *(n for n in names if n != "fast")]:
        if kept.exists() and any((row["name"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        # in a process of its own: Unsloth changes the trainers of the other ways, and vLLM keeps its memory to the end
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            training = process.submit(train, name, run, student, teacher, seed, tokens).result()
        began = time.monotonic()
        found = measured(name, test, folder / f"{seed}-{name}", folder / f"{seed}-{name}.jsonl")
        answering_s = round(time.monotonic() - began, 1)
        append_jsonl(kept, [{"name": name, "seed": seed, "student": student, "teacher": teacher,
                             "train_tokens": tokens, **found, "answering_s": answering_s, "training": training,
                             "commit": commit()}])  # fmt: skip
        print(name, seed, found["accuracy"], found["tokens_per_answer"], training["wall_s"], answering_s, flush=True)


def collect(run: str) -> None:
    """All rows, and for each variant its gain over `longer`, with its interval over seeds and questions."""
    about = {"command": "python benchmarks/whitebox.py RUN STUDENT TEACHER SEED", "n_test": N_TEST, "answers": ANSWERS,
             "sft": SFT, "further": FURTHER, "variants": WORDS | LOGITS | OWN}  # fmt: skip
    keep(run_folder(run) / "whitebox", VARIANTS, "longer", about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("student", nargs="?")
    parser.add_argument("teacher", nargs="?")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--tokens", type=int, default=TOKENS, help="less for a trial, in a run of its own")
    parser.add_argument("--collect", action="store_true")
    asked = parser.parse_args()
    if asked.collect:
        collect(asked.run)
    elif asked.seed is None or set(asked.names) - set(VARIANTS):
        parser.error("give RUN, --collect; or RUN STUDENT TEACHER SEED and names of " + ", ".join(VARIANTS))
    else:
        measure(asked.run, asked.student, asked.teacher, asked.seed, asked.names or VARIANTS, asked.tokens)

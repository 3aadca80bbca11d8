"""What GRPO is worth after SFT, with the whole reward and without parts of it.

    python benchmarks/reinforce.py RUN STUDENT SEED [NAME ...]   measure, one seed (all variants unless named)
    python benchmarks/reinforce.py RUN --collect                 rows of all seeds into results/reinforce.json

RUN has been through 01 to 03. For each seed a fast student is fine-tuned anew, a reward model is fitted on the judge's
grades, and every variant starts from both. Each training problem is tried in one step only. Rows are kept in
artifacts/RUN/reinforce/rows.jsonl as they come: killed or not, nothing is measured twice.
"""

from __future__ import annotations

import json
import random
import shutil
import sys

from held_out import N_TEST, gains, keep, measured, problems_of
from reward import judged_rows

from distil.chains import select
from distil.problems.sources import load
from distil.train import grpo, reward_model, rewards, sft
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, read_jsonl, write_text
from distil.workspace.rows import Problem, TrainingRow
from distil.workspace.stage import run_folder

SFT = {"train_tokens": 120_000, "learning_rate": 2e-4, "max_length": 512, "method": "lora"}
GRPO = {"steps": 150, "group": 8, "learning_rate": 2e-5, "max_completion": 160}
VARIANTS = {"sft": None} | {name: name for name in rewards.REWARDS}


def fresh_problems(run: str, wanted: int) -> list[Problem]:
    """As many training problems as the run will try, none of them one of those held out."""
    asked = json.loads((run_folder(run) / "01_collect" / "meta.json").read_text())["params"]
    held = {p.question for p in problems_of(run)[1]}
    found = load(asked["problems"], wanted + N_TEST, 1, asked["seed"])
    fresh = [p for p in found if p.split == "train" and p.question not in held]
    random.Random(asked["seed"]).shuffle(fresh)  # they come a family after the other: none is to be left out
    return fresh[:wanted]


def measure(run: str, student: str, seed: int, names: list[str]) -> None:
    folder = run_folder(run) / "reinforce"
    kept, fast = folder / "rows.jsonl", folder / f"{seed}-sft"
    judged = run_folder(run) / "03_judge"
    test = problems_of(run)[1]
    problems = fresh_problems(run, GRPO["steps"] * grpo.problems_per_step())
    rows, valid = (read_jsonl(judged / part / "fast.jsonl", TrainingRow) for part in ("train", "valid"))
    sft.sft(rows, valid, student, fast, seed=seed, **SFT)
    grader = folder / f"{seed}-reward_model"
    if not grader.exists():
        rows = judged_rows(run)
        held = {row.problem_id for row in select.split_by_problem(rows, seed, valid_share=0.3)[1]}
        split = [row.replace(held_out=row.problem_id in held) for row in rows]
        scratch = folder / f"{seed}-reward_model.part"
        shutil.rmtree(scratch, ignore_errors=True)
        reward_model.fit_reward_model(split, student, scratch)
        scratch.rename(grader)
    scores = [s for s in read_jsonl(judged / "scores.jsonl") if s["rv"] is not None and s["correct"]]
    import torch  # noqa: F401  environment() names the GPU only then

    write_text(folder / "machine.json", json.dumps(environment()))
    for name in names:
        if kept.exists() and any((row["name"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        out, result = folder / f"{seed}-{name}", {}
        if VARIANTS[name]:
            weights, gated = rewards.parse_weights(VARIANTS[name])
            trained = grpo.grpo(problems, str(fast), str(grader), out, line=rewards.target_verbosity(scores),
                                weights=weights, gated=gated, seed=seed, **GRPO)  # fmt: skip
            result = trained.to_dict()
        found = measured(name, test, out, folder / f"{seed}-{name}.jsonl")
        append_jsonl(kept, [{"name": name, "seed": seed, **found, "grpo": result, "commit": commit()}])
        print(name, seed, found["accuracy"], found["tokens_per_answer"], flush=True)


def collect(run: str) -> None:
    """All rows, and for each variant its gain over SFT, with its interval over seeds and questions; and what the whole
    reward gains over correctness alone."""
    folder = run_folder(run) / "reinforce"
    pair = [row for row in read_jsonl(folder / "rows.jsonl") if row["name"] in ("full", "correctness")]
    about = {"command": "python benchmarks/reinforce.py RUN STUDENT SEED", "n_test": N_TEST, "sft": SFT, "grpo": GRPO,
             "rewards": rewards.REWARDS, "minus_correctness": gains(folder, pair, "correctness")}  # fmt: skip
    keep(folder, list(VARIANTS), "sft", about)


if __name__ == "__main__":
    if sys.argv[2] == "--collect":
        collect(sys.argv[1])
    else:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] or list(VARIANTS))

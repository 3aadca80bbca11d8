"""What preference training is worth: SFT alone, DPO, and CogPO with several strengths, on the same pairs.

    python benchmarks/prefer.py RUN STUDENT SEED [NAME ...]   measure, one seed (all variants unless named)
    python benchmarks/prefer.py RUN --collect                 rows of all seeds into results/prefer.json

RUN has been through 01 to 03. For each seed a fast student is fine-tuned anew and every variant starts from it. Rows
are kept in artifacts/RUN/prefer/rows.jsonl as they come: killed or not, nothing is measured twice.
"""

from __future__ import annotations

import json
import sys

from held_out import N_TEST, keep, measured, problems_of

from distil.train import pairs, preference, sft
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, read_jsonl, write_text
from distil.workspace.rows import AlignedChain, Chain, TrainingRow
from distil.workspace.stage import run_folder

SFT = {"train_tokens": 120_000, "learning_rate": 2e-4, "max_length": 512, "method": "lora"}
MAX_PAIRS, LEARNING_RATE = 320, 1e-5
VARIANTS = {
    "sft": None,
    "dpo": ("small:0.2,medium:0.2,large:0.2,own:0.2", "sigmoid"),
    "cogpo-mild": ("small:0.05,medium:0.1,large:0.25,own:0.25", "sigmoid"),
    "cogpo": ("small:0.1,medium:0.2,large:0.5,own:0.5", "sigmoid"),
    "cogpo-strong": ("small:0.2,medium:0.5,large:1,own:1", "sigmoid"),
    "cogpo+sft": ("small:0.1,medium:0.2,large:0.5,own:0.5", "sigmoid+sft"),
}


def measure(run: str, student: str, seed: int, names: list[str]) -> None:
    folder = run_folder(run) / "prefer"
    kept = folder / "rows.jsonl"
    train, test = problems_of(run)
    judged = run_folder(run) / "03_judge"
    fast = folder / f"{seed}-sft"
    rows, valid = (read_jsonl(judged / part / "fast.jsonl", TrainingRow) for part in ("train", "valid"))
    sft.sft(rows, valid, student, fast, seed=seed, **SFT)
    import torch  # noqa: F401  environment() names the GPU only then

    write_text(folder / "machine.json", json.dumps(environment()))
    for name in names:
        if kept.exists() and any((row["name"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        out, result = folder / f"{seed}-{name}", {}
        if VARIANTS[name]:
            mistakes = folder / f"{seed}-own.jsonl"
            if not mistakes.exists():
                append_jsonl(mistakes, pairs.own_mistakes(train, str(fast), MAX_PAIRS, seed))
            betas, loss = pairs.parse_betas(VARIANTS[name][0]), VARIANTS[name][1]
            rows = pairs.build_pairs(
                read_jsonl(judged / "aligned.jsonl", AlignedChain),
                read_jsonl(run_folder(run) / "02_rewrite" / "corrupted.jsonl", Chain),
                read_jsonl(mistakes, pairs.Mistake),
                {p.id: p for p in train},
                betas=betas,
                max_pairs=MAX_PAIRS,
                seed=seed,
            )
            trained = preference.cogpo(rows, str(fast), out, learning_rate=LEARNING_RATE, seed=seed, loss=loss)
            result = trained.to_dict()
        found = measured(name, test, out, folder / f"{seed}-{name}.jsonl")
        append_jsonl(kept, [{"name": name, "seed": seed, **found, "pairs": result.get("pairs"),
                             "gaps": result.get("gaps"), "commit": commit()}])  # fmt: skip
        print(name, seed, found["accuracy"], flush=True)


def by_family(answers: list[dict]) -> dict[str, dict]:
    """{family: {n, accuracy, tokens_per_answer, cut_off}}; a problem's id begins with its family."""
    families: dict[str, list[dict]] = {}
    for row in answers:
        families.setdefault(row["id"].split("-")[0], []).append(row)
    return {
        family: {
            "n": len(rows),
            "accuracy": round(sum(row["correct"] for row in rows) / len(rows), 4),
            "tokens_per_answer": round(sum(row["n_tokens"] for row in rows) / len(rows), 1),
            "cut_off": sum(row["finish_reason"] == "length" for row in rows),
        }
        for family, rows in families.items()
    }


def collect(run: str) -> None:
    """All rows, and for each variant its gain over SFT, with its interval over seeds and questions."""
    folder = run_folder(run) / "prefer"
    about = {"command": "python benchmarks/prefer.py RUN STUDENT SEED", "n_test": N_TEST, "sft": SFT,
             "max_pairs": MAX_PAIRS, "learning_rate": LEARNING_RATE, "variants": VARIANTS}  # fmt: skip

    def families(row: dict) -> dict:
        return {"families": by_family(read_jsonl(folder / f"{row['seed']}-{row['name']}.jsonl"))}

    keep(folder, list(VARIANTS), "sft", about, families)


if __name__ == "__main__":
    if sys.argv[2] == "--collect":
        collect(sys.argv[1])
    else:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:] or list(VARIANTS))

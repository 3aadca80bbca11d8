"""Does an adaptive student think longer where a problem is harder? Against fast and slow, on easy and harder problems.

    python benchmarks/adaptive.py RUN STUDENT SEED   train and measure, one seed
    python benchmarks/adaptive.py RUN --collect      all seeds into results/adaptive.json and its picture

RUN has been through 01 to 03. The students learn from its sets for equal tokens, `--tokens` of them, at
`--learning-rate`. The easy suite is RUN's own held-out problems, the harder one the same families beyond the sizes that
RUN trains on, `--n` problems each. Rows are kept in artifacts/RUN/adaptive/rows.jsonl as they come: killed or not,
nothing is measured twice; delete the folder before other options are tried.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from held_out import problems_of
from prefer import by_family

from distil.evaluate import answers, metrics, suites
from distil.models.student import load, load_tokenizer
from distil.train import sft
from distil.workspace import plots
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, read_jsonl, sha256, write_text
from distil.workspace.rows import Completion, Problem, TrainingRow
from distil.workspace.stage import run_folder

STUDENTS, SUITES = ("slow", "fast", "adaptive"), ("easy", "harder")
SFT = {"max_length": 1024, "method": "lora"}
ANSWERS = {"max_new_tokens": 640, "batch_size": 100}


def both_suites(run: str, n: int) -> dict[str, list[dict]]:
    easy = suites.load(suites.read(f"held-out?n={n}"), problems_of(run)[1], seed=0)[0]
    return dict(zip(SUITES, (easy, suites.load(suites.read(f"harder?n={n}"), [], seed=0)[0]), strict=True))


def measure(run: str, student: str, seed: int, n: int, **budget: float) -> None:
    folder, judged = run_folder(run) / "adaptive", run_folder(run) / "03_judge"
    kept, asked = folder / "rows.jsonl", both_suites(run, n)
    import torch  # noqa: F401  environment() names the GPU only then

    for name in STUDENTS:
        if kept.exists() and any((row["name"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        out = folder / f"{seed}-{name}"
        train, valid = (read_jsonl(judged / part / f"{name}.jsonl", TrainingRow) for part in ("train", "valid"))
        taught = sft.sft(train, valid, student, out, seed=seed, **budget, **SFT)
        rows = []
        for suite, problems in asked.items():
            found = answers.answer(problems, lambda out=out: (load(str(out)), load_tokenizer(str(out))),
                                   folder / f"{seed}-{name}-{suite}.jsonl", weights=sha256(out), **ANSWERS)  # fmt: skip
            row = metrics.summarise(name, found, seed)
            rows.append({"name": name, "seed": seed, "suite": suite, "n": row["n"], "accuracy": row["accuracy"],
                         "ci": [row["ci_low"], row["ci_high"]], "tokens_per_answer": row["tokens_per_answer"],
                         "cut_off": row["cut_off"], "examples": taught.examples, "families": by_family(found),
                         "train_tokens": taught.tokens, "commit": commit()})  # fmt: skip
            print(name, seed, suite, row["accuracy"], row["tokens_per_answer"], flush=True)
        append_jsonl(kept, rows)
        write_text(folder / "machine.json", json.dumps({"student": student, **budget} | environment()))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def collect(run: str) -> None:
    """All rows; for each student how many times more tokens it spends on the harder suite; and the picture."""
    folder, results = run_folder(run) / "adaptive", Path(__file__).parent / "results"
    rows = read_jsonl(folder / "rows.jsonl")

    def over_seeds(name: str, suite: str, key: str) -> float:
        return mean([row[key] for row in rows if (row["name"], row["suite"]) == (name, suite)])

    tokens = {(name, suite): over_seeds(name, suite, "tokens_per_answer") for name in STUDENTS for suite in SUITES}
    ratios = [{"name": name, "harder_over_easy": round(tokens[name, "harder"] / tokens[name, "easy"], 3)}
              for name in STUDENTS]  # fmt: skip
    answers: dict[str, list[Completion]] = {name: [] for name in STUDENTS}
    for row in rows:
        found = read_jsonl(folder / f"{row['seed']}-{row['name']}-{row['suite']}.jsonl", Completion)
        answers[row["name"]] += [answer.replace(id=f"{row['suite']} {answer.id}") for answer in found]
    unknown = dict.fromkeys(("domain", "question", "answer", "verifier", "source"), "")
    problems = [Problem(id=answer.id, task=answer.id.split("-")[0], **unknown) for answer in answers[STUDENTS[0]]]
    plots.difficulty(metrics.by_difficulty(answers, problems), results / "adaptive")
    about = {
        "command": "python benchmarks/adaptive.py RUN STUDENT SEED [--tokens] [--learning-rate] [--n]",
        "sft": SFT,
        "answers": ANSWERS,
    }
    about |= json.loads((folder / "machine.json").read_text())
    judged = run_folder(run) / "03_judge" / "train"
    fast, adaptive = ({row["problem_id"]: row["output"] for row in read_jsonl(judged / f"{name}.jsonl")}
                      for name in ("fast", "adaptive"))  # fmt: skip
    shared = fast.keys() & adaptive.keys()
    about |= {"problems_of_both_sets": len(shared), "with_the_same_chain": sum(fast[i] == adaptive[i] for i in shared)}
    write_text(results / "adaptive.json", json.dumps(about | {"rows": rows, "ratios": ratios}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("student", nargs="?")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--collect", action="store_true")
    args = parser.parse_args()
    if args.collect:
        collect(args.run)
    elif args.seed is None:
        parser.error("name STUDENT and SEED, or give --collect")
    else:
        measure(args.run, args.student, args.seed, args.n, train_tokens=args.tokens, learning_rate=args.learning_rate)


if __name__ == "__main__":
    main()

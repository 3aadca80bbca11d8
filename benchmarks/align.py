"""Which chains should a student be taught? The same student trained on sets that different judges chose.

    python benchmarks/align.py RUN STUDENT judge                     the student's verdicts on RUN's chains
    python benchmarks/align.py RUN STUDENT judge TEACHER             and the loop: improve, judge again
    python benchmarks/align.py RUN STUDENT train SEED [NAME ...]     train and measure, one seed (all sets unless named)
    python benchmarks/align.py RUN STUDENT collect                   rows of all seeds into results/align.json

RUN has been through 01 to 03; TEACHER is a model id or folder that this machine can load. The sets are made equal: as
many examples in each as the smallest has, drawn by the seed, and trained on for the same number of tokens. Verdicts
and rows are kept in artifacts/RUN/align as they come: killed or not, nothing is asked or measured twice.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from held_out import N_TEST, gain, gains, measured, problems_of

from distil.chains import judge, select, student_judge
from distil.llm.cache import Reply
from distil.models.student import generate, load_tokenizer
from distil.models.student import load as load_student
from distil.models.weights import resolve
from distil.train import sft
from distil.workspace.environment import commit, environment
from distil.workspace.files import append_jsonl, digest, read_jsonl, write_jsonl, write_text
from distil.workspace.rows import AlignedChain, Chain, Problem, TrainingRow
from distil.workspace.stage import run_folder

SFT = {"train_tokens": 60_000, "learning_rate": 2e-4, "max_length": 512, "method": "lora"}
SAMPLES, MAX_ROUNDS = 4, 1
BASELINE = "shortest"
SETS = {
    "random": "a correct chain of each problem, drawn at random",
    BASELINE: "the shortest correct chain of each problem",
    "llm": "the shortest that the teacher judged medium at once",
    "student": "the shortest that the student judged medium at once",
    "llm-loop": "the same with chains that became medium when improved",
    "student-loop": "the same with chains that became medium when improved",
}


def candidates(run: str) -> tuple[list[Chain], dict[str, Problem]]:
    """The chains that 03 was given, and the problems by id."""
    folder = run_folder(run)
    problems = {p.id: p for p in read_jsonl(folder / "01_collect/problems.jsonl", Problem)}
    collected = read_jsonl(folder / "01_collect/chains.jsonl", Chain)
    fast = [chain for chain in collected if chain.correct and chain.style == "fast"]
    return fast + read_jsonl(folder / "02_rewrite/chains.jsonl", Chain), problems


def remembered(rate: Callable, path: Path) -> Callable:
    """The same judge, who is not asked again about a chain whose verdict lies in `path`."""

    def asked(items: list[tuple[Chain, Problem]], seed: int) -> list[dict]:
        known = {row["of"]: row["verdict"] for row in (read_jsonl(path) if path.exists() else [])}
        keys = [digest(chain.full_text, problem.id, seed) for chain, problem in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if missing:
            verdicts = rate(list(missing.values()), seed)
            append_jsonl(path, [{"of": key, "verdict": v} for key, v in zip(missing, verdicts, strict=True)])
            known |= dict(zip(missing, verdicts, strict=True))
        return [known[key] for key in keys]

    return asked


class Local:
    """The teacher, loaded on this machine, with what `rewrite` uses of a `Chat`."""

    def __init__(self, model: str):
        self.model, self.failures, self.loaded = model, [], None

    def map(self, prompts: list[list[dict]], *, max_tokens: int, temperature: float, seeds: list[int], label: str, **_):
        import torch

        if not prompts:
            return []
        folder = resolve(self.model)
        self.loaded = self.loaded or (load_student(folder), load_tokenizer(folder))
        torch.manual_seed(seeds[0])
        batches = generate(*self.loaded, prompts, min(max_tokens, 640), 500, temperature=temperature)
        rows = [row for batch in batches for row in batch]
        print(label, len(rows), sum(row.n_tokens for row in rows), flush=True)
        return [Reply(row.text, "", row.finish_reason, 0, row.n_tokens) for row in rows]


def judge_all(run: str, student: str, teacher: str | None = None) -> None:
    chains, problems = candidates(run)
    items = [(chain, problems[chain.problem_id]) for chain in chains]
    folder = run_folder(run) / "align"
    rate = student_judge.by_student(student, items, samples=SAMPLES, batch_size=800)
    rate = remembered(rate, folder / "verdicts.jsonl")
    rounds = MAX_ROUNDS if teacher else 0
    rows = judge.align(chains, problems, rate, Local(teacher or "none"), 0, rounds)
    write_jsonl(folder / "student.jsonl", rows)
    print(Counter(row.trail[0]["difficulty"] for row in rows), sum(row.kept for row in rows), flush=True)


def judged_by(run: str) -> dict[str, list[AlignedChain]]:
    """What each judge, the LLM and the student, made of the chains."""
    paths = {"llm": "03_judge/aligned.jsonl", "student": "align/student.jsonl"}
    return {name: read_jsonl(run_folder(run) / path, AlignedChain) for name, path in paths.items()}


def chosen(run: str, seed: int) -> dict[str, list[TrainingRow]]:
    """The training rows of each set, equally many."""
    chains, problems = candidates(run)
    rng = random.Random(seed)
    by_llm, by_student = ([row for row in rows if row.kept] for rows in judged_by(run).values())
    one_each = list({chain.problem_id: chain for chain in rng.sample(chains, len(chains))}.values())
    sets = {
        "random": one_each,
        BASELINE: select.select_shortest(chains),
        "llm": select.select_shortest([row.chain for row in by_llm if len(row.trail) == 1]),
        "student": select.select_shortest([row.chain for row in by_student if len(row.trail) == 1]),
        "llm-loop": select.select_shortest([row.chain for row in by_llm if len(row.trail) <= 1 + MAX_ROUNDS]),
        "student-loop": select.select_shortest([row.chain for row in by_student]),
    }
    size = min(len(rows) for rows in sets.values())
    return {
        name: [select.training_row(c, problems[c.problem_id]) for c in rng.sample(rows, size)]
        for name, rows in sets.items()
    }


def train(run: str, student: str, seed: int, names: list[str]) -> None:
    folder = run_folder(run) / "align"
    kept = folder / "rows.jsonl"
    _, test = problems_of(run)
    sets = chosen(run, seed)
    import torch  # noqa: F401  environment() names the GPU only then

    write_text(folder / "machine.json", json.dumps(environment()))
    for name in names:
        if kept.exists() and any((row["selection"], row["seed"]) == (name, seed) for row in read_jsonl(kept)):
            continue
        out = folder / f"{seed}-{name}"
        told = sft.sft(sets[name], [], student, out, seed=seed, **SFT)
        found = measured(name, test, out, folder / f"{seed}-{name}.jsonl")
        append_jsonl(kept, [{"selection": name, "seed": seed, "n": len(sets[name]), "tokens": told.tokens,
                             "epochs": told.epochs, **found, "commit": commit()}])  # fmt: skip
        print(name, seed, found["accuracy"], flush=True)


def agreement(run: str) -> dict:
    """First verdicts of the two judges on the same chains: counts, and Cohen's kappa."""
    rows = {name: {row.id: row.trail[0]["difficulty"] for row in judged} for name, judged in judged_by(run).items()}
    return student_judge.compare([rows["llm"][i] for i in rows["llm"]], [rows["student"][i] for i in rows["llm"]])


def collect(run: str) -> None:
    """All rows, and each set's gain over the baseline, with its interval over seeds and questions."""
    import numpy as np

    folder = run_folder(run) / "align"
    rows = sorted(read_jsonl(folder / "rows.jsonl"), key=lambda row: (list(SETS).index(row["selection"]), row["seed"]))
    seeds = sorted({row["seed"] for row in rows})
    aligned = judged_by(run)
    loops = {
        name: {"at_first": Counter(row.trail[0]["difficulty"] for row in judged),
               "kept": sum(row.kept and len(row.trail) <= 1 + MAX_ROUNDS for row in judged),
               "improved": sum(row.kept and 1 < len(row.trail) <= 1 + MAX_ROUNDS for row in judged)}
        for name, judged in aligned.items()
    }  # fmt: skip
    alone: dict[str, list[float]] = {}  # how often the student, given nothing, solved what it then judged
    for row in aligned["student"]:
        seen = row.trail[0]
        alone.setdefault(seen["difficulty"], []).append(dict(map(tuple, seen["reach"]))[0])
    loops["student"]["alone"] = {verdict: round(float(np.mean(shares)), 3) for verdict, shares in alone.items()}
    about = {"command": "python benchmarks/align.py RUN STUDENT (judge, train, collect)", "n_test": N_TEST, "sft": SFT,
             "samples": SAMPLES, "max_rounds": MAX_ROUNDS, "sets": SETS}  # fmt: skip
    about |= json.loads((folder / "machine.json").read_text())
    found = {
        "rows": rows,
        f"minus_{BASELINE}": gains(folder, rows, BASELINE, "selection"),
        "student-loop_minus_student": gain(folder, "student-loop", "student", seeds),
        "loops": loops,
        "judges": agreement(run),
    }
    write_text(Path(__file__).parent / "results" / "align.json", json.dumps(about | found, indent=1) + "\n")


if __name__ == "__main__":
    run, student, what, *more = sys.argv[1:]
    if what == "judge":
        judge_all(run, student, *more)
    elif what == "train":
        train(run, student, int(more[0]), more[1:] or list(SETS))
    else:
        collect(run)

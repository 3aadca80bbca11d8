"""How well a reward model learns the judge: benchmarks/results/reward.json.

    python benchmarks/reward.py RUN BACKBONE [BACKBONE ...]

RUN has been through 03: its judged chains, and those that went wrong, are split by problem as 06 splits them, here five
times, with a different third held out each time. Every figure is the mean over the five, with their range.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from distil.chains import select
from distil.llm.prompts import prompt_of
from distil.train import reward_model
from distil.train.reward_model import GradedChain
from distil.workspace.environment import environment
from distil.workspace.files import read_jsonl, write_text
from distil.workspace.rows import Chain, Problem
from distil.workspace.stage import run_folder

SPLITS = 5


def judged_rows(run: str) -> list[GradedChain]:
    """Rows as the reward model wants them: every chain that the judge graded or that is known to be wrong."""
    folder = run_folder(run)
    problems = {p.id: p for p in read_jsonl(folder / "01_collect" / "problems.jsonl", Problem)}
    chains = [c for stage in ("01_collect", "02_rewrite") for c in read_jsonl(folder / stage / "chains.jsonl", Chain)]
    grades = {s["chain_id"]: (s["rv"], s["cd"]) for s in read_jsonl(folder / "03_judge" / "scores.jsonl")}
    rows = []
    for chain in chains:
        if chain.id in grades or chain.correct is False:
            rv, cd = grades.get(chain.id, (None, None))
            asked, text = prompt_of(problems[chain.problem_id]), chain.full_text
            rows.append(GradedChain(problem_id=chain.problem_id, asked=asked, text=text, rv=rv, cd=cd,
                                    correct=int(chain.correct)))  # fmt: skip
    return rows


def measure(rows: list[GradedChain], backbone: str) -> list[dict]:
    """A row a head and predictor: {backbone, head, predictor, n, spearman, mae} and the ranges over the splits."""
    found: dict[tuple, list[reward_model.Agreement]] = {}
    _, _, features = reward_model.read_features(rows, backbone)
    for seed in range(SPLITS):
        held = {row.problem_id for row in select.split_by_problem(rows, seed, valid_share=0.3)[1]}
        split = [row.replace(held_out=row.problem_id in held) for row in rows]
        _, quality, _ = reward_model.fit_heads(split, features)
        for head in reward_model.HEADS:
            for predictor in ("model", "length_only"):
                found.setdefault((head, predictor), []).append(quality[head, predictor])
    table = []
    for (head, predictor), splits in found.items():
        row = {"backbone": backbone, "head": head, "predictor": predictor, "n": [s.n for s in splits]}
        for key in ("spearman", "mae"):
            values = [getattr(s, key) for s in splits]
            row[key] = round(sum(values) / SPLITS, 3)
            row[f"{key}_range"] = [min(values), max(values)]
        table.append(row)
        print(row, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("backbones", nargs="+")
    args = parser.parse_args()
    rows, table, begun = judged_rows(args.run), [], time.perf_counter()
    for backbone in args.backbones:
        table += measure(rows, backbone)
    grades = {
        head: sorted({row.grade(head) for row in rows if row.grade(head) is not None}) for head in reward_model.HEADS
    }
    found = {
        "command": "python benchmarks/reward.py RUN BACKBONE ...", "chains": len(rows), "grades_given": grades,
        "problems": len({row.problem_id for row in rows}), "minutes": round((time.perf_counter() - begun) / 60, 1),
        "splits": SPLITS,
    }  # fmt: skip
    path = Path(__file__).parent / "results" / "reward.json"
    write_text(path, json.dumps(found | environment() | {"rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()

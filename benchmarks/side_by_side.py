"""Are several students trained sooner side by side on one GPU? results/side_by_side.json.

    python benchmarks/side_by_side.py RUN STUDENT [--tokens 300000] [--rows-a-step 16]

RUN has been through 03. Its sets fast and slow, the latter with two seeds, are trained one after the other in one
process, as 04 does it, and then each in a process of its own, all at once. Seconds are of the whole: imports, loading,
compiling, training, saving.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from distil.workspace.environment import environment
from distil.workspace.files import read_jsonl, write_text
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder

STUDENTS = [("fast", 0), ("slow", 0), ("slow", 1)]


def train(args: argparse.Namespace, students: list[tuple[str, int]], out: Path) -> None:
    """Train the students one after the other in this process; what each came to goes beside its folder."""
    from distil.train import sft

    for name, seed in students:
        rows = read_jsonl(run_folder(args.run) / "03_judge" / "train" / f"{name}.jsonl", TrainingRow)
        folder = out / f"{name}-{seed}"
        found = sft.sft(rows, [], args.student, folder, train_tokens=args.tokens, learning_rate=2e-4, max_length=1024,
                        method="lora", seed=seed, batch_size=args.rows_a_step)  # fmt: skip
        write_text(out / f"{name}-{seed}.json", json.dumps(found.to_dict()))


def timed(args: argparse.Namespace, groups: list[list[int]], out: Path) -> dict:
    """Seconds for all groups at once, a process each, and the tokens a second of each student's training."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    again = [sys.executable, __file__, args.run, args.student, "--tokens", str(args.tokens), "--rows-a-step",
             str(args.rows_a_step), "--out", str(out), "--one"]  # fmt: skip
    started = [subprocess.Popen(again + [str(i) for i in group]) for group in groups]
    codes = [process.wait() for process in started]
    seconds = round(time.perf_counter() - begun, 1)
    results = {file.stem: json.loads(file.read_text()) for file in sorted(out.glob("*.json"))}
    rates = {name: result["tokens_per_s"] for name, result in results.items()}
    return {"processes": len(groups), "seconds": seconds, "failed": sum(map(bool, codes)), "tokens_per_s": rates}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("student")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--rows-a-step", type=int, default=16)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, nargs="+", help=argparse.SUPPRESS)  # how this script calls itself
    args = parser.parse_args()
    if args.one:
        train(args, [STUDENTS[i] for i in args.one], args.out)
        return
    out = run_folder(args.run) / "side_by_side"
    everyone = list(range(len(STUDENTS)))
    rows = [timed(args, [everyone], out), timed(args, [[i] for i in everyone], out)]
    import torch  # noqa: F401  environment() names the GPU only then

    asked = f"--tokens {args.tokens} --rows-a-step {args.rows_a_step}"
    found = {"command": f"python benchmarks/side_by_side.py RUN STUDENT {asked}"} | environment()
    path = Path(__file__).parent / "results" / "side_by_side.json"
    write_text(path, json.dumps(found | {"students": STUDENTS, "rows": rows}, indent=1) + "\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

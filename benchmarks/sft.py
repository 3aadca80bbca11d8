"""What fine-tuning costs: the same rows through `train.sft.sft`, TRL by its defaults, and a common public recipe.

    python benchmarks/sft.py RUN STUDENT [STUDENT ...]      measure, then write results/sft.json
    python benchmarks/sft.py RUN STUDENT --profile NAME     one variant under a profiler, into results/sft_profile.txt

RUN has been through 03; `--rows fast` takes its short chains instead of the slow ones, `--tokens` another budget. Each
measurement is a process of its own, since Unsloth changes TRL for the whole process that imports it; the variants take
turns, `--rounds` times. Rows are kept in artifacts/RUN/sft/rows.jsonl as they come: killed or not, nothing is measured
twice. Keep the GPU free of anything else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from sft_variants import CHECK_ROWS, CHECKS, LEARNING_RATE, PROFILED, VARIANTS, WARM_UP, matrix_rate, once

from distil.train.model import LORA
from distil.workspace.environment import environment
from distil.workspace.errors import StageError
from distil.workspace.files import append_jsonl, read_jsonl, write_text
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder

TOKENS = 100_000
RESULTS = Path(__file__).parent / "results"


def training_rows(args: argparse.Namespace) -> list[TrainingRow]:
    return read_jsonl(run_folder(args.run) / "03_judge" / "train" / f"{args.rows}.jsonl", TrainingRow)


def measure(args: argparse.Namespace, student: str, name: str, turn: int) -> dict:
    seen, seconds = once(training_rows(args), student, name, args.tokens)
    import torch

    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    real, padded, learnt = seen.counts(WARM_UP, seen.last)
    rate, best = real / seen.seconds, matrix_rate()
    # FLOP a token, 2 a weight and pass (Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, appendix F): forward 2 N
    # and back through frozen weights 2 N. Their gradients, 2 N more in a full training, are not taken with LoRA. Left
    # out: the adapter, attention's products, the tables of words, and what is computed again to save memory.
    steps = [after - before for before, after in zip(seen.ends[WARM_UP - 1 :], seen.ends[WARM_UP:], strict=False)]
    return {
        "name": name, "model": student, "rows": args.rows, "tokens": args.tokens, "round": turn,
        "tokens_per_s": round(rate, 1), "peak_gb": round(peak, 2), "mfu": round(4 * seen.weights * rate / best, 4),
        "steps": seen.last, "tokens_a_step": round(real / (seen.last - WARM_UP)),
        "micro_batches": seen.args.gradient_accumulation_steps, "seconds_timed": round(seen.seconds, 2),
        "seconds": round(seconds, 1), "step_median_s": round(statistics.median(steps), 4),
        "step_slowest_s": round(max(steps), 4), "tokens_timed": real, "padding": round(1 - real / padded, 4),
        "loss_tokens": round(learnt / real, 4), "loss_first": seen.losses[0], "loss_last": seen.losses[-1],
        "weights": seen.weights, "matrix_tflops": round(best / 1e12, 2), "optim": str(seen.args.optim.value),
        "checkpointing": seen.args.gradient_checkpointing, "unsloth": "unsloth" in sys.modules,
        "gpu": torch.cuda.get_device_name() if gpu else None,
    } | ({"losses": seen.losses} if name in CHECKS else {})  # fmt: skip


def profile(args: argparse.Namespace, student: str, name: str) -> None:
    """Where the last steps of a variant spend their time; the profiler slows the host down, so idleness comes twice."""
    from torch.autograd import DeviceType

    seen, _ = once(training_rows(args), student, name, args.tokens, profiled=True)
    kernels = [e for e in seen.profiler.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    busy = until = 0.0
    for start, end in sorted((e.time_range.start, e.time_range.end) for e in kernels):
        busy, until = busy + max(0.0, end - max(start, until)) / 1e6, max(until, end)
    before, during = seen.counts(WARM_UP, seen.last)[0], seen.counts(seen.last, seen.last + PROFILED)[0]
    idle = 1 - busy / during * before / seen.seconds  # kernels take as long without a profiler
    lines = [
        f"python benchmarks/sft.py RUN {student} --profile {name!r} --rows {args.rows} --tokens {args.tokens}",
        json.dumps(environment()),
        f"{PROFILED} steps, {during} tokens: {seen.profiled:.3f} s profiled, the GPU computes {busy:.3f} s of them",
        f"GPU idle: {1 - busy / seen.profiled:.1%} under the profiler, {idle:.1%} of the {seen.seconds:.3f} s that the"
        f" {seen.last - WARM_UP} steps before took without it ({before / seen.seconds:.0f} tokens/s)",
    ]
    averages = [e for e in seen.profiler.key_averages() if not e.is_user_annotation]
    for title, time_of, chosen in (
        ("kernels by GPU time", "self_device_time_total", [e for e in averages if e.device_type == DeviceType.CUDA]),
        ("operations by CPU time", "self_cpu_time_total", [e for e in averages if e.device_type == DeviceType.CPU]),
    ):
        lines += ["", f"{title}: ms a step, calls a step, name"]
        for e in sorted(chosen, key=lambda e: -getattr(e, time_of))[:15]:
            lines.append(f"{getattr(e, time_of) / 1e3 / PROFILED:10.3f} {e.count / PROFILED:9.1f} {e.key[:98]}")
    write_text(RESULTS / "sft_profile.txt", "\n".join(lines) + "\n")


def compare(rows: list[dict], student: str) -> dict | None:
    """The losses of each step through both backends, and how far they are apart at most."""
    losses = [next((r["losses"] for r in rows if (r["model"], r["name"]) == (student, n)), None) for n in CHECKS]
    if None in losses:
        return None
    apart = [abs(a - b) / b for a, b in zip(*losses, strict=True)]
    return {"model": student, "rows_a_step": CHECK_ROWS, "relative_first": round(apart[0], 6),
            "relative_largest": round(max(apart), 6), "at_step": apart.index(max(apart)) + 1,
            "relative_mean": round(statistics.mean(apart), 6)} | dict(zip(CHECKS, losses, strict=True))  # fmt: skip


def collect(args: argparse.Namespace, rows: list[dict]) -> None:
    import torch  # noqa: F401  environment() names the GPU only then

    if len({row["gpu"] for row in rows}) > 1:
        raise StageError("the rows come from different machines: delete artifacts/RUN/sft and measure again")
    medians = []
    for student in args.students:
        for name in VARIANTS:
            if mine := [row for row in rows if (row["model"], row["name"]) == (student, name)]:
                figures = ("tokens_per_s", "peak_gb", "mfu")
                medians.append({"name": name, "model": student, "rounds": len(mine)}
                               | {f: round(statistics.median(r[f] for r in mine), 4) for f in figures})  # fmt: skip
    about = {"command": f"python benchmarks/sft.py RUN STUDENT --rows {args.rows} --tokens {args.tokens}"
             f" --rounds {args.rounds}",
             "variants": VARIANTS | CHECKS, "lora": LORA, "learning_rate": LEARNING_RATE,
             "warm_up_steps": WARM_UP, "flop_a_token": "4 x weights, embeddings left out"}  # fmt: skip
    timed = [{k: v for k, v in row.items() if k != "losses"} for row in rows]
    checks = [apart for student in args.students if (apart := compare(rows, student))]
    found = about | environment() | {"median": medians, "rows": timed, "same_losses": checks}
    write_text(RESULTS / "sft.json", json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("students", nargs="+")
    parser.add_argument("--rows", choices=("slow", "fast"), default="slow")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", choices=VARIANTS, metavar="NAME")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how this script calls itself: a variant and its round
    args = parser.parse_args()
    if args.profile:
        profile(args, args.students[0], args.profile)
        return
    kept = run_folder(args.run) / "sft" / "rows.jsonl"
    if args.one:
        turn, _, name = args.one.partition(":")
        append_jsonl(kept, [measure(args, args.students[0], name, int(turn))])
        return
    failed = []

    def known() -> dict[tuple, dict]:
        rows = read_jsonl(kept) if kept.exists() else []
        rows = [row for row in rows if (row["rows"], row["tokens"]) == (args.rows, args.tokens)]
        return {(row["round"], row["model"], row["name"]): row for row in rows if row["model"] in args.students}

    wanted = [(turn, s, name) for turn in range(args.rounds) for s in args.students for name in VARIANTS]
    for turn, student, name in wanted + [(0, s, name) for s in args.students for name in CHECKS]:
        if (turn, student, name) in known():
            continue
        again = [sys.executable, __file__, args.run, student, "--rows", args.rows, "--tokens", str(args.tokens)]
        if subprocess.run([*again, "--one", f"{turn}:{name}"]).returncode:
            failed.append((turn, student, name))
            continue
        row = known()[turn, student, name]
        print(student, name, row["tokens_per_s"], "tokens/s", row["peak_gb"], "GiB, MFU", row["mfu"], flush=True)
    collect(args, list(known().values()))
    if failed:
        raise SystemExit(f"not measured: {failed}")


if __name__ == "__main__":
    main()

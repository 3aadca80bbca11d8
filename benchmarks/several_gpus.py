"""Do several GPUs learn what one learns? Losses step by step: results/several_gpus.json.

    python benchmarks/several_gpus.py RUN STUDENT [--processes 2] [--tokens 60000] [--methods lora full]
                                      [--random NAME ...]

RUN has been through 03. Each training is a run of its own below artifacts/RUN/several, started as a reader starts it:
`accelerate launch -m distil.train.sft`, with the same rows a step however many processes share them, plain TRL in all:
Unsloth must not be installed. `--random` names larger students of `profiles.SHAPES`; their weights are random, STUDENT
lends its tokenizer, and an adapter is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import profiles

from distil.workspace.environment import environment
from distil.workspace.files import read_csv, write_text
from distil.workspace.stage import run_folder

FSDP = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
        "--fsdp_state_dict_type", "FULL_STATE_DICT"]  # fmt: skip
WAYS = {"one": (1, []), "ddp": (None, ["--multi_gpu"]), "fsdp": (None, FSDP)}  # None: as many as --processes says


def train(args: argparse.Namespace, student: str, way: str, method: str) -> dict:
    """{student, way, method, processes, losses, tokens_per_s, memory_gb}, or with the `cause` where it failed."""
    home = run_folder(args.run) / "several" / f"{student.rpartition('/')[2]}-{way}-{method}"
    judged = home / "artifacts" / "t" / "03_judge"
    shutil.copytree(run_folder(args.run) / "03_judge", judged, dirs_exist_ok=True)
    count, launch = WAYS[way][0] or args.processes, WAYS[way][1]
    rate = {"lora": "2e-4", "full": "1e-5"}[method]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", *launch, "-m", "distil.train.sft", "t", "fast",
               "--student", student, "--train-tokens", str(args.tokens), "--learning-rate", rate,
               "--max-length", "512", "--method", method]  # fmt: skip
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = os.environ | {"DISTIL_HOME": str(home), "PYTHONPATH": path, "DISTIL_BATCH": "1", "DISTIL_BACKEND": "trl"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    row = {"student": student.rpartition("/")[2], "way": way, "method": method, "processes": count}
    if done.returncode:
        return row | {"failed": cause(done.stderr)}
    out = home / "artifacts" / "t" / "04_finetune" / "fast"
    log = [line for line in read_csv(out / "log.csv") if line["loss"] is not None]
    result = json.loads((out / "sft.json").read_text())["result"]
    return row | {
        "backend": result["backend"], "steps_logged": [line["step"] for line in log],
        "losses": [line["loss"] for line in log], "tokens_per_s": result["tokens_per_s"],
        "memory_gb": max(line["memory_gb"] for line in log), "valid_loss": result["valid_loss"],
    }  # fmt: skip


def made(student: str, tokenizer: str, folder: Path) -> str:
    """The folder of a larger student with random weights."""
    script = (
        f"import profiles, pathlib; profiles.random_model({student!r}, {tokenizer!r}, pathlib.Path({str(folder)!r}))"
    )
    if not (folder / "config.json").exists():
        subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent)
    return str(folder)


def cause(stderr: str) -> str:
    """The first error that a process names, before those of its launcher; without one the end of what was said."""
    named = re.search(r"^(?:\[rank\d+\]: )?(\w+(?:\.\w+)*Error: .*)$", stderr, re.MULTILINE)
    return named[1] if named else stderr[-500:]


def apart(row: dict, alone: dict) -> float:
    """Largest relative difference of the losses; the last step is left out: incomplete, it is filled up for several."""
    pairs = zip(row["losses"][:-1], alone["losses"][:-1], strict=True)
    return round(max(abs(ours - theirs) / theirs for ours, theirs in pairs), 5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("student")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--methods", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    parser.add_argument("--random", nargs="*", choices=profiles.SHAPES, default=[], metavar="NAME")
    args = parser.parse_args()
    if util.find_spec("unsloth"):
        raise SystemExit("Unsloth is installed, which trains on one GPU and not on several: uninstall it first")
    import torch  # noqa: F401  environment() names the GPU only then

    asked = f"--processes {args.processes} --tokens {args.tokens}"
    found = {"command": f"python benchmarks/several_gpus.py RUN STUDENT {asked}"}
    found |= {"tokens": args.tokens} | environment()
    path = Path(__file__).parent / "results" / "several_gpus.json"
    rows = []
    trainings = [(args.student, method) for method in args.methods]
    trainings += [(name, "lora") for name in args.random]
    for name, method in trainings:
        larger = run_folder(args.run) / "several" / "random" / name.rpartition("/")[2]
        student = name if name == args.student else made(name, str(Path(args.student).resolve()), larger)
        alone: dict = {}
        for way in WAYS:
            rows.append(train(args, student, way, method))
            alone = alone or rows[-1]
            if "losses" in rows[-1] and "losses" in alone:
                rows[-1]["largest_difference"] = apart(rows[-1], alone)
            print({k: v for k, v in rows[-1].items() if k not in ("losses", "steps_logged")}, flush=True)
            write_text(path, json.dumps(found | {"rows": rows}, indent=1) + "\n")  # killed or not, these are kept


if __name__ == "__main__":
    main()

"""What the templates know: the files of results, by name, and what is worked out of several of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import yaml

from benchmarks.held_out import ANSWERS
from benchmarks.reference_run import claim
from distil.evaluate.published_scores import tokens
from distil.train.packing import CHUNK
from distil.workspace.files import read_csv, read_jsonl
from distil.workspace.stage import STAGES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / "artifacts" / "reference"
PAPERS = ("aime2024", "mmlu-pro")  # the benchmarks of which both students' tokens are published


def result(name: str) -> dict:
    """`benchmarks/results/NAME.json`."""
    return read(RESULTS / f"{name}.json")


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def measured(folder: Path) -> dict:
    """The tables that 07 left in a folder: {table (Markdown), students by name, gaps (accuracy) by `of` and `to`}."""
    gaps: dict[str, dict] = {}
    for row in read_jsonl(folder / "differences.jsonl"):
        back = {"difference": -row["difference"], "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
        gaps.setdefault(row["of"], {})[row["to"]] = row
        gaps.setdefault(row["to"], {})[row["of"]] = back
    table = (folder / "results.md").read_text(encoding="utf-8").strip()
    return {"table": table, "students": students(folder / "results.csv"), "gaps": gaps}


def students(file: Path) -> dict[str, dict]:
    return {row["student"]: row for row in read_csv(file)}


def small_run(name: str) -> dict:
    """A run kept in `benchmarks/results/NAME`: `measured`, and `stages` with what each stage noted down."""
    return measured(RESULTS / name) | {"stages": read(RESULTS / name / "meta.json")}


def cpu() -> dict:
    """The run of `make run`: `small_run`, other seeds and problems, minutes and memory."""
    spent, run = result("costs")["cpu"], small_run("cpu")
    return run | {
        "made": run["stages"]["07_eval"]["commit"],
        "seeds": gathered("cpu3"),
        "harder": students(RESULTS / "cpu" / "results_reference.csv"),
        "commit": spent["commit"],
        "cores": spent["cores"],
        "minutes": {stage[:2]: row["minutes"] for stage, row in spent["stages"].items()},
        "minutes_in_all": sum(row["minutes"] for row in spent["stages"].values()),
        "peak_ram_gb": max(row["peak_ram_gb"] for row in spent["stages"].values()),
    }


def h100() -> dict:
    """The problems of `make run` with a larger student: `small_run`, and the minutes of 04 to 07."""
    run = small_run("h100")
    return run | {"seconds": sum(run["stages"][stage]["seconds"] for stage in STAGES[3:])}


def gathered(run: str) -> dict:
    """What `benchmarks/gathered.py` kept of a run: `measured`, each pair of recipes, 03 and 04, the pieces.

    `families` has accuracy by family and student; `trained` by student what 04 noted of it.
    """
    folder, families = RESULTS / run, {}
    about = read(folder / "about.json")
    for row in read_csv(folder / "families.csv"):
        families.setdefault(row["family"], {})[row["student"]] = row["accuracy"]
    figures = about["stages"]["04_finetune"]["figures"]
    names = [key.removesuffix("_examples") for key in figures if key.endswith("_examples")]
    trained = {name: {of: figures[f"{name}_{of}"] for of in ("examples", "tokens")} for name in names}
    files = {file.stem: read(file) for file in folder.glob("*.json")}
    commit = about["stages"]["04_finetune"]["commit"][:12]
    return measured(folder) | files | {
        "stages": about["stages"], "commit": commit, "families": families, "trained": trained,
    }  # fmt: skip


def reference() -> dict:
    """The kept run: `measured`, `greedy` likewise, what the stages noted, how students were trained, and the claim."""
    trained = {}
    for name in ("fast", "slow", "unaligned"):
        done = read(KEPT / "04_finetune" / name / "sft.json")["result"]
        trained[name] = done | {"tokens_an_example": done["tokens"] / done["examples"]}
    flow = {(row["first_verdict"], row["end"]): row["chains"] for row in read_csv(KEPT / "03_judge" / "flow.csv")}
    tasks = {
        json.loads(line)["task"] for line in gzip.decompress((KEPT / "problems.jsonl.gz").read_bytes()).splitlines()
    }
    shown, stages = read(KEPT / "claim.json"), {stage[:2]: read(KEPT / stage / "meta.json") for stage in STAGES}
    costs = read_csv(KEPT / "costs.csv")
    commits = [[row["stage"][:2] for row in costs if row["commit"] == commit] for commit in shown["commits"]]
    return measured(KEPT) | {
        "greedy": measured(KEPT / "greedy"),
        "asked": read(KEPT / "asked.json"),
        "claim": shown,
        "commits": [(stages[0], stages[-1], commit) for stages, commit in zip(commits, shown["commits"], strict=True)],
        "stages": stages,
        "trained": trained,
        "train_problems": stages["01"]["figures"]["problems"] - shown["problems"],
        "easy": sum(chains for (verdict, _), chains in flow.items() if verdict == "easy"),
        "families": len(tasks - {"programs"}),
        "costs": costs,
        "published_gains": [
            tokens(suite)["DistilQwen2.5-R1-32B"] / tokens(suite)["DistilQwen2.5-DS3-0324-32B"] for suite in PAPERS
        ],
        "sentences": claim.sentences(shown),
    }


def finetuned() -> list[dict]:
    """The kept records of notebook 04: {name, students, method, figures, expected, reserved, used (GiB)}."""
    made = []
    for folder in sorted((RESULTS / "finetune").iterdir()):
        meta = read(folder / "meta.json")
        logged = [row["memory_gb"] for log in sorted(folder.glob("*/log.csv")) for row in read_csv(log)]
        made.append({
            "name": folder.name, "students": meta["params"]["students"].split(","), "method": meta["params"]["method"],
            "train_tokens": meta["params"]["train_tokens"], "figures": meta["figures"],
            "expected": meta["figures"]["memory_expected_gb"], "reserved": meta["peak_vram_gb"],
            "used": max(gib for gib in logged if gib),
        })  # fmt: skip
    return made


def answers() -> int:
    """Completions that stand beside gold answers in the table of the verifiers' tests."""
    return len((ROOT / "tests/unit/answers.tsv").read_text(encoding="utf-8").splitlines()) - 1


def longest_answer() -> int:
    """The most tokens that an answer to the benchmarks' held-out problems may have."""
    return ANSWERS["max_new_tokens"]


def chunk() -> int:
    """Learned tokens whose logits the packed trainer makes at a time."""
    return CHUNK


def profiles() -> dict:
    return yaml.safe_load((ROOT / "distil/workspace/profiles.yaml").read_text(encoding="utf-8"))


KNOWN = {form.__name__: form for form in (
    result, cpu, h100, gathered, reference, finetuned, answers, longest_answer, chunk, profiles,
)}  # fmt: skip

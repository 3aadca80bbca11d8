"""Keep the figures of a run: minutes and memory of each stage in results/costs.json, the rest in results/PROFILE/.

Of profile cpu also what `distil run` needs to foresee a run: distil/pipeline/work.json.

python benchmarks/costs.py PROFILE RUN
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from distil.models.weights import resolve
from distil.pipeline import minutes
from distil.workspace.files import write_text
from distil.workspace.stage import STAGES, read_meta, run_folder

SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")  # of a model  # fmt: skip
STARTS = 15  # seconds, about: what a stage of profile smoke takes, which does next to nothing


def main(profile: str, run: str) -> None:
    file = Path(__file__).parent / "results" / "costs.json"
    costs = json.loads(file.read_text()) if file.exists() else {}
    stages, figures = {}, {}
    for stage in STAGES:
        meta = json.loads((run_folder(run) / stage / "meta.json").read_text())
        figures[stage] = {"params": meta["params"], "figures": meta["figures"], "commit": meta["commit"]}
        stages[stage] = {"minutes": round(meta["seconds"] / 60, 1), "peak_ram_gb": meta["peak_ram_gb"]}
    costs[profile] = {"command": f"distil run --profile {profile}", "cores": meta["cores"], "gpu": meta["gpu"],
                      "commit": meta["commit"], "stages": stages}  # fmt: skip
    write_text(file, json.dumps(costs, indent=1) + "\n")
    kept = file.parent / profile
    kept.mkdir(exist_ok=True)
    write_text(kept / "meta.json", json.dumps(figures, indent=1) + "\n")
    for name in ("results.csv", "results.md", "differences.jsonl", "accuracy_tokens.png"):
        shutil.copy(run_folder(run) / "07_eval" / name, kept / name)
    if profile == "cpu":
        metas = {stage: read_meta(run, stage) for stage in STAGES}
        student = Path(resolve(metas["04_finetune"]["params"]["student"]), "config.json")
        write_text(Path(minutes.__file__).with_name(minutes.RECORD), json.dumps(
            {"commit": metas["07_eval"]["commit"], "cores": metas["07_eval"]["cores"],
             "config": {k: v for k, v in json.loads(student.read_text()).items() if k in SHAPE},
             "speeds": minutes.told(run)["speeds"],
             "stages": {stage: {"params": meta["params"], "seconds": by_kind(stage, meta), "gib": meta["peak_ram_gb"]}
                        for stage, meta in metas.items()}}, indent=1) + "\n")  # fmt: skip


def by_kind(stage: str, meta: dict) -> dict[str, float]:
    """Seconds of a stage while it trained, wrote, read and did the rest, as far as its figures tell them apart.

    Of a stage that loads a student `STARTS` are rest: they do not grow with the work.
    """
    figures, whole = meta["figures"], max(0.0, meta["seconds"] - STARTS * (stage > "03"))
    train = write = read = 0.0
    if stage == "03_judge":
        write = whole  # the student goes on from chains; what is recorded is answered at once
    elif stage == "04_finetune":
        names = meta["params"]["students"].split(",")
        train = sum(figures[f"{name}_tokens"] / figures[f"{name}_tokens_per_s"] for name in names)
    elif stage == "05_prefer":
        train = figures["seconds"]
        write = whole - train  # own answers
    elif stage == "06_reinforce":
        write = figures["writing_s"]
        train = figures["seconds"] - write
        read = whole - figures["seconds"]  # the reward model's chains
    elif stage == "07_eval":
        write = whole
    kinds = {"train": train, "write": write, "read": read}
    kinds = {kind: max(0.0, spent) for kind, spent in kinds.items()}
    return {kind: round(spent, 1) for kind, spent in (kinds | {"rest": meta["seconds"] - sum(kinds.values())}).items()}


if __name__ == "__main__":
    main(*sys.argv[1:])

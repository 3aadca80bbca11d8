"""Keep the figures of a run: minutes and memory of each stage in results/costs.json, the rest in results/PROFILE/.

python benchmarks/costs.py PROFILE RUN
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from distil.workspace.files import write_text
from distil.workspace.stage import STAGES, run_folder


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


if __name__ == "__main__":
    main(*sys.argv[1:])

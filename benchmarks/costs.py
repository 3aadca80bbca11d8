"""Minutes and memory of a run, stage by stage, from its meta.json files, into benchmarks/results/costs.json.

python benchmarks/costs.py PROFILE RUN
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from distil.stage import STAGES, run_folder, write_text


def main(profile: str, run: str) -> None:
    file = Path(__file__).parent / "results" / "costs.json"
    costs = json.loads(file.read_text()) if file.exists() else {}
    stages = {}
    for stage in STAGES:
        meta = json.loads((run_folder(run) / stage / "meta.json").read_text())
        stages[stage] = {"minutes": round(meta["seconds"] / 60, 1), "peak_ram_gb": meta["peak_ram_gb"]}
    costs[profile] = {"command": f"distil run --profile {profile}", "cores": meta["cores"], "gpu": meta["gpu"],
                      "commit": meta["commit"], "stages": stages}  # fmt: skip
    write_text(file, json.dumps(costs, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

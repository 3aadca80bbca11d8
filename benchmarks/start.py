"""Pack a finished run of profile `class` for `distil start`: distil/pipeline/class.tar.xz, and its figures in results.

What no later notebook reads is left out: pictures, and the reward model, which is as large as the student's base.

python benchmarks/start.py RUN
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

from distil.pipeline.start import KEPT_RUN, PROFILE
from distil.publish import leaks
from distil.workspace.files import read_csv, write_text
from distil.workspace.parameters import effective
from distil.workspace.stage import STAGES, read_meta, run_folder

LIMIT_MB = 6
UNREAD = (".png", ".svg", "reward_model")  # how the names end of outputs that no later stage reads
FIGURES = ("student", "accuracy", "ci_low", "ci_high", "tokens_per_answer")


def main(run: str) -> None:
    metas = {stage: read_meta(run, stage) for stage in STAGES}
    values = effective(PROFILE, run, [])
    for stage, meta in metas.items():
        if meta is None:
            raise SystemExit(f"{stage} of run {run!r} is not done: distil run --profile {PROFILE} --run {run}")
        if not meta["commit"] or meta["commit"].endswith("+"):
            raise SystemExit(f"{stage}: run {run!r} was made with changes that are not committed: commit, then run")
        if differing := [k for k, v in values[stage].items() if k != "run" and meta["params"].get(k) != v]:
            raise SystemExit(f"{stage}: run {run!r} was not made with the profile's own {', '.join(differing)}")
    packed = pack(run, {stage: metas[stage] for stage in STAGES[:-1]})
    if len(packed) > LIMIT_MB * 1e6:
        raise SystemExit(f"the run packs to {len(packed) / 1e6:.1f} MB, over {LIMIT_MB}: lower lora_rank")
    KEPT_RUN.write_bytes(packed)
    last = metas[STAGES[-1]]
    stages = {stage: {"minutes": round(meta["seconds"] / 60, 1), "peak_ram_gb": meta["peak_ram_gb"]}
              for stage, meta in metas.items()}  # fmt: skip
    measured = [{name: row[name] for name in FIGURES} for row in read_csv(run_folder(run) / "07_eval/results.csv")]
    about = {"command": f"distil run --profile {PROFILE}", "cores": last["cores"], "gpu": last["gpu"],
             "commit": last["commit"], "packed_mb": round(len(packed) / 1e6, 1), "stages": stages,
             "problems": values["01_collect"]["n_test"], "students": measured}  # fmt: skip
    write_text(Path(__file__).parent / "results" / "class.json", json.dumps(about, indent=1) + "\n")
    print(f"{len(packed) / 1e6:.2f} MB: {KEPT_RUN}")


def pack(run: str, metas: dict[str, dict]) -> bytes:
    """The stages' outputs as xz-compressed tar; the same files give the same bytes. Raises SystemExit for a leak."""
    files: list[tuple[str, bytes]] = []
    for stage, meta in metas.items():
        meta["outputs"] = {name: sha for name, sha in meta["outputs"].items() if not name.endswith(UNREAD)}
        folder = run_folder(run) / stage
        for name in meta["outputs"]:
            path = folder / name
            inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            if found := leaks.problems((p.relative_to(folder.parent).as_posix(), p) for p in inside):
                raise SystemExit("not to be packed: " + "; ".join(found))
            files += [(p.relative_to(folder.parent).as_posix(), p.read_bytes()) for p in inside]
        text = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
        if found := leaks.in_text(text) + leaks.paths(text, everywhere=True):
            raise SystemExit(f"{stage}/meta.json holds {', '.join(found)}")
        files.append((f"{stage}/meta.json", text.encode()))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])

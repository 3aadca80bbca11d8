"""Pack a finished run of profile `class` for `distil start`: distil/pipeline/class.tar.xz, and its figures in results.

What no later notebook reads is left out: pictures, and the reward model, which is as large as the student's base.

python benchmarks/start.py RUN
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from distil.pipeline.start import KEPT_RUN, PROFILE
from distil.publish import leaks
from distil.workspace.files import read_csv, sha256, write_text
from distil.workspace.parameters import effective
from distil.workspace.stage import STAGES, read_meta, run_folder

LIMIT_MB = 6
UNREAD = (".png", ".svg", "reward_model")  # how the names end of outputs that no later stage reads
FIGURES = ("student", "accuracy", "ci_low", "ci_high", "tokens_per_answer", "cut_off")


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
    """What later notebooks read of stages, in their order, as xz-compressed tar; the same files give the same bytes.

    Digests in `meta.json` become those of what is packed. Raises SystemExit for a path of this machine, or a secret.
    """
    made = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for stage, meta in metas.items():
            kept = [name for name in meta["outputs"] if not name.endswith(UNREAD)]
            for name in kept:
                copy(run_folder(run) / stage / name, folder / stage / name)
            outputs = {name: sha256(folder / stage / name) for name in kept}
            meta |= {"outputs": outputs, "inputs": {name: sha256(folder / name) for name in meta["inputs"]}}
            write_text(folder / stage / "meta.json", json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        named = {path.relative_to(folder).as_posix(): path for path in files}
        if found := leaks.problems(named.items()):
            raise SystemExit("not to be packed: " + "; ".join(found))
        with tarfile.open(fileobj=made, mode="w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
            for name, path in named.items():
                info = tarfile.TarInfo(name)  # of no time and no user
                info.size = path.stat().st_size
                with open(path, "rb") as handle:
                    archive.addfile(info, handle)
    return made.getvalue()


def copy(source: Path, target: Path) -> None:
    """Copy an output, a file or a student's folder without its card, which peft writes and nobody reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("README.md", ".*"))
    else:
        shutil.copyfile(source, target)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`distil start NN`: enter a class late. The stages before NN come out of a finished run that the package holds.

`benchmarks/start.py` packs that run, of profile `class`: what later stages read, and of each stage `meta.json`.
"""

from __future__ import annotations

import filecmp
import shutil
import tarfile
import tempfile
from pathlib import Path

from distil.pipeline.progress import why_again
from distil.workspace.errors import StageError
from distil.workspace.parameters import declared, effective, stage_name
from distil.workspace.stage import STAGES, Lock, notebook_path, read_meta, run_folder

PROFILE = "class"
KEPT_RUN = Path(__file__).with_name("class.tar.xz")


def start(number: str, run: str) -> int:
    """Put the kept stages before notebook `number` into a run, and print how to go on from there. Returns 0.

    Raises ParameterError for a stage that does not exist, and StageError if a file of such a stage lies in the run
    and is another one, before anything is written.
    """
    stage = stage_name(number)
    values, folder = effective(PROFILE, run, []), run_folder(run)
    before = STAGES[: STAGES.index(stage)]
    lock = Lock(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".start-") as scratch:
        kept = unpacked(before, Path(scratch))
        for file, place in kept.items():
            if place.exists() and not filecmp.cmp(file, place, shallow=False):
                raise StageError(
                    f"{place} is there already, of a run of your own, which is not written over: name another run, as "
                    f"in `distil start {number} --run {run}-late`"
                )
        for file, place in kept.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    lock.release()
    for done in before:
        print(f"{done:13} is there, finished: {folder / done}")
    if old := [why for done in before if (why := why_again(run, done, values[done]))]:
        commit = (read_meta(run, before[0]) or {})["commit"]
        print(f"They were made at commit {commit}, and since then {old[0]}: without --from they would be made anew.")
    print(f"\nGo on with\n\n  distil run --profile {PROFILE} --run {run} --from {stage[:2]}\n")
    print(f"or by hand in {notebook_path(stage)}. Its cell of parameters has to say\n")
    defaults = declared(stage)().model_dump()
    for name, value in values[stage].items():
        if name == "run" or value != defaults[name]:
            print(f"  {name} = {value!r}")
    return 0


def unpacked(stages: tuple[str, ...], scratch: Path) -> dict[Path, Path]:
    """{file in `scratch`: its place in the run} of the kept stages; of a stage `meta.json`, which ends it, is last.

    The run is the folder that `scratch` lies in.
    """
    if not stages:
        return {}
    with tarfile.open(KEPT_RUN) as archive:
        chosen = [member for member in archive if member.name.partition("/")[0] in stages]
        archive.extractall(scratch, chosen, filter="data")
    files = sorted(
        (path for path in scratch.rglob("*") if path.is_file()), key=lambda path: (path.name == "meta.json", path)
    )
    return {file: scratch.parent / file.relative_to(scratch) for file in files}

"""How far a run has come. `meta.json` of a stage says what is done; `run.json` what is running or has failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distil import __version__
from distil.workspace.environment import root
from distil.workspace.files import sha256
from distil.workspace.fingerprint import asked_with
from distil.workspace.stage import STAGES, notebook_digest, read_meta, run_folder


@dataclass(frozen=True)
class Progress:
    """Where a stage stands."""

    status: str  # not run, running, failed or done
    seconds: float | None = None
    note: str = ""  # the figures of a stage that is done, the error of one that failed


def report_folder(run: str) -> Path:
    return root() / "papermill_runs" / run


def read_run(run: str) -> dict:
    """`run.json`: {run, profile, stages}, where stages holds an entry for each that is running or has failed."""
    file = report_folder(run) / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"run": run, "stages": {}}


def progress(run: str) -> dict[str, Progress]:
    """Where each stage stands, run by hand or headless."""
    entries, found = read_run(run)["stages"], {}
    for stage in STAGES:
        if meta := read_meta(run, stage):
            found[stage] = Progress("done", meta["seconds"], headline(meta))
        elif entry := entries.get(stage):
            found[stage] = Progress(entry["status"], entry.get("seconds"), entry.get("error", ""))
        else:
            found[stage] = Progress("not run")
    return found


def headline(meta: dict) -> str:
    """The figures of a stage in one line."""
    return ", ".join(
        f"{name} {value}" for name, value in meta["figures"].items() if isinstance(value, int | float | str)
    )


def is_done(run: str, stage: str, params: dict) -> bool:
    """Has this stage run to its end with these parameters, prompts, this notebook and the inputs that lie there now?"""
    meta = read_meta(run, stage)
    if meta is None or meta.get("notebook") != notebook_digest(stage) or meta["versions"]["distil"] != __version__:
        return False
    if any(meta.get(name) != value for name, value in asked_with(stage).items()):
        return False
    if meta["params"] | params != meta["params"] | {"run": run}:  # a stage may record more than its parameters
        return False
    if not all((run_folder(run) / stage / name).exists() for name in meta["outputs"]):
        return False
    inputs = {name: run_folder(run) / name for name in meta["inputs"]}
    return all(path.exists() and sha256(path) == meta["inputs"][name] for name, path in inputs.items())

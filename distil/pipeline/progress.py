"""How far a run has come. `meta.json` of a stage says what is done; `run.json` what is running or has failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distil import __version__
from distil.workspace.environment import root
from distil.workspace.files import local, sha256
from distil.workspace.fingerprint import asked_with, files_named
from distil.workspace.stage import STAGES, notebook_digest, read_meta, run_folder

WORDS = {  # why a stage runs again, by what of `asked_with` is different
    "prompts": "a prompt changed",
    "extra": "the extra fields of requests changed (DISTIL_EXTRA)",
    "code": "the package's code changed",
}


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


def why_again(run: str, stage: str, params: dict) -> str | None:
    """Why a stage has to run with these parameters; "" if it has not come to its end, None if it need not.

    It need not if the same parameters, prompts, code, notebook and files would be read as when it ran, and what it
    wrote lies there as it wrote it.
    """
    meta = read_meta(run, stage)
    if meta is None:
        return ""
    recorded = meta["params"] | {"run": run}  # a stage may record more than its parameters
    for name, value in params.items():
        if name not in recorded or recorded[name] != value:
            return f"{name} is {value!r} and was {recorded.get(name)!r}"
    if meta["versions"]["distil"] != __version__:
        return f"distil is {__version__} and was {meta['versions']['distil']}"
    if meta.get("notebook") != notebook_digest(stage):
        return "its notebook changed"
    for name, value in asked_with(stage).items():
        if meta.get(name) != value:
            return WORDS[name]
    now, before = files_named(meta["params"]), meta["files"]
    now |= {name: sha256(path) for name in before if name not in now and (path := local(name))}
    if now != before:
        return f"{next(name for name in [*before, *now] if now.get(name) != before.get(name))} changed"
    here = {name: f"{stage}/{name}" for name in meta["outputs"]}
    for name, wrote in [*meta["inputs"].items(), *((here[name], wrote) for name, wrote in meta["outputs"].items())]:
        path = run_folder(run) / name
        if not path.exists() or sha256(path) != wrote:
            return f"{name} is {'not what it was' if path.exists() else 'missing'}"
    return None

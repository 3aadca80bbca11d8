"""Run the notebooks in order, headless: check everything first, skip what is done, resume what is not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from distil import __version__
from distil.evaluate import engines, suites
from distil.llm.endpoints import check_endpoint, check_listening
from distil.models import published, vllm_server
from distil.pipeline import report
from distil.problems.errors import ProblemError
from distil.problems.sources import load
from distil.publish import upload
from distil.verify.check import verifiable
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import sha256, write_text
from distil.workspace.parameters import effective, notebook_path, stage_name
from distil.workspace.profiles import DISK_GB
from distil.workspace.stage import RESPONSES, STAGES, Lock, run_folder


def say(text: str) -> None:
    print(text, flush=True)


def runs_folder(run: str) -> Path:
    return root() / "papermill_runs" / run


def read_state(run: str) -> dict:
    """What `run.json` says of each stage: {status, params, notebook, seconds, ...}; empty before the first run."""
    file = runs_folder(run) / "run.json"
    return json.loads(file.read_text()) if file.exists() else {"run": run, "stages": {}}


def fingerprint(stage: str, params: dict) -> dict:
    """What a stage's result depends on besides its input files."""
    digest = hashlib.sha256(notebook_path(stage).read_bytes()).hexdigest()
    return {"params": params, "notebook": digest, "distil": __version__}


def is_done(run: str, stage: str, params: dict, state: dict) -> bool:
    """Has this stage run to its end with these parameters, this notebook and the inputs that lie there now?"""
    meta_file = run_folder(run) / stage / "meta.json"
    entry = state["stages"].get(stage, {})
    if entry.get("status") != "done" or not meta_file.exists():
        return False
    if entry.get("fingerprint") != fingerprint(stage, params):
        return False
    meta = json.loads(meta_file.read_text())
    if not all((run_folder(run) / stage / name).exists() for name in meta["outputs"]):
        return False
    inputs = {name: run_folder(run) / name for name in meta["inputs"]}
    return all(path.exists() and sha256(path) == meta["inputs"][name] for name, path in inputs.items())


def check(profile: str, stages: list[str], values: dict[str, dict]) -> None:
    """Everything that can be known to fail is found here, before anything is written.

    Raises ChatError, ProblemError or StageError.
    """
    if "07_eval" in stages:
        upload.check(**{name: values["07_eval"][name] for name in ("push", "repository", "students", "run")})
    for stage in stages:
        if "endpoint" in values[stage]:
            check_endpoint(values[stage]["endpoint"])
    if "07_eval" in stages:
        suites.read(values["07_eval"]["suite"])
        engines.read(values["07_eval"]["engine"])
        published.check(values["07_eval"]["students"], values["07_eval"]["engine"])
    if "01_collect" in stages:
        v = values["01_collect"]
        rows = load(v["problems"], v["n_train"], v["n_test"], v["seed"])
        for split in ("train", "test") if len(stages) > 1 else ():
            if not any(verifiable(row) for row in rows if row["split"] == split):
                raise ProblemError(
                    f"problems={v['problems']}: no answer to a problem for {split} can be checked without a sandbox, "
                    "so that nothing could be learned or measured: add --to 01, or take other problems"
                )
    report.exporter()
    wanted, free = DISK_GB[profile], shutil.disk_usage(root()).free / 1e9
    if free < wanted:
        raise StageError(
            f"{free:.1f} GB of disk are free at {root()}, profile {profile} wants {wanted}: make room, "
            "or set DISTIL_HOME to a folder on a larger disk that holds the notebooks"
        )


def run(profile: str, name: str, first: str, last: str, sets: list[str], force: bool, dry_run: bool) -> int:
    """Execute the stages from `first` to `last`. Returns the exit code: 0, 1 if a stage failed.

    Raises ParameterError, ChatError, ProblemError or StageError before anything starts.
    """
    values = effective(profile, name, sets)
    begin, end = STAGES.index(stage_name(first)), STAGES.index(stage_name(last))
    stages = list(STAGES[begin : end + 1])
    if not stages:
        raise StageError(f"--from {first} lies after --to {last}")
    run_folder(name)
    check(profile, stages, values)
    if dry_run:
        for stage in stages:
            say(f"{stage}  {json.dumps(values[stage])}")
        return 0
    if "07_eval" in stages and values["07_eval"]["engine"] == vllm_server.VLLM:
        vllm_server.check("engine")
    if not (run_folder(name) / RESPONSES).exists():  # what is stored needs no server to be used again
        for stage in stages:
            check_listening(values[stage].get("endpoint", ""))
    lock = Lock(run_folder(name))
    for stage in stages:  # a notebook that somebody runs by hand holds its own stage's lock
        Lock(run_folder(name) / stage, wait=15).release()
    started = time.time()
    try:
        for stage in stages:
            if not execute(profile, name, stage, values[stage], force):
                return 1
    finally:
        report.write_index(name, read_state(name))
        lock.release()
    say(f"\nrun {name!r} done in {(time.time() - started) / 60:.1f} min")
    if stages[-1] == STAGES[-1]:
        say("\n" + (suites.measured(name) / "results.md").read_text())
    say(f"report: {runs_folder(name) / 'index.html'}")
    return 0


def execute(profile: str, run_name: str, stage: str, params: dict, force: bool) -> bool:
    """Run one notebook unless it is done. Returns False, with the reason printed, if it failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    state = read_state(run_name)
    if not force and is_done(run_name, stage, params, state):
        say(f"{stage:13} unchanged, skipped")
        return True
    folder = runs_folder(run_name)
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"status": "running", "fingerprint": fingerprint(stage, params), "started": time.strftime("%F %T")}

    def save(**more) -> None:
        entry.update(more)
        state["stages"][stage], state["profile"] = entry, profile
        write_text(folder / "run.json", json.dumps(state, indent=1) + "\n")
        report.write_index(run_name, state)

    save()
    say(f"{stage:13} running ...")
    os.environ |= {
        "DISTIL_BATCH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",  # bars of libraries that have no switch of their own
        "DISTIL_HOME": str(root().resolve()),
    }
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    begun, output, failure = time.time(), folder / f"{stage}.ipynb", None
    try:
        papermill.execute_notebook(
            notebook_path(stage),
            output,
            params,
            kernel_name="python3",
            progress_bar=False,
            store_widget_state=False,
            cwd=str(root()),
            extra_arguments=["--IPKernelApp.log_level=50"],  # it would speak of sockets and of its own end
        )
    except papermill.PapermillExecutionError as error:
        failure = {"cell": error.exec_count, "error": f"{error.ename}: {error.evalue}"}
    except DeadKernelError:
        failure = {"cell": None, "error": "the kernel died: it was killed, most often because memory ran out"}
    seconds = time.time() - begun
    report.write_html(output)
    if failure:
        save(status="failed", seconds=round(seconds, 1), **failure)
        where = f"cell [{failure['cell']}]" if failure["cell"] else "an unknown cell"
        say(
            f"{stage:13} FAILED in {where} after {seconds / 60:.1f} min\n  {failure['error']}\n"
            f"  notebook: {output}\n  mend the cause and give the same command again: what is done is kept"
        )
        return False
    save(status="done", seconds=round(seconds, 1))
    say(f"{stage:13} done in {seconds / 60:.1f} min  {report.headline(run_name, stage)}")
    return True

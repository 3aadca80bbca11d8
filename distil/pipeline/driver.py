"""Run the notebooks in order, headless: check everything first, skip what is done, resume what is not."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from distil.evaluate import suites
from distil.llm.endpoints import check_listening, no_connection
from distil.models import vllm_server
from distil.pipeline import drawing, estimate, minutes, preflight, report
from distil.pipeline.progress import progress, read_run, report_folder, why_again
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.parameters import effective, stage_name
from distil.workspace.stage import (
    LOCK_WAIT_SECONDS,
    RESPONSES,
    STAGES,
    Lock,
    forget,
    notebook_path,
    read_meta,
    run_folder,
)


def say(text: str) -> None:
    print(text, flush=True)


def run(
    profile: str,
    name: str,
    *,
    sets: list[str],
    first: str = STAGES[0],
    last: str = STAGES[-1],
    force: bool = False,
    dry_run: bool = False,
) -> int:
    """Execute the stages from `first` to `last`. Returns the exit code: 0, 1 if a stage failed.

    Raises ParameterError, ChatError, ProblemError or StageError before anything starts.
    """
    values = effective(profile, name, sets)
    begin, end = STAGES.index(stage_name(first)), STAGES.index(stage_name(last))
    stages = list(STAGES[begin : end + 1])
    if not stages:
        raise StageError(f"--from {first} lies after --to {last}")
    run_folder(name)
    preflight.check(profile, stages, values)
    todo = [stage for stage in stages if force or why_again(name, stage, values[stage]) is not None]
    if dry_run:
        for stage in stages:
            say(f"{stage}  {json.dumps(values[stage])}")
        if table := estimate.table(name, stages, values):
            say("\n" + table)
        say("\nmeasuring how fast this machine is, some seconds ...")
        say(minutes.table(todo, minutes.expected(todo, values)[0]))
        for endpoint in dict.fromkeys(asked.endpoint for asked in preflight.roles_asked(stages, values)):
            if endpoint.startswith("http"):
                why = no_connection(endpoint)
                say(f"{endpoint}: " + (f"nobody can be reached there: {why}" if why else "somebody listens there"))
        return 0
    if "07_eval" in stages and values["07_eval"]["engine"] == vllm_server.VLLM:
        vllm_server.check("engine")
    if not (run_folder(name) / RESPONSES).exists():  # what is stored needs no server to be used again
        for asked in preflight.roles_asked(stages, values):
            check_listening(asked.endpoint, asked.role if values[asked.stage][asked.role] else "endpoint")
    lock = Lock(run_folder(name))
    for stage in stages:  # a notebook that somebody runs by hand holds its own stage's lock
        Lock(run_folder(name) / stage, wait=LOCK_WAIT_SECONDS).release()
    started = time.time()
    try:
        if todo:
            say("measuring how fast this machine is, some seconds ...")
        say(minutes.tell(name, todo, values))
        for stage in stages:
            why = why_again(name, stage, values[stage])
            if why is None and force:
                why = "--force"
            if why is None:
                say(f"{stage:13} unchanged, skipped")
            elif not run_stage(profile, name, stage, values[stage], why):
                return 1
    finally:
        report.write_index(name)
        lock.release()
    say(f"\nrun {name!r} done in {(time.time() - started) / 60:.1f} min")
    if told := minutes.compared(name, todo):
        say("\n" + told)
    if stages[-1] == STAGES[-1]:
        say("\n" + (suites.measured(name) / "results.md").read_text(encoding="utf-8"))
    say(f"report: {report_folder(name) / 'index.html'}")
    return 0


def run_stage(profile: str, run_name: str, stage: str, params: dict, why: str = "") -> bool:
    """Run one notebook, saying why it is run again. Returns False, with the reason printed, if it failed."""
    output = report_folder(run_name) / f"{stage}.ipynb"
    started = {"status": "running", "started": time.strftime("%F %T")}
    forget(run_name, stage)
    note(profile, run_name, stage, started)
    expected = minutes.told(run_name)["stages"].get(stage, {}).get("minutes")
    say(f"{stage:13} running {f'again: {why} ' if why else ''}... since {time.strftime('%H:%M')}")
    begun = time.time()
    with drawing.shown(stage, expected):
        failure = execute_notebook(stage, output, params)
    if not failure and read_meta(run_name, stage) is None:
        failure = {"cell": None, "error": "it ended without stage.finish(), which writes meta.json"}
    seconds = time.time() - begun
    report.write_html(output)
    if failure:
        forget(run_name, stage)
        note(profile, run_name, stage, started | {"status": "failed", "seconds": round(seconds, 1)} | failure)
        where = f"cell [{failure['cell']}]" if failure["cell"] else "an unknown cell"
        say(
            f"{stage:13} FAILED in {where} after {seconds / 60:.1f} min\n  {failure['error']}\n"
            f"  notebook: {output}\n  mend the cause and give the same command again: what is done is kept"
        )
        return False
    note(profile, run_name, stage, None)
    say(f"{stage:13} done in {seconds / 60:.1f} min  {progress(run_name)[stage].note}")
    return True


def note(profile: str, run_name: str, stage: str, entry: dict | None) -> None:
    """Put into `run.json` that a stage is running or has failed; None: it is done, and meta.json says the rest."""
    state = read_run(run_name)
    state["profile"] = profile
    state["stages"].pop(stage, None)
    if entry:
        state["stages"][stage] = entry
    write_text(report_folder(run_name) / "run.json", json.dumps(state, indent=1) + "\n")
    report.write_index(run_name)


def execute_notebook(stage: str, output: Path, params: dict) -> dict | None:
    """Run a notebook in a process of its own; write it to `output` as it ran. Returns {cell, error} if it failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    from distil.pipeline.kernel import ThisPython

    os.environ |= {
        "DISTIL_BATCH": "1",
        "PYTHONUTF8": "1",  # libraries read their files in the system's encoding, on Windows none that holds all signs
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",  # bars of libraries that have no switch of their own
        # threads that spin while they wait take the core of a busy neighbour; the figures are the same
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "DISTIL_HOME": str(root().resolve()),
    }
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook_path(stage),
            output,
            params,
            kernel_name="python3",
            kernel_manager_class=ThisPython,
            progress_bar=False,
            store_widget_state=False,
            cwd=str(root()),
            extra_arguments=["--IPKernelApp.log_level=50"],  # it would speak of sockets and of its own end
        )
    except papermill.PapermillExecutionError as error:
        return {"cell": error.exec_count, "error": f"{error.ename}: {error.evalue}"}
    except DeadKernelError:
        return {"cell": None, "error": "the kernel died: it was killed, most often because memory ran out"}
    return None

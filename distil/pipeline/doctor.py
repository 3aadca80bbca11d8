"""`distil doctor` and `distil status`: what this machine has, and how far a run has come."""

from __future__ import annotations

import os
import shutil
from importlib import metadata, util

from distil.llm.endpoints import KEY_VARIABLES
from distil.pipeline.driver import read_state, runs_folder
from distil.pipeline.report import headline
from distil.workspace.environment import RECORDED_PACKAGES, environment, root
from distil.workspace.stage import STAGES, run_folder


def doctor() -> int:
    """Print what a run would find here. Returns 0, or 1 if something that every run needs is missing."""
    from distil.sandbox.confine import HOW, mechanism
    from distil.workspace.environment import choose_dtype

    missing = []
    facts = environment()
    print(f"project   {root()} (commit {facts['commit'] or 'unknown'})")
    print(f"cores     {facts['cores']}")
    print(f"disk      {shutil.disk_usage(root()).free / 1e9:.0f} GB free")
    how = mechanism()
    print(f"sandbox   {how}" if how else f"sandbox   none, code cannot be checked: {HOW}")
    print(f"vllm      {shutil.which('vllm') or 'none; endpoint=vllm and engine=vllm need it'}")
    if util.find_spec("torch"):
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        dtype, why = choose_dtype()
        print(f"GPU       {', '.join(gpus) or 'none'}")
        print(f"dtype     {str(dtype).removeprefix('torch.')}: {why}")
    for package in RECORDED_PACKAGES:
        try:
            print(f"{package:13} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            if package != "unsloth":
                missing.append(package)
            print(f"{package:13} missing" + (" (needed on a GPU only)" if package == "unsloth" else ""))
    for name in (*KEY_VARIABLES, "HF_TOKEN"):
        print(f"{name:15} {'set' if os.environ.get(name) else 'not set'}")
    if missing:
        print(f"missing: {', '.join(missing)}; install with `make install`")
    return int(bool(missing))


def status(run: str) -> int:
    """Print a line a stage. Returns 1 if the run does not exist."""
    state = read_state(run)
    if not state["stages"]:
        print(f"no run {run!r}; there are: {', '.join(sorted(p.name for p in runs_folder('').glob('*/'))) or 'none'}")
        return 1
    for stage in STAGES:
        entry = state["stages"].get(stage, {})
        minutes = f"{entry['seconds'] / 60:.1f} min" if "seconds" in entry else ""
        print(f"{stage:13} {entry.get('status', 'not run'):8} {minutes:9} {entry.get('error') or headline(run, stage)}")
    print(f"files: {run_folder(run)}\nreport: {runs_folder(run) / 'index.html'}")
    return 0

"""`distil doctor` and `distil status`: what this machine has, and how far a run has come."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, util

from distil.llm.keys import NAMED, OTHER, PROVIDERS, named
from distil.pipeline.progress import progress, report_folder
from distil.train import attention
from distil.workspace.environment import RECORDED_PACKAGES, environment, root
from distil.workspace.stage import KEPT, run_folder


def doctor() -> int:
    """Print what a run would find here. Returns 0, or 1 if something that every run needs is missing."""
    from distil.sandbox.confine import HOW, mechanism
    from distil.workspace.environment import choose_dtype

    missing = []
    facts = environment()
    print(f"project   {root()} (commit {facts['commit'] or 'unknown'})")
    print(f"system    {platform.system()} {platform.release()} ({platform.machine()})")
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
        why_not = attention.missing()
        print(f"attention {attention.in_use('trl', why_not) if why_not else attention.in_use('packed', None)}")
    for package in RECORDED_PACKAGES:
        try:
            print(f"{package:13} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            if package != "unsloth":
                missing.append(package)
            print(f"{package:13} missing" + (" (needed on a GPU only)" if package == "unsloth" else ""))
    keys = sorted({OTHER, "HF_TOKEN", *named().values(), *(known["key"] for known in PROVIDERS.values())})
    for name in filter(os.environ.get, keys):
        print(f"{name:18} set")
    print(f"keys not set: {', '.join(name for name in keys if not os.environ.get(name))}")
    for host, name in named().items():
        print(f"{NAMED}: {host} gets the key in {name}")
    if missing:
        print(f"missing: {', '.join(missing)}; install with `pip install -e .`")
    return int(bool(missing))


def status(run: str) -> int:
    """Print a line a stage. Returns 1 if the run does not exist."""
    if not run_folder(run).exists() and not report_folder(run).exists():
        folders = {p.name for where in ("artifacts", "papermill_runs") for p in (root() / where).glob("*/")} - {KEPT}
        print(f"no run {run!r}; there are: {', '.join(sorted(folders)) or 'none'}")
        return 1
    for stage, now in progress(run).items():
        minutes = "" if now.seconds is None else f"{now.seconds / 60:.1f} min"
        print(f"{stage:13} {now.status:8} {minutes:9} {now.note}")
    print(f"files: {run_folder(run)}\nreport: {report_folder(run) / 'index.html'}")
    return 0

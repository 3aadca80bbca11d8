"""Where this runs: the project folder, its commit, versions and hardware, and what the process has taken of memory."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

RECORDED_PACKAGES = "torch transformers trl datasets peft accelerate unsloth reasoning-gym aiohttp".split()
BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions that multiply in bfloat16: of x86, the last of ARM


def root() -> Path:
    """The project folder: $DISTIL_HOME, or the nearest folder upwards that holds `notebooks/`, or here."""
    if os.environ.get("DISTIL_HOME"):
        return Path(os.environ["DISTIL_HOME"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "01_collect.ipynb").is_file():
            return folder
    return here


def cores() -> int:
    """CPU cores that this process may use; where the system does not say, those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_ram_gb() -> float:
    """Peak resident memory of this process so far, in GiB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**30, 2)
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def give_memory_back() -> None:
    """Free what nobody uses any more, and return it to the system, before the next model is loaded.

    glibc keeps freed memory that lies between used pieces until it is told to trim; others have no such call.
    """
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def peak_vram_gb() -> float:
    """Peak GPU memory that torch reserved in this process, in GiB; 0 without torch or a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return round(torch.cuda.max_memory_reserved() / 2**30, 2)


def environment() -> dict:
    """Versions, machine and commit, as far as they can be known without importing anything heavy."""
    from distil import __version__

    versions = {"python": platform.python_version(), "distil": __version__}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"versions": versions, "gpu": gpu, "cores": cores(), "commit": commit()}


def commit() -> str | None:
    """The git commit of the project folder, with a + if files differ from it; None outside a repository.

    What the benchmarks wrote does not count as a difference: it is no part of what was measured.
    """

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", root(), *args], capture_output=True, check=True).stdout.decode().strip()

    try:
        changed = git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def quiet() -> bool:
    """True in a batch run, where progress bars only fill the log."""
    return os.environ.get("DISTIL_BATCH") == "1"


def choose_dtype() -> tuple:
    """(torch dtype, the reason in words): bfloat16 where the hardware has it, else what it is fast at.

    Of a CPU its instructions decide, not a measurement: a busy moment would give the next process, and a training that
    is resumed, another precision and so other weights.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"{name} computes in bfloat16"
        return torch.float16, f"{name} has no bfloat16"
    known = getattr(torch.cpu, "get_capabilities", dict)()  # a torch without it tells nothing
    if found := [name for name in BF16 if known.get(name)]:
        return torch.bfloat16, f"this CPU computes in bfloat16 ({', '.join(found)})"
    return torch.float32, "this CPU has no instructions for bfloat16"

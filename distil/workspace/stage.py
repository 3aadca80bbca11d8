"""A stage of a run: its folder, the files it reads and writes, and the record of how they came to be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from distil.workspace.environment import environment, peak_ram_gb, peak_vram_gb, root
from distil.workspace.errors import StageError
from distil.workspace.files import T, digest, read_jsonl, sha256, write_jsonl, write_text
from distil.workspace.fingerprint import asked_with, files_named
from distil.workspace.rows import Row

STAGES = (
    "01_collect",
    "02_rewrite",
    "03_judge",
    "04_finetune",
    "05_prefer",
    "06_reinforce",
    "07_eval",
)
KEPT = "reference"  # the folder beside the runs that is part of the repository
RESPONSES = "responses.jsonl"  # of a run: every answer of a live endpoint
LOCK_WAIT_SECONDS = 15  # the kernel of a killed run notices within seconds that its parent is gone
LOCK_POLL_SECONDS = 0.2  # between two tries to get a lock


def run_folder(run: str) -> Path:
    """The folder of a run. Raises StageError for a name that is not one plain folder name, or is taken."""
    if not run or run.endswith(".") or not all(c.isalnum() or c in "._-" for c in run):  # Windows drops a last dot
        raise StageError(f"run name {run!r}: use letters, digits, '.', '_' and '-' only, and no '.' at the end")
    if run.lower() == KEPT:  # macOS and Windows take both for one folder
        raise StageError(f"run name {run!r}: that folder is the repository's own result; choose another name")
    return root() / "artifacts" / run


class Lock:
    """An exclusive lock on a folder. The operating system releases it when its process ends, however it ends."""

    held: dict[Path, Lock] = {}  # this process's own, so that a cell run twice does not lock itself out

    def __init__(self, folder: Path, wait: float = 0.0):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / ".lock"
        if self.path in Lock.held:
            Lock.held[self.path].release()
        self.file_lock = FileLock(self.path, thread_local=False)
        try:
            self.file_lock.acquire(timeout=wait, poll_interval=LOCK_POLL_SECONDS)
        except Timeout:
            raise StageError(
                f"another process is writing {folder}: wait for it, stop it, or choose another run name"
            ) from None
        Lock.held[self.path] = self

    def release(self) -> None:
        """Release the lock; nothing happens if that was done before."""
        if Lock.held.get(self.path) is self:
            del Lock.held[self.path]
        self.file_lock.release()


def notebook_path(stage: str) -> Path:
    return root() / "notebooks" / f"{stage}.ipynb"


def notebook_digest(stage: str) -> str | None:
    """Digest of a notebook's cells, but for its parameters, which are recorded by value, and what cells print.

    None where there is no notebook.
    """
    path = notebook_path(stage)
    if not path.exists():
        return None
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return digest(*("".join(c["source"]) for c in cells if "parameters" not in c["metadata"].get("tags", [])))


def read_meta(run: str, stage: str) -> dict | None:
    """The record of a stage, `meta.json`; None if it has not run to its end."""
    file = run_folder(run) / stage / "meta.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def forget(run: str, stage: str) -> None:
    """Delete the record of a stage: it is not done, or no longer."""
    (run_folder(run) / stage / "meta.json").unlink(missing_ok=True)


def needed(run: str, name: str) -> Path:
    """Path of a stage's file or folder, `<stage>/<file>`. Raises StageError if that stage has not made it.

    What lies there of an earlier start, which the stage did not make when it last ran, is not taken for its own.
    """
    path, (stage, _, file) = run_folder(run) / name, name.partition("/")
    meta = read_meta(run, stage)
    if not path.exists():
        raise StageError(f"{path} is missing: run {stage} for run {run!r} first")
    if meta is None:
        raise StageError(
            f"{stage} of run {run!r} has not come to its end since it was last started, and {path} may be of an "
            f"earlier start: run {stage} first"
        )
    if file != "meta.json" and file not in meta["outputs"]:
        raise StageError(
            f"{path} is left from an earlier start of {stage}, and not made with the parameters of the last one: run "
            f"{stage} again so that it makes {file}, or do without it"
        )
    return path


class Stage:
    """One stage of one run.

    >>> stage = Stage("demo", "02_rewrite", seed=1)
    >>> chains = stage.read("01_collect/chains.jsonl")
    >>> stage.write("chains.jsonl", chains)
    >>> stage.finish(kept=len(chains))

    Keyword arguments are the effective parameters; they go into `meta.json`, with them the prompts, the extra fields of
    requests and the code in force, and digests of the files that parameters name. Raises StageError if another process
    works on the same stage, or (from `read`) if an earlier stage has not run.
    """

    def __init__(self, run: str, name: str, **params):
        if name not in STAGES:
            raise StageError(f"no stage {name!r}; there are {', '.join(STAGES)}")
        self.run, self.name, self.params = run, name, params
        self.folder = run_folder(run) / name
        self.lock = Lock(self.folder, wait=LOCK_WAIT_SECONDS)
        self.inputs: dict[str, str] = {}
        self.outputs: list[str] = []
        self.started = time.time()
        self.notebook = notebook_digest(name)
        self.asked_with = asked_with(name)
        self.files = files_named(params)
        forget(run, name)

    @property
    def store(self) -> Path:
        """The run's response store, shared by all stages: what one has asked, no other asks again."""
        return run_folder(self.run) / RESPONSES

    def input(self, name: str) -> Path:
        """Path of another stage's file or folder, `<stage>/<file>`; its digest goes into meta.json."""
        path = needed(self.run, name)
        self.inputs[name] = sha256(path)
        return path

    def read(self, name: str, row_type: type[T] = dict) -> list[T]:
        """Rows of another stage's JSON Lines file, `<stage>/<file>`: dictionaries, or objects of `row_type`."""
        return read_jsonl(self.input(name), row_type)

    def path(self, name: str) -> Path:
        """Path of a file or folder of this stage, noted as an output."""
        if name not in self.outputs:
            self.outputs.append(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def figure(self, name: str) -> Path:
        """Path without suffix for a picture of this stage; its PNG, SVG and CSV are noted as outputs."""
        for suffix in (".png", ".svg", ".csv"):
            self.path(f"{name}{suffix}")
        return self.folder / name

    def write(self, name: str, rows: Iterable[dict | Row]) -> None:
        """Write a JSON Lines file of this stage atomically."""
        write_jsonl(self.path(name), rows)

    def finish(self, **figures) -> dict:
        """Write `meta.json` and release the stage. `figures` are counts and measurements worth keeping."""
        meta = {
            "stage": self.name,
            "run": self.run,
            "params": self.params,
            "notebook": self.notebook,
            **self.asked_with,
            "files": self.files,
            "inputs": self.inputs,
            "outputs": {name: sha256(self.folder / name) for name in self.outputs},
            "figures": figures,
            "seconds": round(time.time() - self.started, 1),
            "peak_ram_gb": peak_ram_gb(),
            "peak_vram_gb": peak_vram_gb(),
            **environment(),
        }
        write_text(self.folder / "meta.json", json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
        self.lock.release()
        return meta

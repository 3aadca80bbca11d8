"""vLLM servers for what 07 measures: all adapters of a run on their base, or one whole model, under 07's own names."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from distil import memory
from distil.card import PLACES, home
from distil.engines import VLLM
from distil.stage import StageError, run_folder
from distil.student import base_of
from distil.weights import resolve

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # --max-lora-rank takes no others
PATIENCE = 1200  # seconds until a server has to be ready: the first start on a machine compiles
SHARE = 0.9  # of the memory that is free on the GPU


def students(run: str) -> tuple[str, dict[str, Path]]:
    """(base, {name: folder}) of a run's finished students. Raises StageError if 04 has not been run."""
    about = run_folder(run) / "04_finetune" / "meta.json"
    if not about.exists():
        raise StageError(f"{about} is missing: run 04_finetune first, distil run --run {run} --to 04")
    base = json.loads(about.read_text())["params"]["student"]
    names = [file.parent.name for file in sorted(about.parent.glob("*/tokenizer_config.json"))]
    places = {name: run_folder(run) / home(name) for name in (*names, *PLACES)}
    return base, {name: place for name, place in places.items() if (place / "tokenizer_config.json").exists()}


def command(run: str, more: Sequence[str]) -> list[str]:
    """`vllm serve` for the base and the students that are finished; `more` are options of its own.

    Raises StageError if there is no student, or one that is no adapter.
    """
    base, found = students(run)
    if not found:
        raise StageError(f"run {run!r} has no finished student: run 04_finetune, distil run --run {run} --to 04")
    for name, folder in found.items():
        if base_of(str(folder)) is None:
            raise StageError(
                f"{name} of run {run!r} is a whole model, no adapter, and a server has one model: serve each alone, "
                f"vllm serve {folder} --served-model-name {name}, and measure one after the other; answers are kept"
            )
    return [*adapted(base, found), *more]


def adapted(base: str, adapters: dict[str, Path]) -> list[str]:
    """`vllm serve` for a base, under that name, and adapters of it."""
    ranks = [json.loads((folder / "adapter_config.json").read_text())["r"] for folder in adapters.values()]
    rank = next((size for size in RANKS if size >= max(ranks)), max(ranks))
    modules = [f"{name}={folder.absolute()}" for name, folder in adapters.items()]
    return [*alone(base, "base"), "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", *modules]


def alone(model: str, name: str) -> list[str]:
    """`vllm serve` for one whole model. Sampling is left to who asks (`--generation-config vllm`)."""
    return ["vllm", "serve", resolve(model), "--served-model-name", name, "--generation-config", "vllm"]


def serve(run: str, more: Sequence[str]) -> int:
    """The command `distil serve`: become the server. Where there is no vLLM, print its command and return 2."""
    words = command(run, more)
    print(shlex.join(words), flush=True)
    if not shutil.which(words[0]):
        print("distil: vllm is not installed here (pip install vllm, on a machine with a GPU)", file=sys.stderr)
        return 2
    os.execvp(words[0], words)


def check(engine: str) -> None:
    """Raise StageError if `engine` is vllm and there is none here."""
    if engine == VLLM and not shutil.which("vllm"):
        raise StageError(
            "engine=vllm: vllm is not installed here (pip install vllm, on a machine with a GPU); "
            "give engine=transformers:75, or the URL of a server"
        )


class Servers:
    """What the engine `vllm` of 07 asks: a server for the run's adapters and their base, one for each other model.

    One runs at a time, from the first answer that is wanted of it until another is, or `stop`. It ends when nobody
    holds this object any more, as when its cell is run again, and with this process, however that ends (on Linux).
    `log` has its words.
    """

    process: subprocess.Popen | None = None

    def __init__(self, run: str):
        self.run, self.log = run, run_folder(run) / "server.log"
        self.names: list[str] = []
        self.url = ""

    def __del__(self):
        self.stop()

    def address(self, name: str, model: str) -> str:
        """The URL of a server that has `name`, whose weights are `model`: a folder, or an id. Raises StageError."""
        if self.process is None or self.process.poll() is not None or name not in self.names:
            self.stop()
            self._start(name, model)
        return self.url

    def stop(self) -> None:
        """End the server, if there is one."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process, self.names = None, []

    def _start(self, name: str, model: str) -> None:
        check(VLLM)
        base, found = students(self.run)
        adapters = {student: folder for student, folder in found.items() if base_of(str(folder))}
        if adapters and name in ("base", *adapters):
            words, names = adapted(base, adapters), ["base", *adapters]
        elif own := base_of(model):
            words, names = adapted(own, {name: Path(model)}), [name]
        else:
            words, names = alone(model, name), [name]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words += ["--host", "127.0.0.1", "--port", str(port), *memory_share()]
        with_parent = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        with open(self.log, "ab") as log:
            log.write(f"{shlex.join(words)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [*with_parent, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.url = f"http://127.0.0.1:{port}/v1"
        self._wait()
        self.names = names  # not before: who is interrupted while waiting starts anew

    def _wait(self) -> None:
        """Until the server answers. Raises StageError, with the log's last words, if it ends before or never does."""
        begun, directly = time.monotonic(), urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() - begun < PATIENCE:
            if (code := self.process.poll()) is not None:
                last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                raise StageError(
                    f"vllm ended with code {code} before it answered. Mend what {self.log} says, or give "
                    f"engine=transformers:75; its last lines: {' | '.join(last)}"
                )
            try:
                with directly.open(f"{self.url}/models", timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        self.stop()
        raise StageError(
            f"vllm was not ready after {PATIENCE} seconds; {self.log} says how far it came. Give the command again, or "
            "start a server yourself (distil serve) and name its address: engine=http://HOST:PORT/v1"
        )


def memory_share() -> list[str]:
    """vLLM's option for the share of the GPU's memory that it may take, of what others have left free."""
    here = memory.here()
    if here.place != "cuda":
        return []
    return ["--gpu-memory-utilization", f"{SHARE * here.gib / memory.whole_gpu():.2f}"]

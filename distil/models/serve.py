"""vLLM servers for what 07 measures: all adapters of a run on their base, or one whole model, under 07's own names."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from distil.models import formats
from distil.models.student import base_of
from distil.models.vllm_server import LOG, Server, serve_command
from distil.workspace.errors import StageError
from distil.workspace.stage import read_meta, run_folder
from distil.workspace.students import PLACES, home

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # --max-lora-rank takes no others
SHARE = 0.9  # of the GPU's free memory


def students(run: str) -> tuple[str, dict[str, Path]]:
    """(base, {name: folder}) of a run's finished students. Raises StageError if 04 has not been run."""
    about = run_folder(run) / "04_finetune" / "meta.json"
    if not about.exists():
        raise StageError(f"{about} is missing: run 04_finetune first, distil run --run {run} --to 04")
    made, found = json.loads(about.read_text(encoding="utf-8"))["params"], {}
    for name in (*sorted(made["students"].split(",")), *PLACES):
        stage, _, folder = home(name).partition("/")
        meta = read_meta(run, stage)  # what lies there of an earlier start may be of another base
        if meta and folder in meta["outputs"] and (run_folder(run) / home(name) / "tokenizer_config.json").exists():
            found[name] = run_folder(run) / home(name)
    return made["student"], found


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
    return [*lora_serve_command(base, found), *more]


def lora_serve_command(base: str, adapters: dict[str, Path]) -> list[str]:
    """`vllm serve` for a base, under that name, and adapters of it."""
    ranks = [json.loads((folder / "adapter_config.json").read_bytes())["r"] for folder in adapters.values()]
    rank = next((size for size in RANKS if size >= max(ranks)), max(ranks))
    modules = [f"{name}={folder.absolute()}" for name, folder in adapters.items()]
    options = ["--enable-lora", "--max-lora-rank", str(rank), *template_option(adapters)]
    return [*serve_command(base, "base"), *options, "--lora-modules", *modules]


def template_option(adapters: dict[str, Path]) -> list[str]:
    """`--chat-template`, where the students' own is pinned to their format: the server would take the base's for all.

    Raises StageError if they want different ones.
    """
    files = [folder / "chat_template.jinja" for folder in adapters.values()]
    texts = {file.read_text(encoding="utf-8") if file.exists() else "" for file in files}
    if not any(map(formats.PINNED.match, texts)):
        return []
    if len(texts) > 1:
        raise StageError(
            f"{', '.join(adapters)} were trained in different student formats, and a server renders chats in one: "
            "train them again in one format"
        )
    return ["--chat-template", str(files[0].absolute())]


def serve(run: str, more: Sequence[str]) -> int:
    """The command `distil serve`: become the server. Where there is no vLLM, print its command and return 2."""
    words = command(run, more)
    print(shlex.join(words), flush=True)
    if not shutil.which(words[0]):
        print("distil: vllm is not installed here (pip install vllm, on a machine with a GPU)", file=sys.stderr)
        return 2
    os.execvp(words[0], words)


class Servers:
    """The servers behind the engine `vllm` of 07: one for the run's adapters and their base, one for each other model.

    One runs at a time: from the first request to it until another is needed, or until `stop`.
    """

    def __init__(self, run: str):
        self.run, self.names = run, []
        self.server = Server(run_folder(run) / LOG, "engine")

    def address(self, name: str, model: str) -> str:
        """The URL of a server that has `name`, whose weights are `model`: a folder, or an id. Raises StageError."""
        if not self.server.runs or name not in self.names:
            words, self.names = self._for(name, model)
            self.server.start(words, SHARE)
        return self.server.url

    def stop(self) -> None:
        """End the server, if there is one."""
        self.server.stop()

    def _for(self, name: str, model: str) -> tuple[list[str], list[str]]:
        """(command, names that the server will have)."""
        base, found = students(self.run)
        adapters = {student: folder for student, folder in found.items() if base_of(str(folder))}
        if adapters and name in ("base", *adapters):
            return lora_serve_command(base, adapters), ["base", *adapters]
        if own := base_of(model):
            return lora_serve_command(own, {name: Path(model)}), [name]
        return serve_command(model, name), [name]

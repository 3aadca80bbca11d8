"""What the benchmarks of served students share: who is asked, where, and with which fields of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

from distil.evaluate import engines
from distil.llm.limits import Limits
from distil.models import formats, serve
from distil.models.published import TEACHER, teacher_of
from distil.models.student import identity
from distil.models.vllm_server import VLLM, check
from distil.models.weights import resolve
from distil.workspace.environment import environment
from distil.workspace.errors import StageError
from distil.workspace.stage import needed, read_meta


@dataclass(frozen=True)
class Served:
    """A model that a server answers for: its `name` there, and which `weights` these are.

    `engine` is the server's URL, or `vllm`; then `load` starts it, if it does not run, and gives its URL. `extra` are
    fields of each request.
    """

    name: str
    weights: str
    engine: str
    load: Callable[[], str]
    extra: dict

    def url(self) -> str:
        return self.load() if self.engine == VLLM else self.engine


def served(run: str, names: list[str], engine: str, teacher: str) -> tuple[list[Served], dict, serve.Servers]:
    """(students of a finished run by name, and the `teacher` at another URL if one is given; 07's parameters; servers).

    `engine` is `vllm`, which starts one server with the base and all adapters of the run, or the URL of one that has
    them. Raises StageError or ChatError for what cannot be asked.
    """
    needed(run, "07_eval/meta.json")
    params = {"student_format": "plain"} | read_meta(run, "07_eval")["params"]
    if engine != VLLM and "://" not in engine or teacher and "://" not in teacher:
        raise StageError(f"engine {engine!r}, teacher {teacher!r}: a server answers: give the URL of one, such as "
                         "http://HOST:8000/v1, or engine vllm")  # fmt: skip
    for address in filter(None, (engine, teacher)):
        engines.read(address)
    base, folders = serve.students(run)
    if len({*names}) < len(names) or not {*names} <= {"base", *folders}:
        raise StageError(f"students {','.join(names)}: name each once, of those of run {run!r}: "
                         f"{', '.join(('base', *folders))}")  # fmt: skip
    if engine == VLLM:
        check("engine")
        serve.command(run, [])  # refuses students that no one server can have
    servers, found = serve.Servers(run), []
    for name in names:
        folder = resolve(base) if name == "base" else str(folders[name])
        if name != "base":
            formats.require(name, folder, params["student_format"])

        def load(name: str = name, folder: str = folder) -> str:
            return servers.address(name, folder)

        fields = formats.request_fields(folder, params["student_format"]) | Limits.read().extra
        found.append(Served(name, identity(folder), engine, load, fields))
    if teacher:
        weights = teacher_of(read_meta(run, "01_collect"))
        found.append(Served(TEACHER, weights, teacher, lambda: teacher, Limits.read().extra))
    return found, params, servers


def facts() -> dict:
    """`environment`, with the GPU, and the version of vLLM where there is one."""
    import torch  # noqa: F401  environment() names the GPU only then

    found = environment()
    if util.find_spec("vllm"):
        found["versions"]["vllm"] = metadata.version("vllm")
    return found

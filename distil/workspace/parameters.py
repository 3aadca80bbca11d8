"""The parameters of a notebook: read from its tagged cell, merged with a profile and `--set`, and type-checked."""

from __future__ import annotations

import ast
import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from distil.workspace.environment import root
from distil.workspace.profiles import PROFILES
from distil.workspace.stage import STAGES

TYPES = {"int": int, "float": float, "str": str, "bool": bool}


class ParameterError(ValueError):
    """A profile, stage or parameter that does not exist, or a value of the wrong type."""


@dataclass(frozen=True)
class Parameter:
    type: type
    default: object


def notebook_path(stage: str) -> Path:
    return root() / "notebooks" / f"{stage}.ipynb"


def declared(stage: str) -> dict[str, Parameter]:
    """Parameters that a notebook declares, as annotated literals in its cell tagged `parameters`."""
    path = notebook_path(stage)
    if not path.exists():
        raise ParameterError(
            f"{path} is missing: run this in the folder that holds `notebooks/`, or name that folder in DISTIL_HOME"
        )
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = "".join(next(c["source"] for c in cells if "parameters" in c["metadata"].get("tags", [])))
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = Parameter(TYPES[node.annotation.id], ast.literal_eval(node.value))
    return found


def convert(value: object, parameter: Parameter, name: str) -> object:
    """`value` as the parameter's type. Text is read as a literal; anything lossy raises ParameterError."""
    wanted = parameter.type
    if isinstance(value, str) and wanted is not str:
        text = value.capitalize() if value.lower() in {"true", "false"} else value
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            pass
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ParameterError(f"{name}={value!r}: expected {wanted.__name__}, like {parameter.default!r}")
    return value


def unknown(kind: str, name: str, known: list[str]) -> ParameterError:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
    return ParameterError(f"unknown {kind} {name!r}{hint}")


def stage_name(text: str) -> str:
    """A stage from its name or its number (`02`). Raises ParameterError."""
    for stage in STAGES:
        if text in (stage, stage[:2], stage[1:2]):
            return stage
    raise unknown("stage", text, list(STAGES))


def effective(profile: str, run: str, sets: list[str]) -> dict[str, dict]:
    """Parameters of every stage: notebook defaults, then the profile, then `sets` (`[stage.]name=value`).

    Raises ParameterError for an unknown profile, stage or parameter, or a value of the wrong type.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, list(PROFILES))
    known = {stage: declared(stage) for stage in STAGES}
    values = {stage: {n: p.default for n, p in known[stage].items()} | {"run": run} for stage in STAGES}

    def put(stage: str | None, name: str, value: object) -> None:
        stages = [s for s in STAGES if name in known[s]] if stage is None else [stage]
        if not stages or name not in known[stages[0]]:
            raise unknown("parameter", name, sorted({n for s in ([stage] if stage else STAGES) for n in known[s]}))
        if name == "run":
            raise ParameterError("the run is named by --run, not --set")
        for s in stages:
            values[s][name] = convert(value, known[s][name], f"{s}.{name}")

    for section, changes in PROFILES[profile].items():
        for name, value in changes.items():
            put(None if section == "all" else section, name, value)
    for text in sets:
        left, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text}: write [stage.]name=value")
        section, dot, name = left.rpartition(".")
        put(stage_name(section) if dot else None, name, value)
    return values

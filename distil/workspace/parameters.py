"""The parameters of a notebook: read from its tagged cell, merged with a profile and `--set`, and type-checked."""

from __future__ import annotations

import ast
import difflib
import json

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from distil.workspace.profiles import PROFILES
from distil.workspace.stage import STAGES, notebook_path

TYPES = {"int": int, "float": float, "str": str, "bool": bool}


class ParameterError(ValueError):
    """A profile, stage or parameter that does not exist, or a value of the wrong type."""


def declared(stage: str) -> type[BaseModel]:
    """A model of the parameters that a notebook declares, as annotated literals in its cell tagged `parameters`.

    `papermill.inspect_notebook` reads them, too, but line by line: a default that holds `=` or `#`, such as
    `"held-out?samples=4"`, is left out or cut off. Raises ParameterError if the notebook is missing.
    """
    path = notebook_path(stage)
    if not path.exists():
        raise ParameterError(
            f"{path} is missing: run this in the folder that holds `notebooks/`, or name that folder in DISTIL_HOME"
        )
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cell = next(c for c in cells if "parameters" in c["metadata"].get("tags", []))
    fields = {
        node.target.id: (TYPES[node.annotation.id], ast.literal_eval(node.value))
        for node in ast.parse("".join(cell["source"])).body
        if isinstance(node, ast.AnnAssign)
    }
    return create_model(stage, __config__=ConfigDict(strict=True, allow_inf_nan=False), **fields)


def checked(known: type[BaseModel], values: dict[str, object]) -> dict[str, object]:
    """`values` in the types of a stage's parameters; text stands for any type. Raises ParameterError."""
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    others = {name: value for name, value in values.items() if name not in texts}
    try:
        parts = known.model_validate_strings(texts), known.model_validate(others)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        field = known.model_fields[name]
        raise ParameterError(
            f"{known.__name__}.{name}={values[name]!r}: expected {field.annotation.__name__}, like {field.default!r}"
        ) from None
    return {name: value for part in parts for name, value in part.model_dump(exclude_unset=True).items()}


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
    changes: dict[str, dict[str, object]] = {stage: {} for stage in STAGES}

    def change(section: str, name: str, value: object) -> None:
        stages = STAGES if section == "all" else [stage_name(section)]
        having = [stage for stage in stages if name in known[stage].model_fields]
        if not having:
            raise unknown("parameter", name, sorted({n for stage in stages for n in known[stage].model_fields}))
        if name == "run":
            raise ParameterError("the run is named by --run, not --set")
        for stage in having:
            changes[stage][name] = value

    for section, values in PROFILES[profile].items():
        for name, value in values.items():
            change(section, name, value)
    for text in sets:
        left, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text}: write [stage.]name=value")
        section, _, name = left.rpartition(".")
        change(section or "all", name, value)
    return {
        stage: known[stage]().model_dump() | checked(known[stage], changes[stage]) | {"run": run} for stage in STAGES
    }

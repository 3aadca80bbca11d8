"""The rule of imports holds; and a package that breaks it is found out, contract by contract."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

HEAVY = ("torch", "transformers", "trl", "unsloth", "datasets", "datasketch")  # seconds each
LINT = Path(sys.executable).with_name("lint-imports")


def broken(folder: Path) -> set[str]:
    """Ids of the contracts that the package in a folder breaks. `folder` holds pyproject.toml, too."""
    from importlinter.api import read_configuration

    names = {one["name"]: one["id"] for one in read_configuration(str(folder / "pyproject.toml"))["contracts_options"]}
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(folder)}
    done = subprocess.run([LINT, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    verdicts = {
        id: word for line in said.splitlines() for name, id in names.items() if line.startswith(name)
        for word in ("KEPT", "BROKEN") if word in line.removeprefix(name)
    }  # fmt: skip
    assert verdicts.keys() == set(names.values()), said
    assert (done.returncode == 0) == ("BROKEN" not in verdicts.values()), said
    return {id for id, verdict in verdicts.items() if verdict == "BROKEN"}


def imported_at_once(folder: Path) -> list[str]:
    """Heavy libraries that a module imports as soon as it is imported itself, `file: library` each."""
    return [
        f"{file.relative_to(folder)}: {name}"
        for file in sorted((folder / "distil").rglob("*.py"))
        for name in at_once(ast.parse(file.read_text()))
        if name in HEAVY
    ]


def at_once(node: ast.AST) -> Iterator[str]:
    """What is imported outside of functions."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").partition(".")[0]
    elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from at_once(child)


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(
        ROOT / "distil", tmp_path / "distil", ignore=lambda _, names: {"recorded", "__pycache__"} & {*names}
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(file: Path, line: str) -> None:
    file.parent.mkdir(exist_ok=True)
    with open(file, "a") as handle:
        handle.write(f"\n{line}\n")


def test_the_contracts_hold():
    assert broken(ROOT) == set()
    assert imported_at_once(ROOT) == []


@pytest.mark.parametrize(("file", "line", "contract"), [
    ("evaluate/tables.py", "from distil.chains import collect", "rooms"),  # a neighbour
    ("workspace/show.py", "def late():\n    import distil.train.log", "rooms"),  # upwards, inside a function, too
    ("attic/__init__.py", "", "rooms"),  # a room without a row
    ("llm/cache.py", "import distil.llm.client", "no-circles"),
    ("verify/math.py", "import benchmarks.harness", "not-from-outside"),
    ("verify/math.py", "import tests", "not-from-outside"),
])  # fmt: skip
def test_one_forbidden_import_breaks_its_contract(copy, file, line, contract):
    add(copy / "distil" / file, line)
    assert contract in broken(copy)


@pytest.mark.parametrize("line", [
    "import torch.nn", "from trl import SFTTrainer", "try:\n    import unsloth\nexcept ImportError:\n    pass",
    "class Held:\n    from transformers import Trainer",
])  # fmt: skip
def test_a_heavy_library_at_module_level_is_found(copy, line):
    add(copy / "distil/workspace/show.py", line)
    assert len(imported_at_once(copy)) == 1
    add(copy / "distil/workspace/show.py", "def late():\n    import torch")
    assert len(imported_at_once(copy)) == 1, "inside a function it costs nothing until it is called"

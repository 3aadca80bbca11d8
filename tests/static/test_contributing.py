"""CONTRIBUTING.md names the rooms that exist, in the order of the contract; each says what it holds."""

import ast
import re
import tomllib

import pytest
from conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROOMS = sorted(file.parent.name for file in (ROOT / "distil").glob("*/__init__.py"))


def named(text: str) -> list[str]:
    """The rooms of the tree in CONTRIBUTING.md, from top to bottom."""
    (tree,) = re.findall(r"(?ms)^```\ndistil/\n(.*?)^```", text)
    return [line.split()[0].removesuffix("/").removesuffix(".py") for line in tree.splitlines()]


def rows() -> list[list[str]]:
    """The rows of the contract, from top to bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [row.split(" | ") for row in layers]


def test_the_tree_is_the_one_that_exists():
    assert named(TEXT) == [room for row in rows() for room in row]
    assert sorted(named(TEXT)) == sorted([*ROOMS, "cli"])
    assert "wing" in named(TEXT.replace("  publish/", "  wing/     new\n  publish/")), "another tree is found out"


def test_neighbours_are_named():
    for row in rows():
        if len(row) == 2:
            assert "`{}` and\n`{}`".format(*row) in TEXT or "`{}` and `{}`".format(*row) in TEXT, row


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_holds(room):
    docstring = ast.get_docstring(ast.parse((ROOT / "distil" / room / "__init__.py").read_text()))
    assert docstring and docstring.split("\n")[0].endswith((".", "?"))


def test_paths_exist():
    for path in re.findall(r"`((?:distil|tests|artifacts|benchmarks|docs)/[\w./]+)`", TEXT):
        assert (ROOT / path).exists(), path


def test_commands_exist():
    targets = re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text())
    said = set(re.findall(r"`make (\w+)`", TEXT + (ROOT / "README.md").read_text()))
    assert said <= set(targets), said


def test_every_accident_is_held_by_a_test_that_exists():
    told = (ROOT / "tests" / "ACCIDENTS.md").read_text(encoding="utf-8")
    known = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"::(test_\w+)", told))
    assert len(named) > 100
    assert {name for name in named if f"def {name}(" not in known} == set()

"""Each script of benchmarks/ can be called as its first lines say, with nothing but the repository installed."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.py"))}


def imported(text: str) -> set[str]:
    """The first names of all modules that a script imports from, wherever it does."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module]
    return {node.module.partition(".")[0] for node in nodes}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_called_in_the_way_in_which_its_imports_are_found(name):
    text = SCRIPTS[name]
    said = ast.get_docstring(ast.parse(text)) or ""
    if f"python benchmarks/{name}.py" in said:  # the folder benchmarks/ is on the path then, the repository is not
        assert "benchmarks" not in imported(text), f"say python -m benchmarks.{name}"
    if f"python -m benchmarks.{name}" in said:
        assert not imported(text) & SCRIPTS.keys(), f"say python benchmarks/{name}.py"


def test_pages_call_scripts_as_the_scripts_say():
    files = [ROOT / "README.md", ROOT / "artifacts/README.md", *(ROOT / "docs/src").glob("*.j2")]
    for name, way in re.findall(r"python benchmarks/(\w+)(\.py)", " ".join(file.read_text("utf-8") for file in files)):
        assert f"python benchmarks/{name}{way}" in SCRIPTS[name]


@pytest.mark.parametrize("words", [["reference", "no-such-run"], ["gathered", "no-such-run", "no-such-folder"]])
def test_a_module_starts_with_nothing_on_the_path(words):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode and "No module named" not in done.stderr and "no-such" in done.stdout + done.stderr

"""The notebooks keep the limits of the design, and nothing in the repository gives away a machine or a key."""

from __future__ import annotations

import ast
import gzip
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import outputs
from distil.publish import leaks
from distil.workspace.parameters import declared
from distil.workspace.stage import STAGES

NOTEBOOKS = {stage: json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text()) for stage in STAGES}
SECRETS = re.compile(r"hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{20,}")
PATHS = re.compile(r"(?<![\w.])/(root|work|home|Users)/\w")


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.fixture(params=STAGES)
def notebook(request) -> dict:
    return NOTEBOOKS[request.param]


def test_every_stage_has_one_notebook():
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == sorted(STAGES)


def test_sizes(notebook):
    code = [source(c).split("\n") for c in notebook["cells"] if c["cell_type"] == "code"]
    words = sum(len(re.findall(r"\w+", source(c))) for c in notebook["cells"] if c["cell_type"] == "markdown")
    assert len(notebook["cells"]) <= 40
    assert len(code) <= 20
    assert sum(map(len, code)) <= 200
    assert max(map(len, code)) <= 25
    assert max(len(line) for cell in code for line in cell) <= 88
    assert 450 <= words <= 1000


def test_kernel_and_format(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in notebook["metadata"]
    assert notebook["nbformat"] == 4


def test_one_parameters_cell_of_annotated_literals_with_comments(notebook):
    cells = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    body = ast.parse(source(cells[0])).body
    assert 1 <= len(body) <= 18, "as many as fit into a cell that a reader can look over"
    for node, line in zip(body, source(cells[0]).split("\n"), strict=True):
        assert isinstance(node, ast.AnnAssign) and node.annotation.id in ("int", "float", "str", "bool")
        assert type(ast.literal_eval(node.value)).__name__ == node.annotation.id
        assert "  # " in line


def test_outputs_are_whole_and_of_this_code(notebook):
    """A change of code cells or of parameters needs `make outputs`; one of texts does not."""
    code = outputs.code_cells(notebook)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run once, in order"
    assert outputs.silent(notebook) == []
    ran = notebook["metadata"]["distil"]["ran"]
    assert re.fullmatch("[0-9a-f]{12}", ran["commit"])
    assert ran["digest"] == outputs.code_digest(notebook), "what to do: distil run --profile cpu, and make outputs"


def test_outputs_are_clean(notebook):
    assert len(json.dumps(notebook, indent=1, ensure_ascii=False).encode()) < outputs.LARGEST
    assert notebook["metadata"].keys() == {"kernelspec", "language_info", "distil"}
    for cell in notebook["cells"]:
        assert cell["metadata"].keys() <= {"tags"}
        for output in cell.get("outputs", []):
            data = output.get("data", {"stdout": output.get("text")})
            assert output["output_type"] == "display_data" or output["name"] == "stdout"
            assert data.keys() <= {"text/plain", "text/html", "image/png", "stdout"}
            text = "".join("".join(lines) for kind, lines in data.items() if kind != "image/png")
            assert text.strip() and "<IPython" not in text and not re.search(r"\x1b|\r", text), cell["id"]
            assert leaks.in_text(text) + leaks.paths(text, everywhere=True) == [], cell["id"]


def test_anatomy(notebook):
    texts = [source(c) for c in notebook["cells"]]
    assert texts[0].startswith("# 0") and "colab" in texts[0] and "| reads | writes |" in texts[0]
    assert "| profile | minutes |" in texts[0]
    assert "except ImportError" in texts[1]
    assert any(t.startswith("## Check") for t in texts)
    assert "## What we saw" in texts[-1] and "<details>" in texts[-1]
    check = texts[next(i for i, t in enumerate(texts) if t.startswith("## Check")) + 1]
    asserts = [node for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Assert)]
    assert len(asserts) >= 3 and all(node.msg is not None for node in asserts), "each assertion has its sentence"


def test_every_stage_declares_run_and_seed():
    for stage in STAGES:
        assert {"run", "seed"} <= declared(stage).model_fields.keys()


def tracked() -> list[str]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def test_no_secrets_and_no_paths_of_a_machine():
    for name in tracked():
        if name.endswith((".xz", ".png")) or name == "tests/static/test_notebooks.py":
            continue
        data = (ROOT / name).read_bytes()
        text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
        assert not SECRETS.search(text), name
        assert not PATHS.search(text), name


def test_lock_names_versions_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    marker = r"(; (sys_platform == \"\w+\"|python_full_version [<>]=? \"[\d.]+\"))?"
    assert all(re.fullmatch(rf"[a-z0-9-]+==[\w.]+{marker}", line) for line in lines)


def test_import_is_cheap():
    heavy = {"torch", "transformers", "trl", "datasets", "datasketch"}
    code = f"import distil.cli, distil.pipeline.driver, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr

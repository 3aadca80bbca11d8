"""The outputs of a run get into the repository's notebooks clean, and those of another source not at all."""

import base64
import io
import json
import re

import nbformat
import pytest
from PIL import Image, ImageChops

from benchmarks import outputs
from distil.pipeline.progress import report_folder
from distil.workspace import show
from distil.workspace.files import write_text
from distil.workspace.stage import run_folder

STAGE = "01_collect"
SECOND = 2  # place of the cell after the parameters


def picture() -> str:
    made = io.BytesIO()
    Image.radial_gradient("L").convert("RGBA").save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def opened(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


def put(notebook: dict, commit: str = "0123456789ab") -> None:
    """Write an executed notebook, and the record of its stage, to where run cpu has them."""
    write_text(run_folder("cpu") / STAGE / "meta.json", json.dumps({"commit": commit}))
    write_text(report_folder("cpu") / f"{STAGE}.ipynb", nbformat.writes(notebook))


@pytest.fixture
def ran(project, monkeypatch) -> dict:
    """Notebook 01 as papermill leaves it."""
    monkeypatch.setattr(outputs, "NOTEBOOKS", project / "notebooks")
    monkeypatch.setattr(outputs, "STAGES", (STAGE,))
    notebook = nbformat.read(project / f"notebooks/{STAGE}.ipynb", 4)
    notebook.metadata["papermill"] = {"parameters": outputs.defaults(notebook) | {"run": "cpu"}, "start_time": "now"}
    for count, cell in enumerate(outputs.code_cells(notebook), 1):
        cell.metadata["papermill"] = {"status": "completed", "duration": 0.1}
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="as it ran\n")] if count > SECOND else []
    injected = nbformat.v4.new_code_cell("# Parameters\nseed = 0", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(3, injected)
    return notebook


def first_shown(notebook: dict) -> dict:
    return outputs.code_cells(notebook)[SECOND]


def test_what_ran_is_put_in_clean(ran, project, monkeypatch, capsys):
    ours = project / f"notebooks/{STAGE}.ipynb"
    before = nbformat.read(ours, 4)
    made = []
    monkeypatch.setattr(show, "_display", made.append)
    show.table(["set", "rows"], [["a < b", 7]])
    show.difference("1\nboth", "2\nboth", "two")
    first_shown(ran).outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=f"10%\r100%\n\x1b[31mred\x1b[0m {project}/artifacts\n"),
        nbformat.v4.new_output("stream", name="stderr", text="a warning\n"),
        nbformat.v4.new_output("stream", name="stdout", text="more\n"),
        *(nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": "<HTML>"}) for html in made),
        nbformat.v4.new_output("display_data", {"image/png": picture(), "image/svg+xml": "<svg/>"}, metadata={"x": 1}),
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}),
    ]
    put(ran)
    assert outputs.main(["cpu", "--check"]) == 1 and nbformat.read(ours, 4) == before, "nothing is written"
    assert outputs.main([]) == 0
    after = nbformat.read(ours, 4)
    nbformat.validate(after)
    assert [(c.id, c.source, c.metadata) for c in after.cells] == [(c.id, c.source, c.metadata) for c in before.cells]
    assert [c.execution_count for c in outputs.code_cells(after)] == list(range(1, len(outputs.code_cells(before)) + 1))
    assert after.metadata.keys() == {"kernelspec", "language_info", "distil"}
    stream, a_table, a_box, a_picture = first_shown(after).outputs
    assert stream.text == "100%\nred artifacts\nmore\n"
    assert a_table.data == {"text/html": made[0].replace("</tr>", "</tr>\n"), "text/plain": "set    rows\na < b  7"}
    assert a_box.data["text/plain"] == "two\n- 1\n+ 2\nboth"
    bare = re.sub(" style='[^']*'", "", a_box.data["text/html"])
    assert bare == "<b>two</b><pre><del>1</del>\n<ins>2</ins>\n<span>both</span></pre>", "as GitHub shows it"
    assert a_picture.data.keys() == {"image/png", "text/plain"} and a_picture.metadata == {}
    assert len(a_picture.data["image/png"]) < len(picture())
    apart = ImageChops.difference(opened(a_picture.data["image/png"]), opened(picture()))
    assert max(high for _, high in apart.getextrema()) <= 16, "it looks the same"
    assert outputs.main(["--check"]) == 0, capsys.readouterr().out


def test_texts_may_change_and_code_may_not(ran):
    before = outputs.code_digest(ran)
    ran.cells[0].source += "\nmore"
    outputs.code_cells(ran)[0].source = "%pip install another/repository"
    assert outputs.code_digest(ran) == before, "neither texts nor where the package comes from decide an output"
    parameters = outputs.code_cells(ran)[1]
    parameters.source = parameters.source.replace("seed: int = 0", "seed: int = 1")
    other_defaults = outputs.code_digest(ran)
    outputs.code_cells(ran)[-1].source += "\n# more"
    assert len({before, other_defaults, outputs.code_digest(ran)}) == 3


def spoil(ran: dict, how: str) -> None:
    if how == "its code cells are not those":
        first_shown(ran).source += "\nprint(1)"
    elif how == "the notebook's own seed":
        ran.metadata.papermill.parameters["seed"] = 1
    elif how == "is failed":
        first_shown(ran).metadata.papermill.status = "failed"
    elif how == "no output of the cells 01-03":
        first_shown(ran).outputs = []
    elif how == "holds the path /tmp/somebody":
        first_shown(ran).outputs[0].text = "see /tmp/somebody/x"
    elif how == "are the most":
        first_shown(ran).outputs[0].text = "long " * outputs.LARGEST


@pytest.mark.parametrize(
    "why",
    [
        "its code cells are not those",
        "the notebook's own seed",
        "is failed",
        "no output of the cells 01-03",
        "holds the path /tmp/somebody",
        "are the most",
        "not committed",
        "not there, not done",
    ],
)
def test_what_cannot_be_its_outputs_is_refused(ran, project, capsys, why):
    ours = project / f"notebooks/{STAGE}.ipynb"
    before = ours.read_bytes()
    spoil(ran, why)
    if why != "not there, not done":
        put(ran, "0123456789ab+" if why == "not committed" else "0123456789ab")
    assert outputs.main(["cpu"]) == 2
    said = capsys.readouterr().err
    assert STAGE in said and why in said
    assert ours.read_bytes() == before

"""A stage is recorded once, in meta.json, whether it ran by hand or headless."""

import json

import pytest

from distil.cli import main
from distil.pipeline import driver
from distil.pipeline.progress import progress, read_run, report_folder, why_again
from distil.workspace.fingerprint import asked_with
from distil.workspace.parameters import effective
from distil.workspace.stage import Stage, notebook_path, read_meta, run_folder


@pytest.fixture
def params(project) -> dict:
    return effective("cpu", "r", [])["01_collect"]


def is_done(run: str, stage: str, params: dict) -> bool:
    return why_again(run, stage, params) is None


def by_hand(params: dict) -> None:
    """What the cells of 01 do, as far as its record goes."""
    stage = Stage("r", "01_collect", **{name: value for name, value in params.items() if name != "run"}, found=2)
    stage.write("problems.jsonl", [{"id": "a"}])
    stage.finish(problems=1)


def rewrite(change) -> None:
    path = notebook_path("01_collect")
    notebook = json.loads(path.read_text())
    change(notebook["cells"])
    path.write_text(json.dumps(notebook))


def test_a_stage_run_by_hand_is_done(project, params, capsys):
    by_hand(params)
    assert is_done("r", "01_collect", params) and read_run("r") == {"run": "r", "stages": {}}
    assert main(["status", "--run", "r"]) == 0
    assert "01_collect    done     0.0 min   problems 1" in capsys.readouterr().out
    assert main(["run", "--run", "r", "--to", "01"]) == 0
    assert "01_collect    unchanged, skipped" in capsys.readouterr().out
    assert "<td>01_collect</td>" in (report_folder("r") / "index.html").read_text(), "there is no page to link"


def test_what_is_not_done(project, params):
    assert not is_done("r", "01_collect", params)
    by_hand(params)
    assert not is_done("r", "01_collect", params | {"samples": 3})
    assert not is_done("r", "01_collect", params | {"new": 1}), "a parameter that the record does not have"
    (run_folder("r") / "01_collect" / "problems.jsonl").unlink()
    assert not is_done("r", "01_collect", params)
    by_hand(params)
    rewrite(lambda cells: cells[-2]["source"].append("\nprint(1)"))
    assert not is_done("r", "01_collect", params)


def test_what_a_notebook_printed_and_its_own_parameters_do_not_count(project, params):
    by_hand(params)

    def run_and_save(cells: list[dict]) -> None:
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        code[-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1"]}]
        next(c for c in code if "parameters" in c["metadata"].get("tags", []))["source"][1] = "seed: int = 5  # mine\n"

    rewrite(run_and_save)
    assert is_done("r", "01_collect", params)


def test_other_prompts_are_another_stage(project, params, monkeypatch):
    by_hand(params)
    monkeypatch.setenv("DISTIL_PROMPTS", str(project))
    assert is_done("r", "01_collect", params), "an empty folder replaces nothing"
    (project / "notes.md").write_text("no prompt of the package has this name")
    assert is_done("r", "01_collect", params)
    (project / "fast.md").write_text("Answer briefly: {question}")
    assert not is_done("r", "01_collect", params)
    by_hand(params)
    assert is_done("r", "01_collect", params)
    (project / "fast.md").write_text("Answer at length: {question}")
    assert not is_done("r", "01_collect", params)


def test_students_are_asked_with_their_own_prompts(project, monkeypatch):
    before = {stage: asked_with(stage)["prompts"] for stage in ("01_collect", "04_finetune", "07_eval")}
    monkeypatch.setenv("DISTIL_PROMPTS", str(project))
    (project / "fast.md").write_text("Answer briefly: {question}")
    after = {stage: asked_with(stage)["prompts"] for stage in before}
    assert [name for name in before if before[name] != after[name]] == ["01_collect"]
    (project / "student.md").write_text("{question}")
    assert asked_with("07_eval")["prompts"] != before["07_eval"]


def test_other_extra_fields_are_another_stage(project, params, monkeypatch):
    by_hand(params)
    monkeypatch.setenv("DISTIL_JUDGE_EXTRA", '{"enable_thinking": false}')
    assert not is_done("r", "01_collect", params)
    by_hand(params)
    assert read_meta("r", "01_collect")["extra"] == {"DISTIL_JUDGE_EXTRA": {"enable_thinking": False}}
    monkeypatch.setenv("DISTIL_JUDGE_EXTRA", '{"enable_thinking":   false}')
    assert is_done("r", "01_collect", params), "written otherwise, it says the same"
    assert asked_with("04_finetune")["extra"] == {}, "nobody is asked there"


@pytest.mark.parametrize(("failure", "said"), [
    ({"cell": 3, "error": "ValueError: no"}, "ValueError: no"),
    (None, "it ended without stage.finish(), which writes meta.json"),
])  # fmt: skip
def test_a_stage_that_fails_leaves_no_record(project, params, monkeypatch, capsys, failure, said):
    by_hand(params)
    monkeypatch.setattr(driver, "execute_notebook", lambda *_: failure)
    assert main(["run", "--run", "r", "--to", "01", "--force"]) == 1
    now = progress("r")["01_collect"]
    assert (now.status, now.note) == ("failed", said) and read_meta("r", "01_collect") is None
    assert "01_collect    FAILED in" in capsys.readouterr().out
    by_hand(params)
    assert progress("r")["01_collect"].status == "done", "whatever failed before"


def test_a_stage_that_succeeds_is_in_one_record(project, params, monkeypatch):
    monkeypatch.setattr(driver, "execute_notebook", lambda stage, output, params: by_hand(params))
    assert main(["run", "--run", "r", "--to", "01"]) == 0
    assert read_run("r") == {"run": "r", "profile": "cpu", "stages": {}}
    assert is_done("r", "01_collect", params)

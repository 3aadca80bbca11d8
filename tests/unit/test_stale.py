"""What made a result changed, and the result is not taken for one of today."""

import json
import os
import shutil

import pytest

from distil.cli import main
from distil.evaluate import settings
from distil.models import published, serve
from distil.models.student import identity
from distil.pipeline import driver, report
from distil.pipeline.progress import why_again
from distil.train.common import ResultCache
from distil.workspace import files, fingerprint
from distil.workspace.errors import StageError
from distil.workspace.files import local, sha256, write_text
from distil.workspace.parameters import effective
from distil.workspace.rows import Row
from distil.workspace.stage import STAGES, Stage, notebook_path, run_folder


@pytest.fixture
def params(project) -> dict:
    return effective("cpu", "r", [])["01_collect"]


@pytest.fixture
def source(monkeypatch):
    """Change what a file of the package says."""

    def change(name: str, text: str) -> None:
        monkeypatch.setitem(fingerprint.SOURCES, name, text.encode())
        fingerprint.said.cache_clear()

    yield change
    fingerprint.said.cache_clear()


def by_hand(params: dict, text: str = "a") -> None:
    stage = Stage("r", "01_collect", **{name: value for name, value in params.items() if name != "run"})
    stage.write("problems.jsonl", [{"id": text}])
    stage.finish(problems=1)


def model(folder, weights: str = "w"):
    """A folder that passes for a model."""
    write_text(folder / "config.json", "{}")
    write_text(folder / "model.safetensors", weights)
    return folder


def test_a_stage_whose_code_changed_is_run_again_and_says_why(params, source, monkeypatch, capsys):
    by_hand(params)
    text = fingerprint.SOURCES["verify/math.py"].decode()
    source("verify/math.py", '"""Other words."""\n\n' + text.partition('"""\n')[2] + "\n# a remark\n")
    assert why_again("r", "01_collect", params) is None, "what is said about code changes no result"
    source("verify/math.py", text + "\nOTHER = 1\n")
    monkeypatch.setattr(driver, "execute_notebook", lambda stage, output, params: by_hand(params))
    assert main(["run", "--run", "r", "--to", "01"]) == 0
    assert "01_collect    running again: the package's code changed ..." in capsys.readouterr().out
    assert why_again("r", "01_collect", params) is None


@pytest.mark.parametrize(("name", "stages"), [
    ("verify/math.py", STAGES), ("train/sft.py", STAGES[3:]), ("publish/cards.py", STAGES[6:]),
    ("pipeline/driver.py", ()), ("workspace/profiles.yaml", ()), ("problems/suites.yaml", STAGES),
])  # fmt: skip
def test_which_stages_rest_on_a_file(source, name, stages):
    before = {stage: fingerprint.asked_with(stage)["code"] for stage in STAGES}
    source(name, "other: 1")
    assert tuple(stage for stage in STAGES if fingerprint.asked_with(stage)["code"] != before[stage]) == tuple(stages)


def test_the_rooms_that_do_not_count_are_not_imported_by_the_notebook(project):
    for stage in STAGES:
        text = notebook_path(stage).read_text()
        for room, first in fingerprint.FIRST_USED.items():
            assert stage >= first or f"distil.{room[:-1]}" not in text, (stage, room)


def test_what_a_stage_wrote_is_looked_at(params):
    by_hand(params)
    by_hand(params | {"n_train": 3}, "b")  # in JupyterLab, in the same run
    assert why_again("r", "01_collect", params) == "n_train is 500 and was 3"
    by_hand(params)
    write_text(run_folder("r") / "01_collect" / "problems.jsonl", '{"id": "mine"}\n')
    assert why_again("r", "01_collect", params) == "01_collect/problems.jsonl is not what it was"


def test_a_file_of_ones_own_that_was_changed_is_read_again(project, params):
    params |= {"problems": "mine.jsonl?against=exam.jsonl"}
    for name in ("mine", "exam"):
        (project / f"{name}.jsonl").write_text("{}\n")
    by_hand(params)
    assert why_again("r", "01_collect", params) is None
    (project / "exam.jsonl").write_text('{"question": "1?"}\n')
    assert why_again("r", "01_collect", params) == "exam.jsonl changed"
    by_hand(params)
    (project / "mine.jsonl").unlink()
    assert why_again("r", "01_collect", params) == "mine.jsonl changed"


def test_names_are_not_taken_for_folders(project):
    for name in ("data", "me/tiny", "starter", "cpu"):
        (project / name).mkdir(parents=True)
    named = {"push": "data", "repository": "me/tiny", "problems": "starter", "engine": "http://localhost:8000/v1"}
    assert fingerprint.files_named(named) == {}
    model(project / "base")
    assert list(fingerprint.files_named({"student": "base", "seed": 0, "judge": f"{project}/base@vllm"})) == [
        "base",
        f"{project}/base",
    ]


def test_a_model_in_a_folder_is_known_by_what_it_holds(project, tmp_path):
    first = identity(str(model(project / "snapshots" / "mine")))
    assert identity("snapshots/mine") == identity(str(shutil.copytree(project / "snapshots/mine", tmp_path / "copy")))
    model(project / "snapshots" / "mine", "v")
    assert identity("snapshots/mine") not in (first, "snapshots/mine")
    assert identity("OWNER/NAME") == "OWNER/NAME", "on the Hub"
    write_text(project / "adapter" / "adapter_config.json", json.dumps({"base_model_name_or_path": "snapshots/mine"}))
    adapted = identity("adapter")
    model(project / "snapshots" / "mine", "w")
    assert identity("adapter") != adapted, "its base was replaced"


def test_a_row_of_07_is_known_by_what_its_folder_holds(project):
    stage, folder = Stage("r", "07_eval"), model(project / "snapshots" / "mine")
    for name, base in ((str(folder), "x"), ("base", "snapshots/mine")):
        model(folder)
        place, before = published.place(name, base, stage)
        assert place == str(folder)
        model(folder, "v")
        assert published.place(name, base, stage)[1] != before


def test_a_folder_below_one_called_checkpoints_has_a_digest(tmp_path):
    folder = model(tmp_path / "checkpoints" / ".hidden" / "mine")
    before = {sha256(folder), sha256(folder / "config.json"), sha256(tmp_path / "checkpoints" / ".hidden")}
    assert len(before) == 3, "of three different things"
    for left_out in ("checkpoints/a", "checkpoint-5/a", ".cache/a", "a.lock"):
        write_text(folder / left_out, "x")
    assert sha256(folder) in before
    model(folder, "v")
    assert sha256(folder) not in before


def test_large_files_are_read_once_until_they_change(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 3)
    path, opened = tmp_path / "w", []
    path.write_text("weights")
    real = files.hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda handle, kind: opened.append(1) or real(handle, kind))
    first = sha256(path)
    assert sha256(path) == first and len(opened) == 1
    path.write_text("WEIGHTS")
    os.utime(path, ns=(1, 1))
    assert sha256(path) != first and len(opened) == 2


def test_a_student_trained_by_other_code_is_trained_again(tmp_path, source):
    cache = ResultCache(tmp_path / "sft.json", {"rows": "1"}, Row)
    assert cache.write(Row()) == cache.read()
    source("pipeline/driver.py", "other = 1")
    assert cache.read() is not None
    source("train/sft.py", "other = 1")
    assert cache.read() is None


def test_what_an_earlier_start_left_is_not_taken_for_this_ones(project):
    stage = Stage("r", "04_finetune", student="b", students="fast,slow")
    for name in ("fast", "slow"):
        write_text(stage.path(name) / "tokenizer_config.json", "{}")
    stage.finish()
    assert list(serve.students("r")[1]) == ["fast", "slow"]
    stage = Stage("r", "04_finetune", student="other", students="fast")
    with pytest.raises(StageError, match="04_finetune of run 'r' has not come to its end since it was last started"):
        Stage("r", "05_prefer").input("04_finetune/fast")
    write_text(stage.path("fast") / "tokenizer_config.json", "{}")
    stage.finish()
    assert Stage("r", "05_prefer").input("04_finetune/fast") and list(serve.students("r")[1]) == ["fast"]
    with pytest.raises(StageError, match="slow is left from an earlier start of 04_finetune"):
        Stage("r", "05_prefer").input("04_finetune/slow")


def test_a_measurement_that_begins_removes_what_another_showed(project):
    stage = Stage("r", "07_eval")
    shown = ("results.csv", "README.md", "pass_at_k.svg", "differences.jsonl")
    for name in (*shown, "completions/fast.jsonl", "harder/results.csv"):
        write_text(stage.folder / name, "old")
    settings.write(stage, "", {})
    assert not [name for name in shown if (stage.folder / name).exists()]
    assert (stage.folder / "completions/fast.jsonl").exists() and (stage.folder / "harder/results.csv").exists()


def test_a_page_of_an_earlier_start_is_not_linked(project, params):
    page = report.report_folder("r") / "01_collect.html"
    by_hand(params)
    write_text(page, "<html>")
    report.write_index("r")
    assert 'href="01_collect.html"' in (page.parent / "index.html").read_text()
    os.utime(page, (1, 1))
    by_hand(params)
    report.write_index("r")
    assert "href" not in (page.parent / "index.html").read_text()


def test_a_relative_name_is_below_the_project_whoever_asks(project, monkeypatch, tmp_path_factory):
    model(project / "mine")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert local("mine") == project / "mine" and local("") is None and local("none") is None


@pytest.mark.parametrize("students", ["base,", "base,fast,base", ""])
def test_rows_of_the_table_that_cannot_be_meant(students):
    with pytest.raises(StageError, match="name each row of the table once"):
        published.check(students, "transformers:8")

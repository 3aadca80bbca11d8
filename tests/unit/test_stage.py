import json
import signal
import subprocess
import sys

import pytest
from factories import a_chain

from distil.workspace import stage as stages
from distil.workspace.errors import StageError
from distil.workspace.files import append_jsonl, read_jsonl, write_jsonl
from distil.workspace.rows import Chain
from distil.workspace.stage import Stage, run_folder


def test_rows_come_back(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"x": "ü\u2028"}, {"x": 2}])
    assert read_jsonl(tmp_path / "a.jsonl") == [{"x": "ü\u2028"}, {"x": 2}]
    assert not (tmp_path / "a.jsonl.tmp").exists()


def test_a_torn_last_line_is_dropped_and_mended(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"x": 2')
    assert read_jsonl(path) == [{"x": 1}]
    append_jsonl(path, [{"x": 3}])
    assert read_jsonl(path) == [{"x": 1}, {"x": 3}]


def test_a_bad_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"x": \n{"x": 3}\n')
    with pytest.raises(StageError, match="line 2"):
        read_jsonl(path)


@pytest.mark.parametrize("line", ['{"id": "c"}', "[1, 2]", "3", "null"])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "chains.jsonl"
    write_jsonl(path, [a_chain(id="whole")])
    assert read_jsonl(path, Chain) == [a_chain(id="whole")]
    with open(path, "a") as handle:
        handle.write(line + "\n")
    with pytest.raises(StageError, match=r"chains\.jsonl, line 2: no Chain .*Run the stage that writes it again"):
        read_jsonl(path, Chain)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b"])
def test_run_names(name):
    with pytest.raises(StageError, match="run name"):
        run_folder(name)


def test_meta_records_inputs_outputs_and_params(project):
    first = Stage("r", "01_collect", seed=3)
    first.write("problems.jsonl", [{"id": "a"}])
    meta = first.finish(problems=1)
    second = Stage("r", "02_rewrite")
    assert second.read("01_collect/problems.jsonl") == [{"id": "a"}]
    again = second.finish()
    assert meta["params"] == {"seed": 3} and meta["figures"] == {"problems": 1}
    assert again["inputs"]["01_collect/problems.jsonl"] == meta["outputs"]["problems.jsonl"]


def test_a_missing_stage_is_named(project):
    with pytest.raises(StageError, match="run 01_collect"):
        Stage("r", "02_rewrite").read("01_collect/chains.jsonl")


def test_two_writers(project, monkeypatch):
    code = (
        "import time; from distil.workspace.stage import Stage; Stage('r', '01_collect')"
        "; print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        monkeypatch.setattr(stages, "LOCK_WAIT_SECONDS", 0.1)
        with pytest.raises(StageError, match="another process is writing"):
            Stage("r", "01_collect")
        other.send_signal(signal.SIGKILL)
        other.wait()
        Stage("r", "01_collect").lock.release()  # a killed process leaves no lock behind
    finally:
        other.kill()


def test_the_same_process_may_start_a_stage_again(project):
    Stage("r", "01_collect")
    Stage("r", "01_collect").finish()
    assert json.loads((run_folder("r") / "01_collect" / "meta.json").read_text())["stage"] == "01_collect"

"""What is shown while a run goes on, and what it was expected to take: by hand, without a kernel."""

import json
import os
import subprocess
import sys
import time

import pytest

from distil.cli import main
from distil.pipeline import drawing, minutes, report
from distil.pipeline.progress import report_folder
from distil.workspace import bars
from distil.workspace.parameters import effective
from distil.workspace.stage import STAGES, Stage

BAR = {"what": "fast", "unit": "step", "done": 3, "total": 12, "left": 90.0, "note": ""}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where a headless run says how far it is."""
    monkeypatch.setenv(bars.FILE, str(tmp_path / "bar.json"))
    return tmp_path / "bar.json"


def test_a_bar_says_how_far_it_is(file, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.0)
    with bars.bar(total=4, desc="answers", unit="answer", start=1) as bar:
        assert bars.read_bar(file)["done"] == 1 and bars.read_bar(file)["left"] is None, "of no pace, no time"
        time.sleep(0.02)
        bar.update(2)
        state = bars.read_bar(file)
    assert (state["what"], state["unit"], state["done"], state["total"]) == ("answers", "answer", 3, 4)
    assert 0.01 <= state["left"] < 5, "one is left, and two took 0.02 s"
    assert list(bars.bar(["a", "b"], desc="batches", unit="batch")) == ["a", "b"]
    assert bars.read_bar(file)["what"] == "batches" and bars.read_bar(file)["done"] == 2


def test_it_is_written_once_a_second(file, monkeypatch):
    written = []
    monkeypatch.setattr(bars, "write_text", lambda path, text: written.append(json.loads(text)["done"]))
    bar = bars.bar(total=10_000, desc="many", unit="row")
    for _ in range(9_999):
        bar.update()
    assert written == [0]
    bar.update()
    bar.close()
    assert set(written) == {0, 10_000}
    monkeypatch.setattr(bars, "write_text", raises)
    assert list(bars.bar([1, 2], desc="a full disk", unit="row")) == [1, 2]


def raises(*_):
    raise OSError("no space left")


def test_hidden_bars_and_runs_without_a_driver_write_nothing(file, monkeypatch, capsys):
    assert list(bars.bar([1], desc="hidden", unit="row", hidden=True)) == [1] and not file.exists()
    monkeypatch.delenv(bars.FILE)
    assert list(bars.bar([1], desc="alone", unit="row")) == [1] and not file.exists()
    monkeypatch.delenv("DISTIL_BATCH")
    assert list(bars.bar([1], desc="by hand", unit="row")) == [1]
    assert "by hand: 100%" in capsys.readouterr().err and not file.exists()


@pytest.mark.parametrize("text", ["", '{"what": "fa', "[]", "null", '{"what": "fast"}', "\x00\x00"])
def test_a_torn_file_is_no_bar(file, text):
    assert bars.read_bar(file) is None, "nothing yet"
    file.write_text(text)
    assert bars.read_bar(file) is None


def test_two_processes_and_a_killed_one_leave_whole_states(file):
    code = "from distil.workspace import bars\nbars.EVERY = 0\nwhile True:\n"
    code += "    for _ in bars.bar(range(50), desc='n' * 999, unit='row'): pass"
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        deadline, seen = time.time() + 60, 0
        while seen < 60 and time.time() < deadline:
            state = bars.read_bar(file)
            assert state is None or state["what"] == "n" * 999
            seen += state is not None
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert seen == 60


def test_the_line():
    assert drawing.line("04_finetune", 2.0, None, None) == "04_finetune   2.0 min"
    said = drawing.line("04_finetune", 2.0, 7.2, BAR)
    assert said == "04_finetune   2.0 min, about 5 left | fast: step 3 of 12, 1.5 min left"
    assert drawing.line("04_finetune", 9.0, 7.2, None) == "04_finetune   9.0 min of about 7"
    done = drawing.line("07_eval", 1.0, None, BAR | {"done": 12, "left": 0.0, "note": "9 tokens/s"})
    assert done.endswith("| fast: step 12 of 12, 9 tokens/s")


@pytest.mark.parametrize("terminal", [True, False])
def test_it_moves_on_a_terminal_and_is_a_line_a_minute_elsewhere(monkeypatch, capsys, terminal):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setattr(drawing, "EVERY", 0.01)
    with drawing.shown("04_finetune", 7.0):
        file = os.environ[bars.FILE]
        with open(file, "w") as handle:
            json.dump(BAR, handle)
        time.sleep(0.2)
    told = capsys.readouterr().out
    if terminal:
        lines = told.split("\r")
        assert len(lines) > 4 and "fast: step 3 of 12" in told and "\n" not in told
        assert lines[-1] == "" and not lines[-2].strip(), "the line is wiped"
        assert len({len(line) for line in lines if line}) == 1, "each covers the one before"
    else:
        assert told == "", "the first line comes after a minute"
    assert bars.FILE not in os.environ and not os.path.exists(file), "no stage reads what another one wrote"


def test_lines_that_are_kept_have_the_time(monkeypatch, capsys):
    monkeypatch.setattr(drawing, "QUIETLY", 0.05)
    with drawing.shown("07_eval", None):
        time.sleep(0.08)
    told = capsys.readouterr().out
    assert told.endswith(" 07_eval       0.0 min\n") and time.strptime(told[:5], "%H:%M")


RECORD = {"train": 100.0, "write": 50.0, "read": 10.0, "rest": 5.0}
THEN = {"train": 400.0, "write": 200.0, "read": 600.0}


def test_each_kind_of_work_is_as_much_slower_as_the_probe():
    now = {"train": 100.0, "write": 400.0, "read": 300.0}
    assert minutes.seconds(RECORD, THEN, THEN, 1.0) == 165
    assert minutes.seconds(RECORD, THEN, now, 1.0) == 100 * 4 + 50 / 2 + 10 * 2 + 5
    assert minutes.seconds(RECORD, THEN, now, 3.0) == 3 * (100 * 4 + 50 / 2) + 10 * 2 + 5


@pytest.fixture
def here(monkeypatch):
    """A machine half as fast as the one of the record."""
    half = {kind: speed / 2 for kind, speed in minutes.record()["speeds"].items()}
    monkeypatch.setattr(minutes, "speeds", lambda config: half)
    return half


def foreseen(*sets: str, profile: str = "cpu") -> dict:
    return minutes.expected(STAGES, effective(profile, "r", list(sets)))[0]


def test_half_as_fast_takes_twice_as_long(project, here):
    recorded, found = minutes.record()["stages"], foreseen()
    for stage in STAGES[2:]:
        spent = recorded[stage]["seconds"]
        assert found[stage]["minutes"] == round((2 * sum(spent.values()) - spent["rest"]) / 60, 1), stage
        assert found[stage]["gib"] == recorded[stage]["gib"]
    more = foreseen("train_tokens=80000", "04.students=fast", "seed=7", "learning_rate=0.1", "n_train=900")
    assert more == found, "twice the tokens of half as many students, and nothing else that counts"
    larger = foreseen("n_test=450", "steps=12")
    start = recorded["07_eval"]["seconds"]["rest"] / 60  # does not grow with the questions
    assert larger["07_eval"]["minutes"] == pytest.approx(3 * found["07_eval"]["minutes"] - 2 * start, abs=0.2)
    assert found["06_reinforce"]["minutes"] < larger["06_reinforce"]["minutes"] < 2 * found["06_reinforce"]["minutes"]


def test_of_other_work_nothing_is_said(project, here):
    found = foreseen("student=me/other")
    assert [stage for stage in STAGES if "minutes" in found[stage]] == ["01_collect", "02_rewrite"]
    assert found["07_eval"]["unknown"] == "no run with this student is on record"
    assert foreseen("07.students=base,fast")["07_eval"] == {"unknown": "no run with this students is on record"}
    text = minutes.table(STAGES, foreseen("07.students=base,fast"))
    assert "07_eval                not known: no run with this students" in text and "together" not in text
    for profile in ("smoke", "gpu80-7b"):
        assert "minutes" not in foreseen(profile=profile)["04_finetune"]


def test_a_lesson_is_foreseen_whole(project, here):
    lesson, whole = foreseen(profile="class"), foreseen()
    assert all("minutes" in row for row in lesson.values())
    assert 2 * sum(row["minutes"] for row in lesson.values()) < sum(row["minutes"] for row in whole.values())


def test_it_is_not_measured_for_nothing(project, monkeypatch):
    monkeypatch.setattr(minutes, "speeds", lambda config: 1 / 0)
    assert "minutes" not in foreseen(profile="smoke")["07_eval"]
    assert list(minutes.expected(STAGES[:2], effective("cpu", "r", []))[0]) == list(STAGES[:2])
    monkeypatch.setattr(minutes, "speeds", lambda config: {})
    assert "a GPU or was not measured" in foreseen()["04_finetune"]["unknown"]


def test_it_is_said_where_it_takes_long_and_memory_is_short(project, here, monkeypatch):
    found = foreseen("n_test=15000")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**30}))
    text = minutes.table(STAGES, found)
    total = sum(row["minutes"] for row in found.values())
    assert f"This takes {total / 60:.1f} hours" in text and "Memory is short: 1.0 GiB are free, and 6." in text
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**40}))
    text = minutes.table(STAGES[:2], found)
    assert "hours" not in text and "short" not in text and "03_judge" not in text


def test_the_dry_run_says_it_of_what_is_not_done(project, here, capsys):
    values = effective("cpu", "r", [])["01_collect"]
    stage = Stage("r", "01_collect", **{name: value for name, value in values.items() if name != "run"})
    stage.finish()
    assert main(["run", "--run", "r", "--dry-run"]) == 0
    table = capsys.readouterr().out.partition("on this machine")[2]
    assert "04_finetune" in table and "01_collect" not in table and not (report_folder("r") / minutes.TOLD).exists()


def test_afterwards_it_stands_beside_the_truth(project, here):
    values = effective("cpu", "r", [])
    text = minutes.tell("r", STAGES[:1], values)
    assert text == minutes.table(STAGES[:1], minutes.told("r")["stages"])
    assert minutes.tell("r", STAGES[3:4], values) and set(minutes.told("r")["stages"]) == {"01_collect", "04_finetune"}
    assert minutes.told("r")["speeds"] == here and minutes.compared("r", STAGES) == ""
    Stage("r", "01_collect").finish()
    head, line = minutes.compared("r", STAGES).splitlines()
    assert line.split()[:3] == ["01_collect", f"{minutes.told('r')['stages']['01_collect']['minutes']}", "0.0"]
    report.write_index("r")
    index, said = (report_folder("r") / "index.html").read_text(), minutes.told("r")["stages"]["04_finetune"]["minutes"]
    assert "<th>Minutes expected</th>" in index and f"<td>{said}</td><td></td>" in index

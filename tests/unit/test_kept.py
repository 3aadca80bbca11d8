"""The kept run: made of a run in miniature, verified through the command; whatever is touched afterwards is found."""

import gzip
import importlib.util
import json
import shutil

import pytest
import small_run
from conftest import ROOT

from benchmarks.reference_run import claim
from distil.cli import main
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv, sha256
from distil.workspace.rows import Completion
from distil.workspace.stage import STAGES, run_folder

STUDENTS = "base,slow,fast,reinforced"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reference_script", ROOT / "benchmarks" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(made, script, tmp_path_factory):
    """A project with a run measured twice, one greedy answer, then three; and what is kept of it."""
    home = tmp_path_factory.mktemp("kept") / "home"
    shutil.copytree(made, home)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DISTIL_HOME", str(home))
        (run_folder("r") / "responses.jsonl").write_text(
            '{"key": "0", "request": {}, "reply": {"text": "1", "prompt_tokens": 30, "completion_tokens": 12}}\n'
        )
        small_run.measure("r", "held-out", STUDENTS)
        (run_folder("r") / "07_eval/README.md").write_text("# tiny\n")
        small_run.measure("r", "held-out?n=6&samples=3", STUDENTS)
        assert script.main("r") == 0
    return home


@pytest.fixture
def finished(measured, tmp_path, monkeypatch):
    """A copy of that project."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def kept(finished):
    return finished / "artifacts" / "reference"


@pytest.fixture
def undrawn(monkeypatch):
    """Verifying compares the numbers behind the figures: nothing is lost where these tests do not paint them."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **_: path.touch())


def verify(*arguments: str) -> int:
    return main(["verify-reference", *arguments])


def test_what_is_kept_is_all_that_is_needed_and_nothing_heavy(kept):
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    for place in ("", "greedy/"):
        tables = ("asked.json", "results.csv", "results.md", "differences.jsonl", "problems.jsonl.gz", "tokens.csv")
        assert {f"{place}{name}" for name in tables} <= names
        assert {f"{place}completions/{name}.jsonl.gz" for name in STUDENTS.split(",")} <= names
    assert {f"{stage}/meta.json" for stage in STAGES} <= names
    assert {"accuracy_tokens.png", "pass_at_k.csv", "07_eval/README.md", "04_finetune/fast/log.csv"} <= names
    assert not [name for name in names if name.endswith((".safetensors", ".svg", ".lock"))]
    assert "thought" not in gzip.decompress((kept / "01_collect/chains.jsonl.gz").read_bytes()).decode()
    assert (kept / "results.csv").read_bytes() == (run_folder("r") / "07_eval/held-out/results.csv").read_bytes()


def test_the_commands_make_both_measurements_again(kept):
    first, second = json.loads((kept / "about.json").read_text())["command"].split("\ndistil ")
    assert first.startswith("distil run --profile cpu --run r") and "suite='held-out?n=6&samples=3'" in first
    assert second.startswith("run --profile cpu --run r --from 07") and "suite=" not in second, (
        "what the profile has is not said"
    )


def test_it_holds_and_needs_no_run(kept, tmp_path, monkeypatch, capsys):
    shutil.move(kept, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "artifacts")
    assert verify(str(tmp_path / "elsewhere")) == 0
    said = capsys.readouterr().out
    assert "every table, figure and claim follows" in said and "fast against slow: " in said


def test_keeping_it_again_gives_the_same_bytes(kept, script):
    before = sha256(kept)
    assert script.main("r") == 0 and sha256(kept) == before


def test_the_claim_is_what_the_answers_say(kept):
    said = json.loads((kept / "claim.json").read_text())
    rows = {name: small_rows(kept, name) for name in ("fast", "slow")}
    tokens = {name: sum(row["n_tokens"] for row in rows[name]) / 18 for name in rows}
    share = {name: sum(row["correct"] for row in rows[name]) / 18 for name in rows}
    fast = said["against"]["slow"]["fast"]
    assert (said["problems"], said["samples"]) == (6, 3)
    assert fast["tokens_gain"] == pytest.approx(tokens["slow"] / tokens["fast"], abs=0.006)
    assert fast["seconds_gain"] == 1
    assert fast["difference"] == pytest.approx(share["fast"] - share["slow"], abs=1e-6)
    assert fast["ci_low"] <= fast["difference"] <= fast["ci_high"]
    assert said["teacher"] == {"where": "training problems", "accuracy": {"fast": 0.75, "slow": 0.75}}
    assert said["recovered"]["fast"]["slow"] == pytest.approx(share["fast"] / 0.75, abs=1e-4)
    assert said["answered_before"] == 1190
    assert said["asked_of_teacher"] == {"requests": 1, "prompt_tokens": 30, "completion_tokens": 12}
    answers = 4 * (16 + 18)
    assert claim.costs(kept)[-1]["kept_minutes"] == round(answers * 0.125 / 60, 2)
    assert any(f"{fast['tokens_gain']:.1f} times fewer tokens" in text for text in claim.sentences(said))
    both = [pair for pair in zip(rows["slow"], rows["fast"], strict=True) if pair[0]["correct"] and pair[1]["correct"]]
    slow, fast = (sum(pair[i]["n_tokens"] for pair in both) for i in (0, 1))  # here the wrong ones were cut off
    assert said["ended"] == {"pairs": len(both), "of": 18, "tokens_gain": round(slow / fast, 2)} and 0 < len(both) < 18
    assert any(text.startswith(f"in the {len(both)} of 18 pairs") for text in claim.sentences(said))


def test_where_no_pair_of_answers_ended_nothing_is_said_of_them():
    cut = [Completion(id="1", text="", n_tokens=8, finish_reason="length", seconds=None, correct=False, answer=None)]
    assert claim.ended(cut, cut) == {"pairs": 0, "of": 1, "tokens_gain": None}


def test_a_row_of_the_teacher_is_what_students_are_held_against(finished, script):
    small_run.measure("r", "held-out?n=6&samples=3", f"{STUDENTS},teacher")
    said = json.loads((script.keep("r") / "claim.json").read_text())
    accuracy = {row["student"]: row["accuracy"] for row in read_csv(finished / "artifacts/reference/results.csv")}
    assert said["teacher"] == {"where": "the same problems", "accuracy": {"as the students": accuracy["teacher"]}}
    assert said["recovered"]["fast"]["as the students"] == round(accuracy["fast"] / accuracy["teacher"], 4)
    assert "teacher" not in said["recovered"] and "difference" in said["against"]["teacher"]["fast"]


@pytest.mark.parametrize(("asked", "from_store", "before"), [(996, 4, 0), (900, 100, 100), (0, 1000, 1000)])
def test_answers_of_an_earlier_start_are_told_from_a_request_twice(tmp_path, asked, from_store, before):
    (tmp_path / "01_collect").mkdir()
    one = {"asked": asked, "from_store": from_store}
    two = {"asked": asked // 2, "from_store": from_store // 2}
    for usage in (one, {"fast_teacher": two, "slow_teacher": two}):  # before and since there are roles
        (tmp_path / "01_collect" / "meta.json").write_text(json.dumps({"figures": {"usage": usage}}))
        assert claim.answered_before(tmp_path) == before


def small_rows(kept, name: str) -> list[dict]:
    lines = gzip.decompress((kept / f"completions/{name}.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


def edit(file, before: str, after: str) -> None:
    packed = file.suffix == ".gz"
    text = gzip.decompress(file.read_bytes()).decode() if packed else file.read_bytes().decode()
    assert before in text, (file, before)
    data = text.replace(before, after, 1).encode()
    file.write_bytes(gzip.compress(data, mtime=0) if packed else data)


@pytest.mark.parametrize(("name", "before", "after", "complaint"), [
    ("completions/fast.jsonl.gz", "boxed{1}", "boxed{2}", "fast.jsonl: the answer to"),
    ("completions/slow.jsonl.gz", "A long thought", "A longer thought", "slow.jsonl.gz: was changed"),
    ("greedy/completions/base.jsonl.gz", '"n_tokens": 1', '"n_tokens": 2', "greedy/tokens.csv: is not what"),
    ("completions/fast.jsonl.gz", '"seconds": 0.125', '"seconds": 9.125', "claim.json: is not what"),
    ("results.csv", "fast,6,0.", "fast,6,0.1", "results.csv: is not what the answers give"),
    ("results.csv", "fast,6,0.", "fast,6,x", "results.csv: is not what the answers give"),
    ("results.csv", "fast,6,", "quick,6,", "quick.jsonl is missing"),
    ("results.md", "| fast | ", "| fast | 1", "results.md: is not what the answers give"),
    ("greedy/differences.jsonl", '"difference": ', '"difference": 1', "differences.jsonl: is not what"),
    ("accuracy_tokens.csv", "fast,", "fast,1", "accuracy_tokens.csv: is not what the answers give"),
    ("pass_at_k.csv", "fast,1,", "fast,1,1", "pass_at_k.csv: is not what the answers give"),
    ("problems.jsonl.gz", '"answer": "1"', '"answer": "2"', "fast.jsonl: the answer to"),
    ("01_collect/chains.jsonl.gz", '"correct": true', '"correct": false', "claim.json: is not what"),
    ("04_finetune/meta.json", '"seconds": ', '"seconds": 99', "costs.csv: is not what"),
    ("claim.json", '"samples": 3', '"samples": 4', "claim.json: is not what"),
    ("about.json", "distil run", "distil fun", "about.json: was changed"),
])  # fmt: skip
def test_what_was_touched_is_found(kept, undrawn, capsys, name, before, after, complaint):
    """Also by whoever writes the list of digests anew."""
    from benchmarks.reference_run import kept as module

    edit(kept / name, before, after)
    assert verify() == 1
    said = capsys.readouterr().out
    assert f"{kept / name}: was changed" in said and complaint in said
    if "was changed" not in complaint:
        (kept / "files.json").write_text(json.dumps(module.digests(kept)))
        assert verify() == 1
        said = capsys.readouterr().out
        assert "was changed" not in said and complaint in said


@pytest.mark.parametrize("name", [
    "completions/fast.jsonl.gz", "problems.jsonl.gz", "results.csv", "tokens.csv", "accuracy_tokens.png", "asked.json",
    "claim.json", "greedy/results.md", "04_finetune/meta.json", "01_collect/chains.jsonl.gz", "07_eval/README.md",
])  # fmt: skip
def test_what_is_gone_and_what_is_damaged_is_found(kept, undrawn, capsys, name):
    data = (kept / name).read_bytes()
    (kept / name).unlink()
    assert verify() == 1 and f"{kept / name}: is missing\n" in capsys.readouterr().out
    (kept / name).write_bytes(data[: len(data) // 2])
    assert verify() == 1 and f"{kept / name}: was changed\n" in capsys.readouterr().out
    (kept / name).write_bytes(data)
    assert verify() == 0


def test_programs_are_not_taken_on_trust_where_none_can_run(kept, undrawn, no_sandbox, capsys):
    edit(kept / "problems.jsonl.gz", '"verifier": "exact"', '"verifier": "code", "tests": ["f(1) == 1"]')
    edit(kept / "completions/base.jsonl.gz", '"text": "', '"text": "```python\\nf = int\\n```\\n')
    assert verify() == 1 and "some answers are programs, which cannot be checked here" in capsys.readouterr().out


def test_what_nobody_kept_is_found(kept, undrawn, capsys):
    (kept / "model.safetensors").write_bytes(b"0")
    assert verify() == 1
    said = capsys.readouterr().out
    assert "model.safetensors: nobody kept this\nwhat to do: fetch the folder anew" in said


def test_where_there_is_none_it_says_where_to_get_it(project, capsys):
    assert verify() == 2
    assert "part of the repository, not of the installed package" in capsys.readouterr().err


def test_its_folder_is_no_run(project):
    with pytest.raises(StageError, match="choose another name"):
        run_folder("reference")


@pytest.mark.parametrize(("spoil", "complaint"), [
    (lambda run: edit(run / "07_eval/held-out/results.csv", "fast,6,0.", "fast,6,0.1"), "results.csv: is not what"),
    (lambda run: edit(run / "05_prefer/meta.json", '"fast"', '"/mnt/me/fast"'), "05_prefer/meta.json: holds the path"),
    (lambda run: (run / "06_reinforce/meta.json").unlink(), "06_reinforce has no meta.json"),
    (lambda run: shutil.rmtree(run / "07_eval/completions"), "base.jsonl is missing"),
])  # fmt: skip
def test_nothing_is_kept_of_a_run_that_does_not_hold(kept, script, capsys, spoil, complaint):
    before = sha256(kept)
    spoil(run_folder("r"))
    assert script.main("r") == 1
    assert complaint in capsys.readouterr().err
    assert sha256(kept) == before and sorted(path.name for path in kept.parent.iterdir()) == ["r", "reference"]


WRONGLY = ('"correct": true', '"correct": false')


def test_answers_that_count_otherwise_now_are_kept_where_that_is_asked_for(finished, script, capsys):
    answers = run_folder("r") / "07_eval/held-out/completions/fast.jsonl"
    row = next(row for row in map(json.loads, answers.read_text().splitlines()) if row["correct"])
    edit(answers, *WRONGLY)
    assert script.main("r") == 1
    said = capsys.readouterr().err
    assert f"fast.jsonl: the answer to {row['id']} was stored as ('1', False)" in said and "add --judge-again" in said
    assert script.main("r", judge_again=True) == 0 and verify() == 0
    kept = finished / "artifacts/reference"
    listed = json.loads((kept / "about.json").read_text())["judged_again"]
    assert listed == [f"fast: the answer to {row['id']} was stored as ('1', False), and is ('1', True)"]
    assert not list(kept.glob("*.svg")) and script.main("r") == 1, "the run is as it was"


def test_answers_of_the_card_are_judged_again_by_07_alone(finished, script, capsys):
    edit(run_folder("r") / "07_eval/completions/fast.jsonl", *WRONGLY)
    assert script.main("r", judge_again=True) == 1
    said = capsys.readouterr().err
    assert (
        "the model card tells of these: `distil run --run r --from 07 --force`; what is named still was changed" in said
    )


def test_more_than_may_be_kept_is_refused(finished, script, monkeypatch):
    monkeypatch.setattr(script, "MOST", 1000)
    before = sha256(finished / "artifacts/reference")
    with pytest.raises(StageError, match="that may be kept"):
        script.keep("r")
    assert sha256(finished / "artifacts/reference") == before


def test_fast_and_slow_must_have_been_measured(home, script):
    with pytest.raises(StageError, match="has no row slow: nothing can be claimed"):
        script.keep("r")

"""What a run will ask, before it asks: numbers that can be worked out by hand."""

import json

import pytest

from distil.cli import main
from distil.pipeline import estimate
from distil.pipeline.estimate import Load, table
from distil.workspace.parameters import effective
from distil.workspace.stage import RESPONSES, Stage, run_folder

URL = "http://127.0.0.1:9/v1"
ROLES = {role: f"{role}-model@{URL}" for role in ("fast_teacher", "slow_teacher", "rewriter", "judge")}
SETS = [f"{role}={value}" for role, value in ROLES.items()]
SETS += ["n_train=100", "samples=2", "votes=3", "tries=2", "max_rounds=2"]
STAGES = ["01_collect", "02_rewrite", "03_judge"]


@pytest.fixture
def values(project) -> dict:
    return effective("cpu", "r", [*SETS, "slow_tokens=32000", "fast_tokens=8000", "verdict_tokens=4000"])


def cells(text: str, role: str) -> list[str]:
    """The columns of a role's line: model, endpoint, requests, tokens in, tokens out, dollars, hours, limits."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{role} ")]
    return line.split(maxsplit=8)[1:]


def numbers(text: str, role: str) -> list[float]:
    return [float(cell.replace(",", "")) for cell in cells(text, role)[2:7] if cell != "?"]


def test_what_is_assumed(values):
    text = table("r", STAGES, values)
    assert numbers(text, "slow_teacher")[:3] == [200, 200 * 300, 200 * 8000]
    assert numbers(text, "fast_teacher")[:3] == [200, 200 * 300, 200 * 2000]
    right, short = 140, 98
    improved = (right + short) * (0.4 + 0.16)
    judged = 3 * (right + short + improved) + 3 * (right + short + right)
    assert numbers(text, "judge")[0] == pytest.approx(judged, rel=0.005)
    assert numbers(text, "judge")[2] == pytest.approx(judged * 1000, rel=0.005)
    shortened, corrupted = right * 1.3, 100 * (1 - 0.3**2) * 1.3
    assert numbers(text, "rewriter")[0] == pytest.approx(shortened + corrupted + improved, rel=0.005)
    assert "70% of chains right" in text and "--pilot 20" in text
    assert cells(text, "judge")[5] == "?" and "DISTIL_PRICE" in text and "dollars not known" in text


def test_dollars_hours_and_limits(values, monkeypatch):
    monkeypatch.setenv("DISTIL_PRICE", "1/2")
    monkeypatch.setenv("DISTIL_SLOW_TEACHER_PRICE", "10/20")
    monkeypatch.setenv("DISTIL_SLOW_TEACHER_RPM", "2")
    monkeypatch.setenv("DISTIL_FAST_TEACHER_TPM", "1000")
    monkeypatch.setenv("DISTIL_JUDGE_CONCURRENCY", "10")
    monkeypatch.setenv("DISTIL_MAX_COST", "50")
    text = table("r", STAGES, values)
    slow, fast, judge = (numbers(text, role) for role in ("slow_teacher", "fast_teacher", "judge"))
    assert slow[3:] == [round(0.06 * 10 + 1.6 * 20, 2), 1.7], "200 requests at 2 a minute"
    assert fast[3:] == [round(0.06 * 1 + 0.4 * 2, 2), 7.7], "460,000 tokens at 1,000 a minute"
    assert judge[4] == pytest.approx(judge[2] / 30 / 3600 / 10, abs=0.06)
    assert cells(text, "slow_teacher")[7] == "64 at once, 2 requests a minute, 32000 tokens an answer"
    assert "the run stops before 50 dollars" in text and "?" not in text
    dollars, hours = (sum(numbers(text, role)[i] for role in ROLES) for i in (3, 4))
    assert f"together: {dollars:.2f} dollars, " in text or f"together: {dollars - 0.01:.2f} dollars, " in text
    assert float(text.split(" dollars, ")[1].split()[0]) == pytest.approx(hours, abs=0.2)


def collected(run: str, n_train: int, model: str = "slow_teacher-model") -> None:
    used = {"model": model, "endpoint": URL, "asked": 30, "from_store": 10, "cut_off": 0}
    used |= {
        f"{how}_{what}_tokens": n for how in ("asked", "stored") for what, n in (("prompt", 50), ("completion", 900))
    }
    stage = Stage(run, "01_collect", n_train=n_train, samples=2)
    stage.finish(usage={"slow_teacher": used})


def test_what_a_pilot_saw_goes_before_what_is_assumed(values):
    collected("r-pilot", 20)
    text = table("r", STAGES, values)
    assert numbers(text, "slow_teacher")[:3] == [200, 500, 9000], "five times as much"
    assert "seen in run 'r-pilot'" in text and "assumed" in text, "of the others nothing is known"
    collected("r", 50)
    text = table("r", STAGES, values)
    assert numbers(text, "slow_teacher")[:3] == [80, 200, 3600] and "seen in run 'r'," in text
    collected("r", 50, model="another")
    assert numbers(table("r", STAGES, values), "slow_teacher")[:3] == [200, 500, 9000], "it saw another model"


def test_a_role_with_two_models_has_two_lines(values, project):
    values = effective("cpu", "r", [*SETS, f"03.rewriter=second@{URL}"])
    lines = [line for line in table("r", STAGES, values).splitlines() if line.startswith("rewriter ")]
    assert [line.split()[1] for line in lines] == ["rewriter-model", "second"]


def test_a_style_that_is_not_asked_for_has_no_line(project):
    values = effective("cpu", "r", [*SETS, "fast_teacher=none"])
    assert "fast_teacher" not in table("r", STAGES, values)


def test_a_recording_costs_nothing(project):
    text = table("cpu", STAGES, effective("cpu", "cpu", []))
    assert numbers(text, "judge")[3:] == [0, 0] and "a recording is replayed" in text and "DISTIL_PRICE" not in text


def test_what_is_in_the_store_is_told(values):
    row = {
        "key": "ab" * 32,
        "request": {"model": "m", "messages": []},
        "reply": {"text": "", "reasoning": "", "finish_reason": ""},
    }
    row["reply"] |= {"prompt_tokens": 1, "completion_tokens": 1}
    run_folder("r").mkdir(parents=True)
    (run_folder("r") / RESPONSES).write_text(json.dumps(row) + "\n")
    assert "1 answers are in the run's store" in table("r", STAGES, values)


def test_the_dry_run_shows_it(project, capsys):
    assert main(["run", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[0].split(maxsplit=1)[1])["n_train"] == 500 and "\njudge " in said
    assert main(["run", "--dry-run", "--from", "04"]) == 0
    assert "requests" not in capsys.readouterr().out, "nobody is asked"


def test_loads_add_up():
    assert estimate.load(2, 3, 4) + Load(1, 1, 1) == Load(3, 7, 9)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--pilot", "0"], "--pilot 0: give the number of problems"),
    (["--pilot", "20", "--to", "02"], "leave out --from, --to and --force"),
    (["--pilot", "20", "--dry-run"], "not allowed with argument"),
])  # fmt: skip
def test_a_pilot_that_cannot_be_meant(project, capsys, arguments, words):
    try:
        code = main(["run", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2 and words in capsys.readouterr().err
    assert not (project / "artifacts").exists()

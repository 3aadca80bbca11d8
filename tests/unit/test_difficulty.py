"""Pass rates from a made-up student, and the command `distil filter` against a server on this machine."""

import json

import pytest
from loopback import serve

from distil.cli import main
from distil.evaluate.pass_rate import by_pass_rate, pass_rates
from distil.problems.errors import ProblemError
from distil.workspace.files import read_jsonl, write_jsonl, write_text
from distil.workspace.rows import Problem


def problem(name: str, verifier: str = "exact", **more) -> Problem:
    made = {"domain": "math", "task": "sums", "question": f"{name}?", "answer": "9", "source": "made up"}
    return Problem(id=name, verifier=verifier, **made, **more)


PROBLEMS = [*map(problem, ("easy", "mixed", "hard", "dumb")), problem("code", "code", tests=["1"])]


def test_rates_and_the_choice_by_them(no_sandbox):
    right, wrong = r"\boxed{9}", r"\boxed{8}"
    answers = {
        "easy": [right] * 4,
        "mixed": [right, wrong] * 2,
        "hard": [wrong, None, wrong, wrong],
        "dumb": [None] * 4,
    }
    asked = [problem for problem in PROBLEMS for _ in answers.get(problem.id, ())]
    rates = pass_rates(asked, [text for texts in answers.values() for text in texts])
    assert rates == {"easy": 1.0, "mixed": 0.5, "hard": 0.0}
    kept, removed = by_pass_rate(PROBLEMS, rates, 0.01, 0.99)
    assert [(r.id, r.extra["pass_rate"]) for r in kept] == [("mixed", 0.5)]
    assert [(r.id, r.extra["reason"]) for r in removed] == [
        ("easy", "too easy for the student"),
        ("hard", "too hard for the student"),
        ("dumb", "no answer came"),
        ("code", "answers cannot be checked"),
    ]
    assert [r.id for r in by_pass_rate(PROBLEMS, rates, 0.0, 0.5)[0]] == ["mixed", "hard"]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0.5, 0.4), (0, 1.1)])
def test_bounds(low, high):
    with pytest.raises(ProblemError, match="pass rates lie in 0 to 1"):
        by_pass_rate([], {}, low, high)


def test_the_command(tmp_path, capsys):
    problems = [
        {"question": "What is 1 + 1?", "answer": "2"},
        {"question": "What is 2 + 2?", "answer": "4"},
        {"question": "What is 3 + 3?", "answer": "6"},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(json.dumps(row) for row in problems))

    def student(body):
        question, seed = body["messages"][-1]["content"], body["seed"]
        if "1 + 1" in question:
            return r"\boxed{2}"
        return r"\boxed{4}" if "2 + 2" in question and seed < 1 else r"\boxed{0}"

    out = tmp_path / "some.jsonl"
    with serve(student) as (endpoint, seen):
        command = ["filter", str(tmp_path / "all.jsonl"), str(out), "--endpoint", endpoint, "--model", "pupil"]
        assert main([*command, "--samples", "4"]) == 0
        assert len(seen) == 12 and seen[0]["model"] == "pupil"
        assert main([*command, "--samples", "4"]) == 0
        assert len(seen) == 12, "what was answered is not asked again"
    assert [(r["question"], r["pass_rate"]) for r in read_jsonl(out)] == [("What is 2 + 2?", 0.25)]
    removed = read_jsonl(tmp_path / "some.removed.jsonl")
    assert [r["pass_rate"] for r in removed] == [1.0, 0.0]
    assert "1 of 3 problems kept" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["none.jsonl", "out.jsonl"], "no such file"),
    (["all.jsonl", "all.jsonl"], "name another file"),
    (["all.jsonl", "out.txt"], "ends in .jsonl"),
    (["all.jsonl", "out.jsonl", "--low", "2"], "pass rates lie in 0 to 1"),
    (["all.jsonl", "out.jsonl", "--samples", "0"], "--samples"),
    (["empty.jsonl", "out.jsonl"], "holds no row"),
])  # fmt: skip
def test_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["filter", *arguments, "--endpoint", "http://localhost:1/v1", "--model", "m"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_student_in_a_folder_that_was_trained_again_is_asked_again(tmp_path, project):

    pupil, asked = tmp_path / "pupil", ["filter", str(tmp_path / "all.jsonl"), str(tmp_path / "out.jsonl")]
    write_jsonl(tmp_path / "all.jsonl", [problem("easy")])
    with serve(lambda body: r"\boxed{1}") as (endpoint, seen):
        for number, weights in ((4, "v"), (4, "v"), (8, "w")):
            write_text(pupil / "model.safetensors", weights)
            assert main([*asked, "--endpoint", endpoint, "--model", str(pupil)]) == 0
            assert len(seen) == number

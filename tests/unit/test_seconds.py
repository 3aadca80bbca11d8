"""benchmarks/seconds.py: which problems are asked, what follows from the answers, what a killed run asks anew."""

import json
import shutil
import sys
from collections import Counter

import numpy as np
import pytest
import vllm_program
from conftest import ROOT
from factories import a_problem
from loopback import Refusal, Said, serve

from benchmarks.texts import tables
from distil.workspace.files import read_jsonl
from distil.workspace.rows import Problem
from distil.workspace.stage import run_folder


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import seconds_table

    return seconds_table


@pytest.mark.parametrize(("n", "each"), [(30, {10}), (31, {10, 11}), (48, {14, 17}), (99, {14, 30, 50})])
def test_problems_are_drawn_evenly_over_the_families(table, n, each):
    sizes = {"a": 50, "b": 14, "c": 30}
    problems = [a_problem(id=f"{task}-{i}", task=task) for task, size in sizes.items() for i in range(size)]
    drawn = table.asked(problems, 1, n)
    assert {*Counter(problem.task for problem in drawn).values()} == each and len({p.id for p in drawn}) == min(n, 94)
    assert drawn == table.asked(problems[::1], 1, n) and drawn != problems[:n], "by a seed"
    assert [p.id for p in drawn if p.task == "a"][:5] != [f"a-{i}" for i in range(5)], "and not the first ones"


def test_many_at_once_are_asked_all_problems_over_again(table):
    problems = [a_problem(id=str(i)) for i in range(5)]
    assert [p.id for p in table.asked(problems, 12, 2)] == list("012340123401")
    assert table.asked(problems, 3, 2) == problems


def test_the_ratio_of_means_with_its_interval(table):
    found = table.times_fewer([10.0, 20.0, 60.0], [1.0, 5.0, 3.0])
    assert found["ratio"] == 10 and found["ci_low"] < 10 < found["ci_high"]
    assert found["ci_low"] >= 4 and found["ci_high"] <= 20, "no draw is beyond the questions' own"
    same = table.times_fewer([2.0, 4.0, 8.0] * 5, [1.0, 2.0, 4.0] * 5)
    assert same == {"ratio": 2, "ci_low": 2, "ci_high": 2}, "questions are drawn in pairs"


def test_the_interval_of_the_ratio_covers_the_truth(table, monkeypatch):
    monkeypatch.setattr(table, "DRAWS", 400)
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        hard = rng.gamma(2, 1, 64)
        found = table.times_fewer(7.0 * hard * rng.gamma(4, 0.25, 64), hard * rng.gamma(4, 0.25, 64))
        covered += found["ci_low"] <= 7 <= found["ci_high"]
    assert 0.89 <= covered / 300 <= 0.99


def test_figures_of_rounds(table):
    usual = {"student": "fast", "at_once": 1, "round": 0, "number": 0, "id": "p", "of": "", "text": ""}
    rows = [
        table.Timed(**usual, n_tokens=n, finish_reason=end, latency=s, share=s)
        for n, end, s in ((100, "stop", 1.0), (300, "length", 3.0), (200, "stop", 2.0), (200, "stop", 10.0))
    ]
    found = table.figures(rows, [True, False, True, True])
    assert found == {
        "seconds": 16, "seconds_per_answer": 4, "latency_median": 2.5, "latency_p95": pytest.approx(8.95),
        "tokens_per_answer": 200, "tokens_per_s": 50, "cut_off": 1, "accuracy": 0.75,
    }  # fmt: skip
    slower = {name: value * 2 for name, value in found.items()}
    three = table.over_rounds([slower, found, slower])
    assert (three["seconds"], three["least"]["seconds"], three["most"]["seconds"]) == (32, 16, 32)


@pytest.fixture
def command(table, made, tmp_path, monkeypatch):
    """The script on a copy of a finished run, writing seconds.json; its exit code."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    import seconds

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["seconds.py", "r", "--out", str(tmp_path / "seconds.json"), *words])
        return seconds.main()

    return call


def test_what_cannot_be_asked_is_refused(command, capsys):
    assert command("--engine", "transformers:8", "--students", "base,fast") == 2
    assert "give the URL" in capsys.readouterr().err
    assert command("--engine", "http://127.0.0.1:9/v1") == 2
    assert "base,slow,fast: name each once, of those of run 'r': base, fast, reinforced" in capsys.readouterr().err
    assert command("--engine", "http://127.0.0.1:9/v1", "--students", "fast,fast") == 2
    shutil.rmtree(run_folder("r") / "07_eval")
    assert command("--engine", "http://127.0.0.1:9/v1", "--students", "fast") == 2
    assert "run 07_eval for run 'r' first" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command("--n", "0")


def test_a_run_that_was_killed_asks_no_measured_answer_again(command, tmp_path, capsys, monkeypatch):
    problems = [p for p in read_jsonl(run_folder("r") / "01_collect/problems.jsonl", Problem) if p.split == "test"]
    gold = {problem.question: problem.answer for problem in problems}
    tokens = {"base": 40, "fast": 10, "teacher": 160}
    stop_at = [0]

    def answer(body):
        if stop_at[0] and len(seen) > stop_at[0]:
            raise Refusal(401, "no more")
        right = next(gold[question] for question in gold if question in body["messages"][-1]["content"])
        text = f"\\boxed{{{right}}}" if body["model"] != "base" else "\\boxed{wrong}"
        return Said(text, tokens=tokens[body["model"]], finish_reason="length" if body["model"] == "base" else "stop")

    n, all_of_them = 5, len(problems)
    words = ("--students", "base,fast", "--n", str(n), "--at-once", "1", "20")
    warm, a_round = 3 * all_of_them, 3 * (n + 20)
    with serve(answer) as (endpoint, seen):
        words += ("--engine", endpoint, "--teacher", endpoint)
        stop_at[0] = all_of_them + 3  # within the first questions that are asked alone
        assert command(*words) == 2 and "no more" in capsys.readouterr().err
        stop_at[0], before = 0, len(seen)
        assert command(*words) == 0
        assert len(seen) - before == warm + 3 * a_round - 3, "those three are kept; who was warm is warmed again"
        before = len(seen)
        assert command(*words) == 0 and len(seen) == before, "all is there"
        assert {body["max_tokens"] for body in seen} == {24} and {body["temperature"] for body in seen} == {0.0}
        path = run_folder("r") / "seconds" / "answers.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-2]))  # killed while the last twenty were written
        assert command(*words) == 0
        assert len(seen) - before == all_of_them + 20, "answers that were under way together start anew together"
        before = len(seen)
        monkeypatch.setenv("DISTIL_EXTRA", '{"top_k": 1}')
        assert command(*words) == 0 and len(seen) - before == warm + 3 * a_round, "asked otherwise, asked again"
        monkeypatch.delenv("DISTIL_EXTRA")
    found = json.loads((tmp_path / "seconds.json").read_text())
    rows = {(row["student"], row["at_once"]): row for row in found["rows"]}
    assert len(rows) == 6 and {row["rounds"] for row in rows.values()} == {3}
    assert [rows["fast", k]["requests"] for k in (1, 20)] == [n, max(20, all_of_them)]
    alone, many = rows["fast", 1], rows["fast", 20]
    assert (alone["accuracy"], alone["tokens_per_answer"], alone["cut_off"]) == (1, 10, 0)
    assert (rows["base", 20]["accuracy"], rows["base", 20]["cut_off"]) == (0, 20)
    assert alone["seconds"] == pytest.approx(n * alone["seconds_per_answer"], abs=1e-3)
    assert many["latency_median"] > 2 * many["seconds_per_answer"], "requests wait beside each other"
    assert alone["least"]["seconds"] <= alone["seconds"] <= alone["most"]["seconds"]
    ratios = {row["student"]: row for row in found["ratios"]}
    assert ratios["fast"]["tokens"] == {"ratio": 4, "ci_low": 4, "ci_high": 4} and ratios["fast"]["over"] == "base"
    assert ratios["teacher"]["tokens"]["ratio"] == 0.25 and ratios["fast"]["seconds"]["ci_low"] > 0


def test_a_server_of_our_own_has_all_students_and_ends(command, tmp_path, monkeypatch):
    vllm_program.put(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    words = ("--students", "base,fast", "--n", "2", "--at-once", "1", "4")
    assert command(*words) == 0
    starts = (run_folder("r") / "server.log").read_text().count("vllm serve")
    assert starts == 1, "one server for both"
    assert command(*words) == 0 and (run_folder("r") / "server.log").read_text().count("vllm serve") == 1, (
        "all is there"
    )
    rows = json.loads((tmp_path / "seconds.json").read_text())["rows"]
    assert [(row["student"], row["at_once"], row["tokens_per_answer"]) for row in rows] == [
        ("base", 1, 3), ("base", 4, 3), ("fast", 1, 3), ("fast", 4, 3),
    ]  # fmt: skip


def test_the_table_of_results_names_the_files_where_they_are(tmp_path, monkeypatch):
    before = tables.files()
    assert "seconds.json" not in before or (tables.RESULTS / "seconds.json").exists()
    shutil.copytree(tables.RESULTS, tmp_path / "results")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    for name, rows in (("seconds", [{"student": "fast", "at_once": 1}]), ("pages", [{"student": "fast"}])):
        made = {"command": f"python benchmarks/{name}.py x", "rows": rows, "gpu": "G", "cores": 2, "commit": "abc"}
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(made))
        assert f"| `python benchmarks/{name}.py x` | G, 2 cores | abc |" in tables.files()

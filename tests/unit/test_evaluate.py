"""What is made of answers: the figures of a student, the tables of 07 and its curves, on answers made by hand."""

import pytest

from distil.evaluate import metrics, settings, tables
from distil.evaluate.answers import judged
from distil.workspace import plots
from distil.workspace.files import read_csv
from distil.workspace.rows import Completion, Problem


def row(question: str, sample: int, answer: str | None, correct: bool, n_tokens: int = 10, **more) -> Completion:
    text = "Hm." if answer is None else f"So \\boxed{{{answer}}}"
    made = {"id": question, "sample": sample, "text": text, "answer": answer, "correct": correct, "n_tokens": n_tokens}
    return Completion(**made | {"finish_reason": "stop", "seconds": 0.5} | more)


def problem(name: str = "1", task: str = "sums", verifier: str = "math") -> Problem:
    return Problem(id=name, domain="math", task=task, question="?", answer="1", verifier=verifier, source="made up")


# four answers to each of three questions: three right, one right, none and silent
ROWS = [
    row("a", 0, "4", True), row("a", 1, " 4", True), row("a", 2, r"\text{4}", True), row("a", 3, "5", False, 50),
    row("b", 0, "7", True), row("b", 1, "8", False), row("b", 2, "8", False), row("b", 3, "9", False),
    row("c", 0, None, False, 90, finish_reason="length"), row("c", 1, None, False), row("c", 2, "1", False),
    row("c", 3, None, False),
]  # fmt: skip


def test_the_figures_of_several_answers_a_question():
    summary = metrics.summarise("fast", ROWS)
    assert ",".join(summary) == (
        "student,n,accuracy,ci_low,ci_high,tokens_per_answer,tokens_median,tokens_p95,seconds_per_answer,"
        "tokens_per_second,cut_off,no_answer,boxed,samples,pass_at_k,majority_at_k"
    )
    assert (summary["n"], summary["samples"]) == (3, 4)
    assert summary["accuracy"] == pytest.approx(4 / 12, abs=1e-4), "pass@1 is the mean over all answers"
    assert summary["pass_at_k"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["majority_at_k"] == pytest.approx(1 / 3, abs=1e-4), "three spellings of 4 are one answer"
    assert summary["cut_off"] == pytest.approx(1 / 12, abs=1e-4) and summary["no_answer"] == 0.25
    assert summary["tokens_per_answer"] == pytest.approx(20, abs=0.01) and summary["tokens_median"] == 10
    assert summary["seconds_per_answer"] == 0.5 and summary["tokens_per_second"] == 40
    assert metrics.shares(ROWS) == [0.75, 0.25, 0]


def test_one_answer_a_question_has_wilsons_interval_and_the_figures_it_had():
    single = [row(str(i), 0, "1", i < 3) for i in range(10)]
    summary = metrics.summarise("fast", single)
    assert (summary["ci_low"], summary["ci_high"]) == (0.1078, 0.6032)  # Wilson's of 3 in 10, by hand
    assert summary["accuracy"] == summary["pass_at_k"] == summary["majority_at_k"] == 0.3
    assert tables.results([summary])[0][-1] == "no answer"


def test_curves_begin_at_accuracy_and_pass_at_k_only_rises():
    curve = metrics.curve(ROWS)
    assert [k for k, _, _ in curve] == [1, 2, 4]
    assert curve[0][1] == pytest.approx(1 / 3) and curve[0][2] == pytest.approx(1 / 3)
    assert [p for _, p, _ in curve] == sorted(p for _, p, _ in curve)
    assert [k for k, _, _ in metrics.curve([r for r in ROWS if r.sample < 3])] == [1, 2, 3]
    with pytest.raises(ValueError, match="pass@5"):
        metrics.at_k(ROWS, 5)


def test_differences_are_of_those_students_that_are_there():
    better = [r.replace(correct=r.id != "c") for r in ROWS]
    gaps = metrics.differences({"base": ROWS, "fast": better}, seed=0)
    assert [(g["of"], g["to"]) for g in gaps] == [("fast", "base")]
    assert gaps[0]["difference"] == pytest.approx(1 / 3)
    pairs = metrics.differences({"base": ROWS, "slow": ROWS, "fast": ROWS}, seed=0)
    assert [(g["of"], g["to"]) for g in pairs] == [("slow", "base"), ("fast", "base"), ("fast", "slow")]
    assert tables.gaps(gaps)[1][0][:2] == ["fast - base", "+33.3"]
    judged = metrics.differences(dict.fromkeys(("shortest", "fast", "adaptive"), ROWS), seed=0)
    assert [(g["of"], g["to"]) for g in judged] == [("fast", "shortest"), ("adaptive", "fast")]


def test_seconds_that_nobody_measured_are_not_made_up():
    unknown = [r.replace(seconds=None if r.sample else 0.5) for r in ROWS]
    assert metrics.summarise("fast", unknown)["seconds_per_answer"] == 0.5


@pytest.mark.parametrize(("seconds", "said"), [(12.345, "12.35"), (0.1, "0.10"), (0.0123, "0.012"), (0.004, "0.004")])
def test_a_server_takes_milliseconds(seconds, said):
    assert metrics.duration(seconds) == said


def test_tables_and_pictures(tmp_path):
    results = [metrics.summarise(name, ROWS) for name in ("base", "slow")]
    results[0]["tokens_per_answer"] = 10.0
    columns, body = tables.results(results)
    assert columns[-2:] == ["pass@4", "majority@4"] and len(body[0]) == len(columns)
    assert tables.speeds(results, "slow")[1][0][:3] == ["base", "10", "2.0x"]
    problems = [problem("a", "sum"), problem("b", "sum"), problem("c", "word")]
    assert tables.families({"base": ROWS}, problems)[1] == [["sum", "2", "50%"], ["word", "1", "0%"]]
    plots.pass_at_k({"base": metrics.curve(ROWS), "slow": metrics.curve(ROWS)}, tmp_path / "curve")
    points = read_csv(tmp_path / "curve.csv")
    assert [(p["student"], p["k"]) for p in points] == [(s, k) for s in ("base", "slow") for k in (1, 2, 4)]
    assert (tmp_path / "curve.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("temperature", "said"), [(0.0, {"sampling": "greedy"}), (0.6, {"top_p": 0.95, "top_k": "off"})]
)
def test_what_was_asked_is_pinned(temperature, said):
    asked = settings.pin(
        "aime2024", {"revision": "c" * 40}, [problem()] * 2, temperature=temperature, samples=4, seed=3
    )
    assert said.items() <= asked.items() and asked["source"]["revision"] == "c" * 40
    assert asked["prompt"][-1]["content"].startswith("{question}") and asked["repetition_penalty"] == 1.0
    both = settings.pin("held-out", {}, [problem(), problem(verifier="code")], temperature=temperature)
    assert both["prompt"] == asked["prompt"] and "```python" in both["prompt_others"][-1]["content"]
    assert "prompt_others" not in asked


def test_tokens_against_difficulty_by_hand():
    problems = [problem("a"), problem("b"), problem("c", "proofs")]
    one = [row(i, 0, "1", c, n) for i, c, n in (("a", True, 10), ("b", True, 20), ("c", False, 90))]
    two = [row(i, 0, "1", c, n) for i, c, n in (("a", False, 5), ("b", True, 5), ("c", True, 5))]
    found = metrics.by_difficulty({"adapts": one, "does not": two}, problems)
    assert found == {"adapts": [(25.0, 15.0), (50.0, 90.0)], "does not": [(25.0, 5.0), (50.0, 5.0)]}


def test_what_several_answer_to_a_problem_is_judged_once(monkeypatch):
    """A program takes a quarter of a second to run. Problems that share a name are problems of their own."""
    asked = []

    def is_right(verifier, answer, problem):
        asked.append((answer, problem.answer))
        return answer == problem.answer

    monkeypatch.setattr("distil.verify.verifier.Verifier.is_right", is_right)
    one, two, known = problem(), problem().replace(answer="2"), {}
    texts = ["So \\boxed{1}", "That is \\boxed{1}", "\\boxed{2}", "\\boxed{1}", "\\boxed{2}"]
    wanted = [("1", True), ("1", True), ("2", False), ("1", False), ("2", True)]
    assert judged(texts, [one, one, one, two, two], known) == wanted
    assert asked == [("1", "1"), ("2", "1"), ("1", "2"), ("2", "2")]
    assert judged([*texts[:2], "\\boxed{3}"], [one] * 3, known) == [*wanted[:2], ("3", False)]
    assert asked[4:] == [("3", "1")]

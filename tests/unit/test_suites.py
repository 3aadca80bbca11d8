"""Suites: which problems are asked, how often, and where they come from."""

import json

import pytest

from distil.evaluate import metrics, published_scores, recheck, settings, suites, tables
from distil.problems.dedup import clean
from distil.problems.errors import ProblemError
from distil.problems.sources import generate
from distil.publish import cards
from distil.sandbox import confine
from distil.workspace.files import write_jsonl
from distil.workspace.rows import Completion, Problem


def held_out(n: int) -> list[Problem]:
    return [p for p in generate("starter", 5, n, seed=0) if p.split == "test"]


@pytest.mark.parametrize(("text", "samples", "temperature"), [
    ("held-out", 1, 0), ("harder?n=20", 1, 0), ("aime2024", 64, 0.6), ("math-500?samples=1", 1, 0),
    ("hub:mmlu-pro?n=100&samples=2", 2, 0.6), ("gpqa-diamond?temperature=1", 8, 1.0),
    ("held-out?temperature=1", 1, 1.0),
])  # fmt: skip
def test_how_often_is_asked(text, samples, temperature):
    suite = suites.read(text)
    assert (suite.samples, suite.temperature) == (samples, temperature)


@pytest.mark.parametrize(("text", "folder"), [
    ("held-out?n=5", ""), ("held-out?samples=4", "held-out/"), ("harder", "harder/"),
    ("hub:a/b?question=q&answer=a", "a-b/"),
])  # fmt: skip
def test_only_greedy_answers_to_held_out_problems_lie_where_cards_look(text, folder):
    assert suites.read(text).folder == folder


@pytest.mark.parametrize(("text", "message"), [
    ("aime", "no suite 'aime'; there are: held-out, harder"), ("held-out?revision=x", "not 'revision'"),
    ("harder?samples=0", "samples 1 or more"), ("aime2024?samples=4&temperature=0", "above 0 where several"),
    ("aime2024?n=few", "whole numbers"), ("hub:a/b", "question=FIELD"),
    ("math-500?shuffle=1", "unknown option 'shuffle'"),
])  # fmt: skip
def test_suites_that_cannot_be_meant(text, message):
    with pytest.raises(ProblemError, match=message):
        suites.read(text)


def test_held_out_problems_come_by_turns_and_code_only_where_it_can_run(monkeypatch):
    monkeypatch.setattr(confine, "mechanism", lambda: None)
    rows = held_out(20)
    made = {"id": "c", "domain": "code", "task": "code", "question": "Add.", "answer": "", "source": "made up"}
    code = Problem(**made, verifier="code", tests=["f() == 1"])
    test, source = suites.load(suites.read("held-out?n=7"), [*rows, code], seed=0)
    assert len({p.task for p in test[:5]}) == 5 and len(test) == 7 and source == {"name": "held-out", "problems": 7}
    whole, _ = suites.load(suites.read("held-out"), [*rows, code], seed=0)
    assert len(whole) == 20 and whole[:7] == test
    with pytest.raises(ProblemError, match="none of its 1 problems could be checked here"):
        suites.load(suites.read("held-out"), [code], seed=0)
    monkeypatch.setattr(confine, "mechanism", lambda: "a sandbox")
    assert suites.load(suites.read("held-out"), [code], seed=0)[0] == [code]


def test_humaneval_comes_from_its_wheel(monkeypatch):
    from distil.problems import humaneval

    monkeypatch.setattr(confine, "mechanism", lambda: "a sandbox")
    record = {"task_id": "HumanEval/0", "prompt": "def f(x):", "entry_point": "f", "test": "assert f(1)",
              "canonical_solution": "    return x"}  # fmt: skip
    monkeypatch.setattr(
        humaneval, "load", lambda: [humaneval.problem_of(record | {"task_id": str(i)}) for i in range(4)]
    )
    test, source = suites.load(suites.read("humaneval?n=3"), [], seed=0)
    known = {"name": "humaneval", "package": humaneval.WHEEL, "problems": 3}
    assert len(test) == 3 and source == known | {"not_as_published": "asked in the students' words"}


def test_harder_problems_are_of_the_same_families_and_were_not_trained_on():
    harder, source = suites.load(suites.read("harder?n=25"), [], seed=0)
    easier = generate("starter", 200, 50, seed=0)
    assert source["problems"] == len(harder) == 25
    assert {p.task for p in harder} == {p.task for p in easier}
    assert not {p.question for p in harder} & {p.question for p in easier}
    assert clean(harder)[0] == harder, "no question twice, none nearly so"


@pytest.fixture
def benchmark(tmp_path, monkeypatch) -> str:
    import datasets

    folder = tmp_path / "acme" / "exam"
    folder.mkdir(parents=True)
    rows = [json.dumps({"q": f"What is {i} + {i}?", "a": str(2 * i)}) for i in range(30)]
    (folder / "test.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return "hub:acme/exam?question=q&answer=a&split=test"


def test_a_benchmark_is_read_whole_in_its_order_or_drawn_from(benchmark):
    test, source = suites.load(suites.read(benchmark), [], seed=0)
    assert [p.answer for p in test] == [str(2 * i) for i in range(30)]
    assert source == {"name": "acme/exam", "repository": "acme/exam", "revision": None, "problems": 30}
    some, _ = suites.load(suites.read(f"{benchmark}&n=10"), [], seed=0)
    assert len(some) == 10 and some != test[:10] and all(p in test for p in some)
    assert suites.load(suites.read(f"{benchmark}&n=10"), [], seed=0)[0] == some
    assert suites.load(suites.read(f"{benchmark}&n=10"), [], seed=1)[0] != some


@pytest.mark.parametrize(("asked", "recorded"), [(None, "f" * 40), ("v2", "e" * 40), ("a" * 40, "a" * 40)])
def test_the_revision_is_recorded_as_a_commit(monkeypatch, asked, recorded):
    import huggingface_hub

    class Info:
        def __init__(self, sha):
            self.sha = sha

    def dataset_info(_, repository, revision):
        return Info({None: "f" * 40, "v2": "e" * 40}[revision])

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert suites.commit_of({"repository": "a/b", "revision": asked}) == recorded


def test_a_gated_benchmark_says_what_to_do(monkeypatch):
    import datasets

    def gated(*_, **__):
        raise RuntimeError("Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", gated)
    with pytest.raises(ProblemError, match="accept its terms on its page on the Hub and set HF_TOKEN"):
        suites.load(suites.read("gpqa-diamond"), [], seed=0)


def test_published_scores_come_with_their_doubts():
    rows = published_scores.rows
    doubted = {
        suite: {m for m, _, _, doubt in rows(suite) if "questions" in doubt} for suite in published_scores.benchmarks()
    }
    assert doubted["aime2024"] == {"OpenThinker-7B"}, "31.3% of 30 questions is no whole number of them"
    assert doubted["gpqa-diamond"] == {"DistilQwen-ThoughtX-32B"} and not doubted["math-500"]
    for model, score, _, doubt in rows("math-500"):
        assert float(score.rstrip("%")) > 70 and ("label" in doubt) == ("-R1-" in model or "DS3" in model)
    assert [row[2] for row in rows("mmlu-pro")] == ["690", "4198"] and rows("held-out") == []


def test_figures_beside_published_ones_say_what_is_not_as_published(tmp_path):
    """LiveCodeBench is judged here by its public tests, and stood beside published scores without a word."""
    for suite in ("aime2024", "math-500", "gpqa-diamond", "mmlu-pro", "livecodebench"):
        _, (ours, *others) = tables.published(suite)
        assert ours[0].startswith("not published") and "asked in the students' words" in ours[3] and others, suite
    assert "public tests only" in tables.published("livecodebench")[1][0][3]
    assert "choices in an order of our own" in tables.published("gpqa-diamond")[1][0][3]
    assert tables.published("held-out")[1] == [] and published_scores.label("held-out") == ""
    row = metrics.summarise("fast", [Completion(id="a", of="", text="", n_tokens=1, finish_reason="stop", seconds=1.0,
                                                answer="1", correct=True, sample=0)])  # fmt: skip
    for suite, noted in (("livecodebench", True), ("held-out", False)):
        source = {"name": suite} | ({"not_as_published": published_scores.label(suite)} if noted else {})
        (tmp_path / settings.FILE).write_text(json.dumps({"suite": suite, "source": source}))
        metrics.write_results([row], [row], tmp_path)
        assert ("public tests only" in (tmp_path / "results.md").read_text()) == noted
    facts = {"01_collect/meta.json": {"params": {"problems": "hub:livecodebench?n=5"}}}
    assert cards.suite(facts) == "suite `hub:livecodebench` (public tests only; asked in the students' words)"


def test_a_measurement_of_a_benchmark_is_worked_out_anew_with_its_label(tmp_path):
    rows = [Problem(id="a", domain="math", task="sums", question="1 + 1?", answer="2", verifier="exact", source="s")]
    answer = Completion(id="a", of="", text="\\boxed{2}", n_tokens=1, finish_reason="stop", seconds=1.0, answer="2",
                        correct=True, sample=0)  # fmt: skip
    write_jsonl(tmp_path / "problems.jsonl", rows)
    write_jsonl(tmp_path / "completions/fast.jsonl", [answer])
    source = {"name": "livecodebench", "not_as_published": published_scores.label("livecodebench")}
    (tmp_path / settings.FILE).write_text(json.dumps({"source": source, "seed": 0, "samples": 1}))
    recheck.headless()
    recheck.work_out({"fast": [answer]}, rows, tmp_path, seed=0, samples=1)
    assert "public tests only" in (tmp_path / "results.md").read_text()
    assert recheck.recheck(tmp_path, ["fast"]) == []
    metrics.write_text(tmp_path / "results.md", metrics.markdown([metrics.summarise("fast", [answer])]))
    assert recheck.recheck(tmp_path, ["fast"]) == [f"{tmp_path / 'results.md'}: is not what the answers give"]


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "n"), [("aime2024", 30), ("math-500", 500), ("mmlu-pro", 12032), ("gpqa-diamond", 198)]
)
def test_benchmarks_of_the_hub_have_their_published_size(name, n):
    test, source = suites.load(suites.read(name), [], seed=0)
    assert len(test) == source["problems"] == n

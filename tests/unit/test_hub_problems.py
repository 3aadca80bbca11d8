"""Maps of Hub data sets, on hand-made rows of their schemas; against the Hub itself under the marker `network`."""

import json

import httpx
import pytest

from distil.problems.errors import ProblemError
from distil.problems.fields import field_of
from distil.problems.hub import DATA_SETS, fetch, hub_map, load_hub, rows_from
from distil.problems.sources import gather
from distil.verify.registry import is_correct

# one row of each set, with all fields of its card; contents are made up
RECORDS = {
    "gsm8k": {
        "question": "Tom has 600 nuts and buys 400.", "answer": "600 + 400 = <<600+400=1000>>1,000\n#### 1,000",
    },
    "math": {
        "problem": "Half of 1?", "level": "Level 1", "type": "Algebra", "solution": r"We get $\boxed{\frac{1}{2}}$.",
    },
    "openr1-math": {
        "problem": "What is 2 + 3?", "solution": "It is 5.", "answer": "5", "problem_type": "Algebra",
        "question_type": "math-word-problem", "source": "olympiads", "uuid": "u", "generations": ["<think>"],
    },
    "numinamath": {
        "source": "olympiads", "problem": "Find x: x^2 = 4, x > 0", "solution": r"So $\boxed{2}$", "messages": [],
    },
    "openthoughts": {
        "problem": "What is 7 * 8?", "deepseek_reasoning": "…", "deepseek_solution": "…", "domain": "math",
        "ground_truth_solution": r"$\boxed{56}$", "source": "numina_math", "test_cases": None, "starter_code": None,
    },
    "openthoughts-code": {
        "problem": "Print the sum.", "deepseek_reasoning": "…", "deepseek_solution": "…", "domain": "code",
        "ground_truth_solution": None, "source": "taco", "starter_code": "def f(a, b):",
        "test_cases": '{"inputs": ["1 2"], "outputs": ["3"]}',
    },
    "livecodebench": {
        "question_title": "A", "question_content": "Print the sum.", "platform": "atcoder", "question_id": "a",
        "contest_id": "c", "contest_date": "2023-05-07", "starter_code": "", "difficulty": "easy", "metadata": "{}",
        "public_test_cases": '[{"input": "1 2", "output": "3", "testtype": "stdin"}]', "private_test_cases": "eJw",
    },
    "aime2024": {
        "id": 60, "problem": "How many?", "solution": "…", "answer": "025", "year": "2024",
        "url": "https://example.org",
    },
    "math-500": {
        "problem": "Which angle?", "solution": r"$\boxed{90^\circ}$", "answer": r"90^\circ", "subject": "Geometry",
        "level": 2, "unique_id": "test/geometry/1.json",
    },
    "gpqa-diamond": {
        "Question": "Which is noble?\n", "Correct Answer": "argon\n", "Incorrect Answer 1": "iron",
        "Incorrect Answer 2": "sodium", "Incorrect Answer 3": "water", "Explanation": "…", "Subdomain": "Chemistry",
        "High-level domain": "Chemistry", "Record ID": "rec1",
    },
    "mmlu-pro": {
        "question_id": 70, "question": "Which is a fruit?", "options": ["a stone", "a pear", "a nail"], "answer": "B",
        "answer_index": 1, "cot_content": "", "category": "biology", "src": "ori_mmlu-botany",
    },
}  # fmt: skip
ANSWERS = {
    "aime2024": "025",
    "math-500": r"90^\circ",
    "gpqa-diamond": "B",
    "mmlu-pro": "B",
    "gsm8k": "1,000",
    "math": r"\frac{1}{2}",
    "openr1-math": "5",
    "numinamath": "2",
    "openthoughts": "56",
}
MATH_500 = {
    "problem": "Who is late?", "solution": r"$\boxed{\text{Ann}}$", "answer": r"\text{Ann}", "subject": "Algebra",
    "level": 2, "unique_id": "test/algebra/1.json",
}  # fmt: skip


@pytest.mark.parametrize("name", DATA_SETS)
def test_ready_made_maps_read_their_schemas(name):
    (row,), removed = rows_from([(7, RECORDS[name])], hub_map(name, {}), "train", 5)
    assert removed == [] and row.id == f"{name}-train-000007" and row.split == "train"
    assert row.answer == ANSWERS.get(name, "")
    if name in ANSWERS:
        assert row.verifier == ("choice" if row.choices else "math")
        assert is_correct(f"\\boxed{{{row.answer}}}", row) and not is_correct(r"\boxed{C}", row)
    else:
        assert row.verifier == "code" and row.tests
    json.dumps(row.to_dict())


def test_words_are_compared_as_words():
    mapping = hub_map("math", {})
    (row,), _ = rows_from([(0, MATH_500)], mapping | mapping["test"], "test", 1)
    assert row.verifier == "exact"
    assert is_correct(r"\boxed{Ann}", row) and not is_correct(r"\boxed{Nan}", row)


def test_starter_code_and_choices_are_part_of_the_question():
    (code,), _ = rows_from([(0, RECORDS["openthoughts-code"])], hub_map("openthoughts-code", {}), "train", 1)
    assert code.question.endswith("def f(a, b):")
    record = {"question": "Which is a fruit?", "options": ["a stone", "a pear"], "answer": "B"}
    mapping = hub_map("a/b", {"question": "question", "answer": "answer", "choices": "options", "verifier": "choice"})
    (row,), _ = rows_from([(0, record)], mapping, "train", 1)
    assert row.question.endswith("A) a stone\nB) a pear") and is_correct(r"\boxed{a pear}", row)


def test_choices_must_be_a_list():
    options = {"question": "question", "answer": "answer", "choices": "choices", "verifier": "choice"}
    record = {"question": "Which?", "choices": {"text": ["a stone", "a pear"]}, "answer": "B"}
    with pytest.raises(ProblemError, match="row 4: field `choices` is no list of at most 26 choices"):
        rows_from([(4, record)], hub_map("a/b", options), "train", 1)
    (row,), _ = rows_from([(4, record)], hub_map("a/b", options | {"choices": "choices.text"}), "train", 1)
    assert row.choices == ["a stone", "a pear"]


def test_choices_of_several_fields_are_shuffled_by_the_question():
    mapping = hub_map("gpqa-diamond", {})
    right = set()
    for number in range(40):
        record = RECORDS["gpqa-diamond"] | {"Question": f"Which is noble ({number})?"}
        ((row,), _), ((again,), _) = (rows_from([(number, record)], mapping, "test", 1) for _ in range(2))
        assert row == again and row.choices["ABCD".index(row.answer)] == "argon"
        assert set(row.choices) == {"argon", "iron", "sodium", "water"}
        assert f"{row.answer}) argon" in row.question and is_correct(r"\boxed{argon}", row)
        right.add(row.answer)
    assert right == set("ABCD"), "the right one stands everywhere"
    with pytest.raises(ProblemError, match="no field 'Incorrect Answer 2'"):
        record = {key: value for key, value in record.items() if key != "Incorrect Answer 2"}
        rows_from([(0, record)], mapping, "test", 1)


def test_rows_of_another_domain_are_passed_over():
    rows, removed = rows_from([(0, RECORDS["openthoughts-code"])], hub_map("openthoughts", {}), "train", 1)
    assert rows == removed == []


@pytest.mark.parametrize("solution", ["It follows. QED", r"\boxed{}", r"\boxed{proof}", r"\boxed{\frac{}", None])
def test_a_gold_answer_that_cannot_be_read_never_passes(solution):
    record = RECORDS["numinamath"] | {"solution": solution}
    with pytest.raises(ProblemError, match="hub:numinamath, row 3: .*unreadable=drop"):
        rows_from([(3, record)], hub_map("numinamath", {"unreadable": "refuse"}), "train", 1)
    rows, removed = rows_from([(3, record)], hub_map("numinamath", {}), "train", 1)
    assert rows == [] and removed[0]["reason"]


def test_a_missing_field_is_named_with_those_there_are():
    mapping = hub_map("a/b", {"question": "problem", "answer": "solution"})
    with pytest.raises(ProblemError, match="row 0: no field 'problem'; there are: question, answer"):
        rows_from([(0, RECORDS["gsm8k"])], mapping, "train", 1)


def test_fields_within_fields_and_answers_that_are_no_text():
    mapping = hub_map("a/b", {"question": "data.q", "answer": "data.a"})
    (row,), _ = rows_from([(0, {"data": {"q": "2 + 2?", "a": 4}})], mapping, "train", 1)
    assert (row.question, row.answer) == ("2 + 2?", "4")
    mapping = hub_map("a/b", {"question": "prompt.0.content", "answer": "reward_model.ground_truth"})
    record = {"prompt": [{"role": "user", "content": "2 + 3?"}], "reward_model": {"ground_truth": "2 + 3 = 5\n#### 5"}}
    (row,), _ = rows_from([(0, record)], mapping, "train", 1)
    assert (row.question, row.answer) == ("2 + 3?", "5")
    with pytest.raises(ProblemError, match="row 7: no field 'prompt.0.content'; there are: prompt"):
        rows_from([(7, record | {"prompt": []})], mapping, "train", 1)
    mapping = hub_map("a/b", {"question": "data.q", "answer": "data.a"})
    for value in ([4], {"value": 4}, True):
        with pytest.raises(ProblemError, match="hub:a/b, row 7: field `answer` is .*unreadable=drop"):
            rows_from([(7, {"data": {"q": "2 + 2?", "a": value}})], mapping, "train", 1)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("gsm9k", {}, "there are: gsm8k, math"),
    ("a/b", {}, "question=FIELD&answer=FIELD"),
    ("gsm8k", {"splits": "train"}, "unknown option 'splits'"),
    ("gsm8k", {"read": "guess"}, "must be one of plain, hash, boxed"),
    ("gsm8k", {"verifier": "oracle"}, "must be one of math, exact, choice"),
])  # fmt: skip
def test_refused_before_anything_is_fetched(name, options, message):
    with pytest.raises(ProblemError, match=message):
        load_hub(name, options, n_train=1, n_test=1, seed=0)


@pytest.fixture
def local_set(tmp_path, monkeypatch):
    """A data set in a folder: `datasets` reads it under the name acme/sums as it would from the Hub."""
    import datasets

    folder = tmp_path / "acme" / "sums"
    folder.mkdir(parents=True)
    for split, n in (("train", 40), ("test", 10)):
        lines = [json.dumps({"q": f"{split}: what is {i} + 1?", "a": str(i + 1)}) for i in range(n)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return "hub:acme/sums?question=q&answer=a"


def test_a_data_set_is_drawn_from_by_seed(local_set):
    rows, removed = gather(local_set + "&test=test", 12, 4, 0)
    assert removed == [] and [r.split for r in rows] == ["test"] * 4 + ["train"] * 12
    assert all(r.question.startswith(r.split) and r.source == "acme/sums" for r in rows)
    assert gather(local_set + "&test=test", 12, 4, 0)[0] == rows
    assert {r.id for r in gather(local_set + "&test=test", 12, 4, 1)[0]} != {r.id for r in rows}


def test_one_split_serves_both_without_overlap(local_set):
    rows, _ = gather(local_set, 12, 4, 0)
    assert len({r.question for r in rows}) == 16 and all(r.question.startswith("train") for r in rows)


@pytest.mark.parametrize(("more", "message"), [
    ("&split=dev", "hub:acme/sums .*dev.*check the name, config, split"),
    ("&answer=gold", "no field 'gold'; there are: q, a"),
])  # fmt: skip
def test_wrong_splits_and_fields_of_a_data_set(local_set, more, message):
    with pytest.raises(ProblemError, match=message):
        gather(local_set + more, 4, 4, 0)


@pytest.mark.parametrize(("error", "advice"), [
    (ConnectionError("Couldn't reach the Hub"), "cannot be reached from here"),
    (httpx.ConnectError("[Errno -2] Name or service not known"), "cannot be reached from here"),
    (RuntimeError("Dataset 'x' is a gated dataset on the Hub"), "accept its terms"),
    (ValueError("BuilderConfig 'x' not found"), "check the name, config"),
])  # fmt: skip
def test_what_the_hub_refuses_is_one_clear_error(monkeypatch, error, advice):
    import datasets

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ProblemError, match=advice):
        load_hub("gsm8k", {}, n_train=1, n_test=1, seed=0)


@pytest.mark.network
@pytest.mark.parametrize("name", DATA_SETS)
def test_maps_against_the_hub(name, monkeypatch):
    import datasets

    original = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: original(*a, **k, streaming=True))
    mapping = hub_map(name, {})
    test = mapping.get("test")
    for changes in ({}, test if isinstance(test, dict) else {"split": test} if test else {}):
        whole = mapping | changes
        if changes.get("repository"):
            whole.pop("config", None)
        rows, removed = rows_from(enumerate(fetch(whole)), whole, "train", 5)
        assert len(rows) == 5 and len(removed) <= 50


@pytest.mark.parametrize(("name", "value"), [
    ("prompt.0.content", "q"), ("prompt.-1.content", "q"), ("a.b", 1), ("a.b.c", None), ("a.c", 3), ("d.e.f", 4),
    ("prompt.1", None), ("prompt.x", None), ("a.c.0", None), ("", None),
])  # fmt: skip
def test_a_field_is_found_by_its_path(name, value):
    record = {"prompt": [{"content": "q"}], "a.b": 1, "a": {"b": 2, "c": 3}, "d": {"e.f": 4}}
    if value is None:
        with pytest.raises(KeyError):
            field_of(record, name)
    else:
        assert field_of(record, name) == value

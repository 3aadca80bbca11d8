import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from distil.evaluate.pass_rate import pass_rates
from distil.problems.dedup import clean
from distil.problems.errors import ProblemError
from distil.problems.sources import SUITES, gather, generate, read_file, read_questions, read_rows
from distil.verify.registry import is_correct
from distil.workspace.errors import StageError
from distil.workspace.rows import as_plain


def test_no_question_twice_and_splits_stay_when_sizes_change():
    small, large = generate("starter", 20, 10, seed=0), generate("starter", 40, 5, seed=0)
    assert len({row.question for row in large}) == len(large)
    by_id = {row.id: row.question for row in large}
    assert all(by_id[r.id] == r.question for r in small if r.split == "train")
    assert len(SUITES["starter"]) >= 4


def test_the_reference_suite_holds_2000_questions():
    rows = generate("reference", 1500, 500, seed=0)
    assert len(rows) == 2000 == len({row.question for row in rows})
    assert len([task for task in SUITES["reference"] if task != "programs"]) >= 8
    kept, removed = clean(rows)
    assert len([row for row in kept if row.split == "test"]) == 500
    assert len(removed) <= 25, "few training problems look like a test problem"
    code = [row for row in rows if row.verifier == "code"]
    assert {row.task for row in code} == {"programs"} and all(row.tests for row in code)


NEAR = {"chain_sum": ["{}", "${}$"], "products": ["{}", "{:,}"], "calendar_arithmetic": [r"\text{{{}}}"],
        "family_relationships": [r"\text{{{}}}", "{}"], "needle_haystack": [r"\text{{{}}}"], "lcm": ["${}$"],
        "decimal_chain_sum": ["{}0"]}  # fmt: skip


@pytest.mark.parametrize("task", [task for task in SUITES["reference"] if task != "programs"])
def test_the_reference_families_are_read_from_a_box(task):
    """Right answers as a model would box them pass, and no answer of another problem, nor one with more beside it."""
    rows = [row for row in generate("reference", 240, 0, seed=3) if row.task == task]
    answers = {row.answer for row in rows}
    assert len(answers) >= 5, "guessing does not help"
    assert max(sum(row.answer == a for row in rows) for a in answers) <= 0.4 * len(rows)
    for row in rows:
        assert is_correct(rf"So \boxed{{{row.answer}}}", row, boxed_only=True)
        wrong = [a for a in answers if not same(a, row.answer)]
        assert not any(is_correct(rf"\boxed{{{a}}}", row) for a in [*wrong, "", "?", f"{row.answer} or {wrong[0]}"])
        for form in NEAR.get(task, []):
            given = form.format(int(row.answer) if "," in form else row.answer)
            assert is_correct(rf"\boxed{{{given}}}", row, boxed_only=True), given


def same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def test_a_file_of_reference_problems_is_read_as_it_was_made(tmp_path):
    rows = generate("reference", 24, 12, seed=0)
    path = write(tmp_path / "mine.jsonl", rows)
    assert read_rows(path) == rows
    right = {row.id: rf"\boxed{{{row.answer}}}" for row in rows if row.verifier != "code"}
    asked = [row for row in rows if row.id in right]
    assert set(pass_rates(asked, [right[row.id] for row in asked]).values()) == {1.0}


def test_unknown_suite():
    with pytest.raises(ProblemError, match="starter"):
        generate("nope", 1, 1, 0)


@pytest.mark.slow
def test_family_too_small():
    with pytest.raises(ProblemError, match="different questions"):
        generate("starter", 5 * 6000, 5, 0)


GOOD = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(6)]


def write(path, rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(as_plain(r)) for r in rows))
    return path


def test_a_good_file(tmp_path):
    rows = read_file(write(tmp_path / "mine.jsonl", GOOD), n_train=3, n_test=2)
    assert [r.split for r in rows] == ["test", "test", "train", "train", "train"]
    assert len({r.id for r in rows}) == 5


@pytest.mark.parametrize(("bad", "message"), [
    ({"answer": "1"}, "line 3: field `question` is missing"),
    ({"question": "q", "answer": " "}, "line 3: field `answer` is empty"),
    ({"question": None, "answer": "1"}, "line 3: field `question` is null: write it as a text"),
    ({"question": [{"role": "user", "content": "q"}], "answer": "1"}, "line 3: field `question` is a list"),
    ({"question": "q", "answer": None}, "line 3: field `answer` is null"),
    ({"question": "q", "answer": ["1"]}, "line 3: field `answer` is a list"),
    ({"question": "q", "answer": {"value": 1}}, "line 3: field `answer` is an object"),
    ({"question": "q", "answer": True}, "line 3: field `answer` is true or false"),
    ({"question": "q", "answer": float("inf")}, "line 3: field `answer` is inf, as some programs write"),
    ({"question": "q", "answer": "1", "split": "holdout"}, "line 3: split 'holdout' is unknown; use one of train"),
    ({"question": "q", "answer": "A", "verifier": "choice", "choices": "a, b"}, "line 3: field `choices` must be"),
    ({"id": "row-00001", "question": "q", "answer": "1"}, "line 3: id 'row-00001' was used on line 1"),
    ({"question": "q", "answer": "1", "verifier": "magic"}, "line 3: verifier 'magic'"),
])  # fmt: skip
def test_a_bad_line_is_named(tmp_path, bad, message):
    with pytest.raises(ProblemError) as error:
        read_file(write(tmp_path / "mine.jsonl", [*GOOD[:2], bad, *GOOD[2:]]), 3, 2)
    assert message in str(error.value)


def test_a_whole_solution_as_answer_is_cut_and_said(tmp_path, capsys):
    rows = [{"question": "q1", "answer": "24 * 2 = 48\n#### 48"}, {"question": "q2", "answer": r"So \\boxed{5}."},
            {"question": "q3", "answer": "7"}]  # fmt: skip
    read = read_rows(write(tmp_path / "mine.jsonl", rows))
    assert [row.answer for row in read] == ["48", "5", "7"]
    assert "mine.jsonl: 2 answers were whole solutions" in capsys.readouterr().out


def test_numbers_of_a_file(tmp_path):
    rows = read_rows(
        write(tmp_path / "mine.jsonl", [{"question": "q", "answer": 3.0}, {"question": "r", "answer": 1e22}])
    )
    assert [row.answer for row in rows] == ["3", "1e+22"]
    assert is_correct(r"\boxed{10^{22}}", rows[1]) and not is_correct(r"\boxed{10^{21}}", rows[1])
    with pytest.raises(StageError, match="line 1: .*write such a number as a text"):
        read_rows(write(tmp_path / "large.jsonl", ['{"question": "q", "answer": ' + "1" * 5000 + "}"]))


@pytest.mark.parametrize("bad", ['{"question": "q", ', "[1]"])
def test_a_line_that_is_no_object_is_named(tmp_path, bad):
    with pytest.raises(StageError, match="(line|row) 3: "):
        read_file(write(tmp_path / "mine.jsonl", [*GOOD[:2], bad, *GOOD[2:]]), 3, 2)


def test_a_json_list_and_a_byte_order_mark_are_read(tmp_path):
    lines = write(tmp_path / "mine.jsonl", GOOD)
    listed = tmp_path / "mine.json"
    listed.write_text(json.dumps(GOOD, indent=1), encoding="utf-8-sig")
    assert [r.question for r in read_rows(listed)] == [r.question for r in read_rows(lines)]
    assert [r.question for r in gather(str(listed), 3, 2, 0)[0]] == [row["question"] for row in GOOD[:5]]
    lines.write_bytes(json.dumps({"question": "一加一?", "answer": "2"}, ensure_ascii=False).encode("gb18030"))
    with pytest.raises(StageError, match="line 1: not UTF-8 .*iconv -f GB18030"):
        gather(str(lines), 3, 2, 0)
    listed.write_text(json.dumps([*GOOD[:2], {"question": "q"}]))
    with pytest.raises(ProblemError, match="row 3: field `answer` is missing"):
        read_rows(listed)


def test_separators_of_unicode_end_no_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1\u2028+\u0085+ 1?", "answer": 2}\n{"question": "2?", "answer": 2.5}\n')
    first, second = read_rows(path)
    assert first.question == "1\u2028+\u0085+ 1?" and (first.answer, second.answer) == ("2", "2.5")
    assert [r.question for r in read_questions(path)] == [first.question, "2?"]


def test_splits_by_their_usual_names(tmp_path):
    names = ["train", "training", "Train", "test", "TEST", "validation", "valid", "val", "dev", "eval"]
    rows = [row | {"split": name} for row, name in zip(GOOD + GOOD, names, strict=False)]
    rows = [row | {"question": f"{i}: {row['question']}"} for i, row in enumerate(rows)]
    found = read_file(write(tmp_path / "mine.jsonl", rows), 100, 100)
    assert [r.split for r in found] == ["test"] * 7 + ["train"] * 3


@pytest.mark.parametrize("question", [None, ["q"], ""])
def test_a_question_that_must_not_be_learned_is_a_text(tmp_path, question):
    with pytest.raises(ProblemError, match="line 2: field `question` is"):
        read_questions(write(tmp_path / "exam.jsonl", [GOOD[0], {"question": question}]))


def test_code_rows_have_tests_instead_of_an_answer(tmp_path):
    code = {"question": "Add two numbers.", "verifier": "code", "tests": ["f(1, 2) == 3"]}
    rows = read_file(write(tmp_path / "mine.jsonl", [*GOOD[:2], code]), 2, 1)
    assert rows[-1].verifier == "code" and rows[-1].answer == ""
    with pytest.raises(ProblemError, match="line 1: verifier 'code' wants the tests"):
        read_file(write(tmp_path / "bad.jsonl", [{"question": "Add.", "verifier": "code"}]), 2, 1)


def test_fields_of_the_users_own_are_carried_along(tmp_path):
    own = {"question": "1+1?", "answer": "2", "level": 3, "extra": "mine"}
    (row,) = read_rows(write(tmp_path / "mine.jsonl", [own]))
    assert row.to_dict() | own == row.to_dict() and row.verifier == "math"


def test_a_missing_file(tmp_path):
    with pytest.raises(ProblemError, match="no such file"):
        read_file(tmp_path / "none.jsonl", 1, 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_another_editor_is_read(tmp_path, encoding):
    """As Windows writes it: a byte order mark, two bytes a letter, \\r\\n; with separators of Unicode within a line."""
    path = tmp_path / "mine.jsonl"
    asked = ["Wie viel ist\u2028 4 + 5?", "三加四等于几？\u0085"]
    rows = [json.dumps({"question": text, "answer": 9}, ensure_ascii=False) for text in asked]
    path.write_bytes("\r\n".join([*rows, ""]).encode(encoding))
    assert [row.question for row in read_rows(path)] == asked
    assert [row.question for row in read_questions(path)] == asked
    assert read_file(path, 1, 1)[1].answer == "9"
    path.write_bytes(b"\xff\xfe{\x00\x00\xd8")
    with pytest.raises(StageError, match="mine.jsonl, line 1: not UTF-16"):
        read_rows(path)


@pytest.mark.parametrize("field", ["question", "answer"])
@pytest.mark.parametrize(("value", "kind"), [
    ("null", "null"),
    ("[1]", "a list"),
    ('{"a": 1}', "an object"),
    ("true", "true or false"),
    ("NaN", "nan, as some programs write"),
])  # fmt: skip
def test_what_is_no_text_is_no_question_and_no_answer(tmp_path, field, value, kind):
    path = tmp_path / "mine.jsonl"
    good = {"question": '"What is 4 + 5?"', "answer": '"9"'}
    path.write_text("{" + ", ".join(f'"{name}": {text}' for name, text in (good | {field: value}).items()) + "}\n")
    with pytest.raises(ProblemError, match=f"mine.jsonl, line 1: field `{field}` is {kind}"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "split"), [("validation", "test"), ("dev", "test"), ("Train", "train"), ("TEST", "test")]
)
def test_no_row_is_lost_by_the_name_of_its_split(tmp_path, name, split):
    """Rows of a split of another name were in no set, and in removed.jsonl neither."""
    other = "train" if split == "test" else "test"
    rows = [
        {"question": f"What is {i} + 40?", "answer": i + 40, "split": s} for i, s in enumerate([name] * 3 + [other])
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept, removed = gather(str(path), 9, 9, 0)
    assert [row.split for row in kept].count(split) == 3 and len(kept) == 4 and removed == []


def test_answers_are_read_in_a_thread_and_without_a_warning(tmp_path, caplog, capfd, monkeypatch):
    """math-verify warned of a time limit that is ours to keep, and could read no gold answer within a thread."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "What is a half?", "answer": "1/2"}\n')
    for module in ("parser", "grader"):  # it warns once
        monkeypatch.setattr(f"math_verify.{module}.TIMEOUT_WARNING_SHOWN", False)
    with ThreadPoolExecutor(1) as pool:
        (row,) = pool.submit(read_rows, path).result()
        assert pool.submit(is_correct, r"\boxed{0.5}", row).result()
    assert is_correct(r"\boxed{0.5}", row) and caplog.text == "" and capfd.readouterr() == ("", "")

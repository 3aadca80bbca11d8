"""Duplicates, near-duplicates and contaminated problems are found; problems that differ in a number are not."""

import hashlib
import json

import pytest
from factories import a_problem

from distil.problems.dedup import clean, decontaminate, remove_duplicates
from distil.problems.errors import ProblemError
from distil.problems.sources import gather, generate, load

STORY = (
    "A farmer keeps {n} hens, and each of them lays an egg on every day of the week but Sunday. On the market in the "
    "town by the river she sells a dozen eggs for {p} dollars, and what is left over at the end of the week she gives "
    "to the neighbours, who live up the hill. How many dollars does she earn in a week from the eggs that she sells?"
)


def rows(*questions, split="train"):
    return [a_problem(id=f"{split}{i}", question=q, answer="1", split=split) for i, q in enumerate(questions, 1)]


def test_the_starter_suite_is_what_was_recorded():
    found = load("starter", 500, 150, 0)
    digest = hashlib.sha256(json.dumps([[r.id, r.question, r.answer] for r in found]).encode()).hexdigest()
    assert digest == "fd28e372b35b4e9f03231787e2bd40770d0f5b84bde467a50cc23ce4c69354d5"  # before cleaning existed
    assert found == generate("starter", 500, 150, 0)


def test_nothing_of_a_larger_starter_suite_is_removed():
    found = generate("starter", 1500, 300, 5)
    assert clean(found) == (found, [])


def test_short_questions_count_as_a_whole():
    different = rows("What is 3 + 4?", "What is 3 + 5?", "What is 3 - 4?", "What is 34?", "What is 3 + 4 + 5?")
    assert remove_duplicates(different) == (different, [])
    kept, removed = remove_duplicates(rows("What is 3 + 4?", "what is  3+4", "What is “3 + 4”"))
    assert [r.id for r in kept] == ["train1"] and len(removed) == 2
    assert removed[0]["reason"] == "duplicate question" and removed[0]["collides_with"] == "train1"
    assert removed[0]["collides_with_question"] == "What is 3 + 4?"


def test_a_duplicate_with_another_answer_is_named_so():
    pair = rows("What is 3 + 4?", "What is 3 + 4 ?")
    pair[1].answer = "8"
    assert remove_duplicates(pair)[1][0]["reason"] == "duplicate question, another answer"


def test_long_questions_may_differ_in_a_word_but_not_in_a_number():
    text = STORY.format(n=12, p=4)
    kept, removed = remove_duplicates(rows(text, text.replace("neighbours", "neighbors"), STORY.format(n=12, p=5)))
    assert [r.id for r in kept] == ["train1", "train3"]
    assert removed[0]["reason"] == "near-duplicate question" and removed[0]["collides_with"] == "train1"


def test_chinese_is_compared_by_the_sign():
    text = "小明有十二个苹果，他把其中的三个给了姐姐，又从妈妈那里得到了五个，"
    text += "后来他吃掉了两个，请问现在小明一共还有多少个苹果"
    assert len(remove_duplicates(rows(text, text + "呢"))[1]) == 1


def test_training_problems_that_give_a_test_away_are_removed():
    text = STORY.format(n=12, p=4)
    tests = rows(text, "What is 3 + 4?", split="test")
    train = rows("what is 3+4", "Read this with care. " + text + " Think first.", STORY.format(n=13, p=4), "What is 4?")
    kept, removed = decontaminate(train, tests)
    assert [r.id for r in kept] == ["train3", "train4"]
    assert [(r["reason"], r["collides_with"]) for r in removed] == [
        ("same question as a test problem", "test2"),
        ("13 words in a row from a test problem", "test1"),
    ]


def test_wording_that_test_problems_share_is_no_evidence():
    order = "Answer in one word only, in lower case letters, with no other text before or after it, please."
    tests = rows(f"Who likes tea? {order}", f"Who likes milk? {order}", split="test")
    train = rows(f"Who likes wine? {order}")
    assert decontaminate(train, tests) == (train, [])


def test_a_run_is_cleaned_against_its_own_tests_and_a_file(tmp_path):
    texts = ["What is 1 + 1?", "What is 2 + 2?", "what is 1+1", "What is 3 + 3?", "What is 4 + 4?", "What is 4+4"]
    mine = tmp_path / "mine.jsonl"
    mine.write_text("\n".join(json.dumps({"question": q, "answer": "1"}) for q in texts))
    (tmp_path / "exam.jsonl").write_text('{"question": "what is 3 + 3"}\n')
    kept, removed = gather(f"{mine}?against={tmp_path}/exam.jsonl", 5, 1, 0)
    assert [r.question for r in kept] == [texts[0], texts[1], texts[4]]
    assert {(r["question"], r["collides_with"]) for r in removed} == {
        (texts[2], "row-00001"),
        (texts[3], "exam.jsonl, line 1"),
        (texts[5], "row-00005"),
    }


@pytest.mark.parametrize(("source", "message"), [
    ("starter?against=nowhere.jsonl", "no such file"),
    ("starter?difficulty=3", "has one option"),
    ("starter?against=bad.jsonl", "line 1: field `question` is missing"),
    ("all.jsonl", "every problem for training is in a test set"),
])  # fmt: skip
def test_refused(project, source, message):
    (project / "bad.jsonl").write_text('{"q": "?"}\n')
    (project / "all.jsonl").write_text('{"question": "1+1", "answer": "2"}\n{"question": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(ProblemError, match=message):
        gather(source, 20, 1, 0)

"""The judge that asks the student: surprise by step, where the student goes on alone, and the verdict from both."""

import math

import pytest
from factories import a_chain, a_problem

from distil.chains import student_judge
from distil.models.student import Generated, encode_prompt, generate, load, load_tokenizer
from distil.models.weights import resolve

PROBLEM = a_problem(question="What is 2 + 3 + 4?", answer="9")
OTHER = PROBLEM.replace(id="q", question="What is 1 + 1?", answer="2")


def chain(*steps):
    return a_chain(thought="\n\n".join(steps[:-1]), solution=steps[-1])


CHAIN, SHORT = chain("2 + 3 = 5", "5 + 4 = 9", "\\boxed{9}"), chain("1 + 1 = 2", "\\boxed{2}")


@pytest.fixture(scope="module")
def student():
    folder = resolve("tiny-random")
    return load(folder), load_tokenizer(folder)


def test_surprise_is_the_mean_of_minus_log2_of_each_token_of_a_step(student):
    import torch

    model, tokenizer = student
    found = student_judge.surprise([(CHAIN, PROBLEM), (SHORT, OTHER)], [[], []], model, tokenizer)
    assert [len(steps) for steps in found] == [3, 2]
    steps = ["2 + 3 = 5\n\n", "5 + 4 = 9\n\n", "\\boxed{9}"]
    ids = encode_prompt(tokenizer, [{"role": "user", "content": PROBLEM.question + "\nGive the answer in \\boxed{}."}])
    for step, bits in zip(steps, found[0], strict=True):
        new = tokenizer(step, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([ids + new])).logits[0].float().log_softmax(-1)
        by_hand = -sum(logits[len(ids) - 1 + i, token].item() for i, token in enumerate(new)) / math.log(2) / len(new)
        assert bits == pytest.approx(by_hand, rel=0.02)
        ids = ids + new


def test_an_open_assistant_turn_goes_on_where_it_stops(student):
    _, tokenizer = student
    asked = [{"role": "user", "content": "and?"}]
    begun = encode_prompt(tokenizer, [*asked, {"role": "assistant", "content": "one\n\n"}])
    assert begun == encode_prompt(tokenizer, asked) + tokenizer("one\n\n", add_special_tokens=False)["input_ids"]


def test_the_student_goes_on_from_nothing_before_the_leap_and_before_the_last_step():
    assert student_judge.looks([0.1, 0.2, 3.0, 0.1, 0.2]) == [0, 2, 4]
    assert student_judge.looks([2.0, 0.1]) == [0, 1]
    assert student_judge.looks([0.5]) == [0]


@pytest.mark.parametrize(
    ("bits", "reach", "expected"),
    [
        ([0.2, 2.0, 0.1], {0: 0.0, 1: 0.25, 2: 1.0}, "easy"),  # lost before the leap, not after it
        ([0.2, 0.1, 2.0], {0: 0.0, 2: 0.25}, "easy"),  # the leap is the last step
        ([0.2, 2.0, 0.1], {0: 0.0, 1: 0.0, 2: 0.25}, "hard"),  # lost after it, too
        ([0.2, 0.9, 0.1], {0: 0.0, 1: 0.0, 2: 0.0}, "hard"),  # nothing surprises it, and it is lost
        ([0.2, 2.0, 0.1], {0: 0.0, 1: 0.5, 2: 1.0}, "medium"),  # it would have got over the leap
        ([0.2, 0.9, 0.1], {0: 0.0, 1: 0.25, 2: 0.75}, "medium"),  # no leap
        ([2.0], {0: 0.0}, "easy"),  # a single step that it cannot take
        ([2.0], {0: 1.0}, "medium"),
    ],
)
def test_verdict(bits, reach, expected):
    assert student_judge.verdict(bits, reach) == expected


def test_an_example_is_of_the_same_task_and_another_problem():
    items = [(CHAIN, PROBLEM), (SHORT, OTHER), (SHORT, OTHER.replace(id="r", task="products"))]
    first, second, alone = student_judge.examples(items, items)
    assert first[0]["content"].startswith(OTHER.question) and first[1]["content"].endswith("\\boxed{2}")
    assert second[0]["content"].startswith(PROBLEM.question)
    assert alone == []


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("5 + 4 = 9\n\n\\boxed{9}", "stop", True),
        ("\\boxed{9} Now another: \\boxed{8}", "length", True),  # what comes after the first box does not count
        ("\\boxed{8}, no, \\boxed{9}", "stop", False),
        ("the answer is 9", "stop", True),
        ("the answer is 9", "length", False),  # it may have gone on to something else
        ("", "stop", False),
    ],
)
def test_getting_there_is_the_first_boxed_answer(text, reason, expected):
    assert student_judge.got_there(Generated(text, 1, reason, None), PROBLEM) is expected


def test_the_student_as_a_judge_gives_what_align_asks_for():
    items = [(CHAIN, PROBLEM), (SHORT, OTHER)]
    rate = student_judge.by_student("tiny-random", items, samples=2, batch_size=3, max_new_tokens=4)
    rows = rate(items, 1)
    assert rows == rate(items, 1)
    for row, (bits, given) in zip(rows, [(3, None), (2, [0, 1])], strict=True):
        assert len(row["bits"]) == bits and row["difficulty"] in ("easy", "hard")  # untrained: it gets nowhere
        assert {share for _, share in row["reach"]} == {0.0} and row["agreement"] == 1.0
        assert given is None or [look for look, _ in row["reach"]] == given


def test_leaps_are_the_largest_surprises_each_chain_after_the_same_example(student):
    twice = CHAIN.replace(id="again")
    items = [(SHORT.replace(id="s"), OTHER), (SHORT.replace(id="t"), OTHER), (CHAIN, PROBLEM), (twice, PROBLEM)]
    found = student_judge.leaps("tiny-random", items)
    assert found["s"] == found["t"] and found["c"] == found["again"], "the same chain is as surprising as itself"
    shown = student_judge.examples([items[0]], items[2:])
    bits = student_judge.surprise([items[0]], shown, *student)
    assert found["s"] == pytest.approx(max(bits[0]), abs=2e-3) and max(bits[0]) > min(bits[0])


def test_agreement_of_two_judges_by_hand():
    first = ["easy", "easy", "medium", "hard", "unrated"]
    second = ["easy", "medium", "medium", "medium", "easy"]
    found = student_judge.compare(first, second)
    assert found["counts"] == [[1, 1, 0], [0, 1, 0], [0, 1, 0]] and found["n"] == 4 and found["agree"] == 0.5
    by_chance = (2 * 1 + 1 * 3 + 1 * 0) / 16
    assert found["kappa"] == pytest.approx((0.5 - by_chance) / (1 - by_chance), abs=1e-3)
    assert student_judge.compare(["unrated"], ["easy"])["n"] == 0


def test_two_judges_that_say_one_word_only_have_no_kappa():
    assert student_judge.compare(["medium", "medium"], ["medium", "medium"])["kappa"] is None


def test_an_answer_may_be_ended_from_outside(student):
    model, tokenizer = student
    asked = [[{"role": "user", "content": "go on"}]] * 2
    seen = []
    rows = next(generate(model, tokenizer, asked, 60, 2, until=lambda text: seen.append(text) or text))
    assert len(seen) == 2 and all(row.n_tokens <= 24 for row in rows)

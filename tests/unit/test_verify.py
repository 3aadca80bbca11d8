import pytest

from distil.verify.check import (
    boxed_answers,
    check_verifier,
    clean,
    extract_answer,
    extract_boxed,
    is_correct,
    verifiable,
)

MATH = {"question": "", "answer": "\\frac{1}{2}", "verifier": "math"}
NINE = {"question": "", "answer": "9", "verifier": "exact"}


@pytest.mark.parametrize(("text", "answer"), [
    (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed{\text{a}_{b_{c}}}", r"\text{a}_{b_{c}}"),
    (r"\boxed{never closed", None),
    (r"\boxed{3} and \boxed{never closed", "3"),
    ("", None),
    (r"答案是\boxed{四十二}。", "四十二"),
])  # fmt: skip
def test_extract_boxed(text, answer):
    assert extract_boxed(text) == answer


@pytest.mark.parametrize(("text", "answer"), [
    ("So the final answer is 6 + 1 = 7.", "7"),
    ("**Answer:** Dan", "Dan"),
    ("The answer is: **12**.", "12"),
    ("First\n\n72 - 42 = 30.", "30"),
    ("The answer is 8. Not 7.", "8"),
    ("The answer is 3.5 cm. It was long.", "3.5 cm"),
    ("Answer: 7\n\nBecause 3 + 4 = 7.", "7"),
    ("Answer: 7\n\nWait, it is 8", None),
    ("The answer is 7. That was wrong: the answer is 8.", "8"),
    ("答案是 3。", "3"),
    ("I do not know, and I will not guess it either", None),
    ("", None),
])  # fmt: skip
def test_unboxed_answers_are_read_for_a_base_student(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(("dressed", "bare"), [
    (r"\text{mother-in-law}", "mother-in-law"), ("$12$", "12"), ("1,234,567", "1234567"), ("1,2", "1,2"),
    ('"Lea"', "Lea"),
])  # fmt: skip
def test_clean(dressed, bare):
    assert clean(dressed) == bare


def test_mathematics_is_compared_by_value():
    assert is_correct(r"\boxed{0.5}", MATH)
    assert not is_correct(r"\boxed{0.6}", MATH)
    assert not is_correct("one half, surely", MATH)


def test_training_chains_need_the_box():
    assert is_correct("The answer is 9", NINE)
    assert not is_correct("The answer is 9", NINE, boxed_only=True)


def test_the_same_answer_boxed_twice_is_one_answer():
    assert boxed_answers(r"\boxed{6} hence \boxed{ 6 }") == {"6"}
    assert boxed_answers(r"\boxed{6} or \boxed{7}") == {"6", "7"}


def test_reasoning_gym_scores_its_own():
    from distil.problems.sources import generate

    for problem in generate("starter", 10, 5, seed=3):
        assert is_correct(f"\\boxed{{{problem['answer']}}}", problem)
        assert not is_correct("\\boxed{zebra}", problem)


CHOICE = {"question": "", "answer": "B", "verifier": "choice", "choices": ["a stone", "a pear", "A"]}


@pytest.mark.parametrize("text", [
    r"\boxed{B}", r"\boxed{\text{B}}", r"\boxed{(B)}", r"\boxed{B.}", r"\boxed{B) a pear}",
    r"\boxed{\text{(B) a pear}}", r"\boxed{b}", r"\boxed{a pear}", r"\boxed{A Pear}", "The answer is (B).",
    "Answer: B) a pear",
])  # fmt: skip
def test_right_choices(text):
    assert is_correct(text, CHOICE)


@pytest.mark.parametrize("text", [
    r"\boxed{A}", r"\boxed{(A) a pear}", r"\boxed{a stone}", r"\boxed{AB}", r"\boxed{}",
    "A pear? I do not know at all, sorry",
])  # fmt: skip
def test_wrong_choices(text):
    assert not is_correct(text, CHOICE)


def test_a_choice_without_its_texts():
    bare = {"question": "", "answer": "D", "verifier": "choice"}
    assert is_correct(r"\boxed{D: a text}", bare) and not is_correct(r"\boxed{a text}", bare)


@pytest.mark.parametrize(("problem", "message"), [
    (CHOICE | {"answer": "K"}, "one letter from A to C"),
    (CHOICE | {"answer": "D"}, "one letter from A to C"),
    (CHOICE | {"answer": "a pear"}, "one letter"),
    ({"question": "", "answer": "", "verifier": "code"}, "wants the tests"),
])  # fmt: skip
def test_gold_of_choices_and_code(problem, message):
    with pytest.raises(ValueError, match=message):
        check_verifier(problem)


def test_code_is_never_found_right_without_a_sandbox(no_sandbox):
    problem = {"question": "", "answer": "x", "verifier": "code", "tests": ["f(1) == 1"]}
    check_verifier(problem)
    assert not verifiable(problem) and verifiable(CHOICE)
    assert not is_correct(r"\boxed{x}", problem)


def test_gold_that_cannot_be_read_is_an_error():
    for answer in ("\\frac{", "hello", "mother-in-law"):
        with pytest.raises(ValueError, match="cannot be read"):
            check_verifier({"answer": answer, "verifier": "math", "question": ""})
    with pytest.raises(ValueError, match="unknown"):
        check_verifier({"answer": "1", "verifier": "oracle", "question": ""})

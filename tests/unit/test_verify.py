import pytest
from factories import a_chain, a_problem

from distil.verify import registry
from distil.verify.answers import boxed_answers, extract_answer, extract_boxed, final_answer, normalise_answer
from distil.verify.exact import Exact
from distil.verify.registry import is_correct, verifiable, verifier_of

MATH = a_problem(answer="\\frac{1}{2}", verifier="math")
NINE = a_problem(answer="9")


@pytest.mark.parametrize(("text", "answer"), [
    (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed{\text{a}_{b_{c}}}", r"\text{a}_{b_{c}}"),
    (r"\boxed{never closed", None),
    (r"\boxed{3} and \boxed{never closed", "3"),
    ("", None),
    (r"答案是\boxed{四十二}。", "四十二"),
    (r"\boxed{42}, as asked, in \boxed{}", "42"),
    (r"in \boxed{}: \boxed{42}", "42"),
    (r"\boxed{}", ""),
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
    ("故选：D", "D"),
    ("<answer>42</answer>", "42"),
    (r"\boxed{41} <answer>42</answer>", "42"),
    (r"<answer>41</answer> \boxed{42}", "42"),
    (r"so \fbox{42}", "42"),
    (r"so $\boxed 4\sqrt2$", r"4\sqrt2"),
    ("I do not know, and I will not guess it either", None),
    ("", None),
])  # fmt: skip
def test_unboxed_answers_are_read_for_a_base_student(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(("dressed", "bare"), [
    (r"\text{mother-in-law}", "mother-in-law"), ("$12$", "12"), ("1,234,567", "1234567"), ("1,2", "1,2"),
    ('"Lea"', "Lea"),
    ("**42**", "42"), (r"\textbf{\text{42}}", "42"), ("４２", "42"), (r"5\text{cm}", "5 cm"),
])  # fmt: skip
def test_normalise_answer(dressed, bare):
    assert normalise_answer(dressed) == bare


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
        assert is_correct(f"\\boxed{{{problem.answer}}}", problem)
        assert not is_correct("\\boxed{zebra}", problem)


CHOICE = a_problem(answer="B", verifier="choice", choices=["a stone", "a pear", "A"])


@pytest.mark.parametrize("text", [
    r"\boxed{B}", r"\boxed{\text{B}}", r"\boxed{(B)}", r"\boxed{B.}", r"\boxed{B) a pear}",
    r"\boxed{\text{(B) a pear}}", r"\boxed{b}", r"\boxed{a pear}", r"\boxed{Option B}",
    r"The answer is \(B\).", "故选：B", "答案是 B",
    r"\boxed{a pear.}", r"\boxed{B、}", r"\boxed{A Pear}", "The answer is (B).",
    "Answer: B) a pear",
])  # fmt: skip
def test_right_choices(text):
    assert is_correct(text, CHOICE)


@pytest.mark.parametrize("text", [
    r"\boxed{A}", r"\boxed{(A) a pear}", r"\boxed{a stone}", r"\boxed{AB}", r"\boxed{}", r"\boxed{(B) or (C)}",
    r"\boxed{B) a stone}", r"\boxed{not B}", r"\boxed{B或C}", r"\boxed{B) is wrong}",
    "A pear? I do not know at all, sorry",
])  # fmt: skip
def test_wrong_choices(text):
    assert not is_correct(text, CHOICE)


def test_a_choice_without_its_texts():
    bare = a_problem(answer="D", verifier="choice")
    assert is_correct(r"\boxed{D: a text}", bare) and not is_correct(r"\boxed{a text}", bare)


def test_choices_beyond_j_are_letters_as_far_as_there_are_choices():
    twelve = a_problem(answer="L", verifier="choice", choices=[f"text {i}" for i in range(11)] + ["K"])
    verifier_of(twelve).check_gold(twelve)
    assert is_correct(r"\boxed{L}", twelve) and not is_correct(r"\boxed{K}", twelve)
    four = a_problem(answer="D", verifier="choice", choices=["Na", "Mg", "Ca", "K"])
    assert is_correct(r"\boxed{K}", four) and not is_correct(r"\boxed{E}", four)
    bare = a_problem(answer="Q", verifier="choice")
    verifier_of(bare).check_gold(bare)
    with pytest.raises(ValueError, match="27 choices"):
        verifier_of(bare).check_gold(bare.replace(choices=["x"] * 27))


def test_the_text_of_two_choices_settles_nothing():
    twice = a_problem(answer="B", verifier="choice", choices=["40", "50", "50"])
    assert is_correct(r"\boxed{(B) 50}", twice) and not is_correct(r"\boxed{50}", twice)


@pytest.mark.parametrize(("problem", "message"), [
    (CHOICE.replace(answer="K"), "one letter from A to C"),
    (CHOICE.replace(answer="D"), "one letter from A to C"),
    (CHOICE.replace(answer="a pear"), "one letter"),
    (a_problem(verifier="code"), "wants the tests"),
    (MATH.replace(answer="She had 3 apples and then bought some more fruit today"), "give the final answer alone"),
])  # fmt: skip
def test_gold_of_choices_and_code(problem, message):
    with pytest.raises(ValueError, match=message):
        verifier_of(problem).check_gold(problem)


def test_code_is_never_found_right_without_a_sandbox(no_sandbox):
    problem = a_problem(answer="x", verifier="code", tests=["f(1) == 1"])
    verifier_of(problem).check_gold(problem)
    assert not verifiable(problem) and verifiable(CHOICE)
    assert not is_correct(r"\boxed{x}", problem)


def test_gold_that_cannot_be_read_is_an_error():
    for answer in ("\\frac{", "hello", "mother-in-law"):
        with pytest.raises(ValueError, match="cannot be read"):
            verifier_of(MATH).check_gold(MATH.replace(answer=answer))
    with pytest.raises(ValueError, match="'oracle' is unknown; use one of reasoning_gym:FAMILY, math, "):
        verifier_of(a_problem(answer="1", verifier="oracle"))


def test_a_new_verifier_is_a_class_and_a_line(monkeypatch):
    from distil.chains.collect import make_chain
    from distil.llm.cache import Reply
    from distil.llm.prompts import prompt_of

    class Backwards(Exact):
        def matches(self, answer, problem):
            return answer[::-1] == problem.answer

    monkeypatch.setitem(registry.VERIFIERS, "backwards", Backwards)
    problem = a_problem(question="Say it.", answer="abc", verifier="backwards")
    chain = make_chain("c", problem, "fast", Reply("So.\n\n\\boxed{cba}", "", "stop", 1, 9), teacher="m")
    assert chain == a_chain(thought="So.", solution="\\boxed{cba}")
    assert not is_correct("\\boxed{abc}", problem) and "Say it." in prompt_of(problem)[-1]["content"]
    registry.verifier_named.cache_clear()


@pytest.mark.parametrize(("solution", "answer"), [
    ("48/2 = 24\n48+24 = 72\n#### 72", "72"), (r"So $x=5$, that is \boxed{5}.", "5"), ("The answer is 72.", "72"),
    ("72", "72"), ("x #### ", "x #### "), ("答案是 5", "5"),
])  # fmt: skip
def test_a_whole_solution_is_cut_to_its_answer(solution, answer):
    assert final_answer(solution) == answer

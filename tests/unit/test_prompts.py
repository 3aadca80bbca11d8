"""Which prompt goes before which problem."""

import pytest
from factories import a_chain, a_problem

from distil.chains.collect import asked_for
from distil.chains.judge import request
from distil.chains.rewrite import SOME_STUDENT, request_sentences, rewrite_prompt
from distil.llm.prompts import WORKED_EXAMPLES, messages, prompt_set, template
from distil.problems.sources import generate
from distil.workspace.errors import StageError
from distil.workspace.fingerprint import prompts_in_force

OWN = a_problem(question="What is 4 + 5?", answer="9", source="mine.jsonl")
OF_A_SUITE = OWN.replace(source="reasoning-gym")
EXAMPLES = ("48 - 7", "7 * 36", "Omar", "Lea adores", "57 + 68", "40 - 72", "12 + 9", "3 + 4", "4 + 9", "polygon")
NAMES = ("fast", "slow", "slow_code", "expand", "simplify", "difficulty", "corrupt")


def test_examples_go_with_the_suites_that_they_were_written_for():
    assert {prompt_set(problem) for problem in generate("reference", 40, 4, 0)} == {WORKED_EXAMPLES}
    assert prompt_set(OWN) == ""
    assert "Omar dreads snow" in asked_for(OF_A_SUITE, "fast")[0]["content"]
    assert any("Omar" in turn["content"] for turn in rewrite_prompt(a_chain(), OF_A_SUITE, "expand"))


@pytest.mark.parametrize("name", NAMES)
def test_no_example_of_a_suite_goes_before_other_problems(name):
    assert not [words for words in EXAMPLES if words in template(name)]
    assert template(name) != template(name, WORKED_EXAMPLES)


@pytest.mark.parametrize("style", ["fast", "slow"])
def test_a_teacher_is_asked_with_the_question_and_how_to_box_the_answer(style):
    (turn,) = asked_for(OWN, style)
    question, rest = turn["content"].split("\n\n")
    assert turn["role"] == "user" and question == OWN.question and r"\boxed{}" in rest and len(rest) < 150


def test_fast_and_slow_are_two_requests():
    assert asked_for(OWN, "fast") != asked_for(OWN, "slow"), "one teacher for both would answer once"


@pytest.mark.parametrize("kind", ["expand", "simplify"])
def test_rewriters_and_judges_are_told_the_student(kind):
    assert "Qwen2.5-7B" in rewrite_prompt(a_chain(), OWN, kind, "Qwen2.5-7B")[0]["content"]
    assert "Qwen2.5-7B" in request((a_chain(), OWN), "difficulty", student="Qwen2.5-7B")[0]["content"]


@pytest.mark.parametrize("kind", ["expand", "simplify", "corrupt"])
def test_sentences_of_the_prompt_in_use_are_those_that_no_rewrite_may_copy(kind):
    own, worked = (set(request_sentences(kind, prompts)) for prompts in ("", WORKED_EXAMPLES))
    assert own and worked and own != worked
    text = " ".join(turn["content"] for turn in messages(kind))
    assert all(part in text for part in own)


def test_a_users_own_prompt_goes_before_every_set(tmp_path, monkeypatch):
    (tmp_path / "fast.md").write_text("Mine: {question}")
    monkeypatch.setenv("DISTIL_PROMPTS", str(tmp_path))
    assert template("fast") == template("fast", WORKED_EXAMPLES) == "Mine: {question}"
    assert template("slow") != template("slow", WORKED_EXAMPLES)


@pytest.mark.parametrize("kind", ["long2short", "simplify", "expand"])
def test_a_program_is_not_asked_for_in_a_box(kind):
    """Its thought is rewritten and the program stays; generated programs are asked as in the recordings."""
    program = "```python\ndef f(x):\n    return x + 1\n```"
    chain = a_chain(thought="Add one.\n\nReturn it.", solution=program)
    own = a_problem(question="Add 1.", verifier="code", tests=["f(1) == 2"], source="mine.jsonl")
    (system, user) = rewrite_prompt(chain, own, kind)
    assert "boxed" not in user["content"] and program in user["content"] and "Add one." in user["content"]
    assert system == rewrite_prompt(chain, own.replace(verifier="exact", answer="2"), kind)[0]
    generated = rewrite_prompt(chain, own.replace(source="distil"), kind)
    values = {"question": own.question, "answer": program, "chain": chain.thought, "student": SOME_STUDENT}
    assert generated == messages(kind, prompts=WORKED_EXAMPLES, **values)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_prompt_of_another_editor_is_the_same_prompt(tmp_path, monkeypatch, encoding):
    """A byte order mark went to the teacher, and two bytes a letter ended in a traceback."""
    monkeypatch.setenv("DISTIL_PROMPTS", str(tmp_path))
    words = "# system\r\n简短。\r\n# user\r\n{question}\r\n"
    (tmp_path / "fast.md").write_bytes(words.encode(encoding))
    expected = [{"role": "system", "content": "简短。"}, {"role": "user", "content": "q"}]
    assert messages("fast", question="q") == expected
    assert prompts_in_force()["fast.md"] == "# system\n简短。\n# user\n{question}\n"
    (tmp_path / "fast.md").write_bytes(words.encode("gbk"))
    with pytest.raises(StageError, match="fast.md, line 2: not UTF-8 .*iconv -f GB18030"):
        messages("fast", question="q")

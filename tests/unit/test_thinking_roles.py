"""Teachers, rewriters and judges that think before they speak: what is kept of it, read, and counted."""

import json

import pytest
from factories import a_chain, a_problem
from loopback import Raw, serve

from distil.chains.collect import collect
from distil.chains.judge import align, by_llm, ratings
from distil.chains.rewrite import rewrite
from distil.llm.client import Chat

PROBLEM = a_problem(question="What is 4 + 5 + 6?", answer="15")
THOUGHT = "Is it \\boxed{14}? No.\n\nWait, 4 + 5 = 10? Rather 9.\n\nVerdict: hard? " + "Hm. " * 200
STEPS = "First 4 + 5 = 9.\n\nThen 9 + 6 = 15.\n\n\\boxed{15}"


def thinks(text: str | None, thought: str = THOUGHT, finish: str = "stop") -> Raw:
    """A reply as reasoning models give it: of 400 tokens all but those of `text` are thought."""
    spoken = len((text or "").split())
    message = {"role": "assistant", "content": text, "reasoning_content": thought}
    usage = {"prompt_tokens": 9, "completion_tokens": 400}
    usage["completion_tokens_details"] = {"reasoning_tokens": 400 - spoken}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return Raw(json.dumps({"choices": [choice], "usage": usage}).encode())


@pytest.fixture
def asked(tmp_path, project):
    """A Chat with a model that answers what a test gives it."""

    def chat(endpoint: str) -> Chat:
        return Chat("qwq", endpoint, store=tmp_path / "store.jsonl")

    return chat


def says(text: str | None, **more):
    def answer(body: dict) -> str:
        raise thinks(text, **more)

    return answer


def test_a_slow_chain_is_thought_and_word_and_a_fast_one_the_word_alone(asked):
    with serve(says(STEPS)) as (endpoint, _):
        (slow,), _ = collect([PROBLEM], asked(endpoint), "slow", samples=1, seed=0)
        (fast,), _ = collect([PROBLEM], asked(endpoint), "fast", samples=1, seed=0)
    assert slow.correct and slow.n_tokens == 400 and slow.thought.startswith("Is it 14? No.") and slow.solution == STEPS
    assert fast.correct and fast.full_text == STEPS and fast.n_tokens < 100


@pytest.mark.parametrize(("text", "finish", "why"), [
    ("", "length", "thought until the token limit, said nothing"),
    ("First 4 +", "length", "cut off at the token limit"),
    (STEPS, "content_filter", "refused by the provider's content filter"),
])  # fmt: skip
@pytest.mark.parametrize("style", ["fast", "slow"])
def test_an_answer_that_is_not_whole_is_named_for_what_it_is(asked, style, text, finish, why):
    with serve(says(text, finish=finish)) as (endpoint, _):
        (chain,), _ = collect([PROBLEM], asked(endpoint), style, samples=1, seed=0)
        (_, (lost,)) = rewrite([a_chain(solution=STEPS)], {"p": PROBLEM}, asked(endpoint), "expand", seed=0)
    assert not chain.correct and chain.why == why and lost.rejection_reason == why


@pytest.mark.parametrize("kind", ["long2short", "corrupt"])
def test_a_rewrite_holds_nothing_of_what_the_rewriter_thought(asked, kind):
    long = a_chain(thought="Let me look at the sum. " * 10, solution=STEPS, n_tokens=60)
    wrong = STEPS.replace("= 9", "= 8").replace("9 + 6 = 15", "8 + 6 = 14").replace("{15}", "{14}")
    text, parent = (STEPS, long) if kind == "long2short" else (wrong, a_chain(solution=STEPS))
    with serve(says(text)) as (endpoint, _):
        (row,), _ = rewrite([parent], {"p": PROBLEM}, asked(endpoint), kind, seed=0)
    assert row.full_text == text and "Hm." not in row.full_text
    assert row.n_tokens < 100 and row.ratio == round(row.n_tokens / parent.n_tokens, 3)


def test_every_verdict_and_rating_of_a_thinking_judge_is_read(asked):
    def answer(body: dict) -> str:
        rate = body["messages"][0]["content"].startswith("You rate")
        assert body["max_tokens"] == 4096
        raise thinks("Verbosity: 3, Difficulty: 2, Correct: 1" if rate else "**Verdict: medium**")

    chains = [a_chain(id=f"c{i}", thought=f"We start at {i}.", solution=STEPS) for i in range(20)]
    graded = a_chain(id="graded", solution=STEPS, rv=4.5, cd=6.0)
    with serve(answer) as (endpoint, seen):
        chat = asked(endpoint)
        rows = align(chains, {"p": PROBLEM}, by_llm(chat, "me/student-7B", 3, 4096), chat, seed=0)
        assert all(row.kept for row in rows) and "student-7B" in seen[0]["messages"][0]["content"]
        before = len(seen)
        found = ratings([(c, PROBLEM) for c in [chains[0], graded, chains[1]]], chat, seed=0, votes=2, max_tokens=4096)
    assert found == [{"rv": 3, "cd": 2, "correct": 1}, {"rv": 4.5, "cd": 6.0, "correct": 1}, found[0]]
    assert len(seen) - before == 4, "a chain that came with its grades is not rated"


def test_of_a_judge_that_only_thinks_no_verdict_is_made_up(asked):
    with serve(says("", thought="Verdict: medium", finish="length")) as (endpoint, _):
        chat = asked(endpoint)
        (row,) = align([a_chain(solution=STEPS)], {"p": PROBLEM}, by_llm(chat, "pupil", 1), chat, seed=0)
    assert row.reason == "unrated"


def test_a_rewriter_is_told_the_student_and_has_its_budget(asked):
    def answer(body: dict) -> str:
        if body["messages"][0]["content"].startswith("You judge"):
            return "Verdict: easy"
        assert body["max_tokens"] == 9000 and "student-7B" in body["messages"][0]["content"]
        return "no"

    with serve(answer) as (endpoint, _):
        chat = asked(endpoint)
        how = {"student": "me/student-7B", "max_tokens": 9000}
        (row,) = align([a_chain(solution=STEPS)], {"p": PROBLEM}, by_llm(chat, "s", 1), chat, seed=0, **how)
    assert row.reason == "expand: not one boxed answer"

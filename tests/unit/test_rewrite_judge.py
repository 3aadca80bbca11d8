import random

import pytest
from factories import a_problem
from loopback import serve

from distil.chains.collect import collect, make_chain, set_apart
from distil.chains.judge import align, by_llm, spoken_name
from distil.chains.judge_replies import parse_rating, parse_verdict
from distil.chains.rewrite import fault, giveaway_accuracy, rewrite
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.prompts import messages
from distil.sandbox import confine
from distil.verify.chain_text import split_chain
from distil.verify.exact import Exact
from distil.workspace.rows import Chain

PROBLEM = a_problem(question="What is 4 + 5 + 6?", answer="15")
STEPS = "First 4 + 5 = 9.\n\nThen 9 + 6 = 15.\n\n\\boxed{15}"


def chain(text: str, finish: str = "stop", name: str = "c") -> Chain:
    return make_chain(name, PROBLEM, "fast", Reply(text, "", finish, 1, len(text.split())), teacher="m")


@pytest.mark.parametrize(("text", "thought", "solution"), [
    ("a\n\nb\n\n\\boxed{1}", "a\n\nb", "\\boxed{1}"),
    ("a\nb\n\\boxed{1}", "a\n\nb", "\\boxed{1}"),
    ("<|begin_of_thought|>a\n\nb<|end_of_thought|><|begin_of_solution|>\\boxed{1}<|end_of_solution|>", "a\n\nb",
     "\\boxed{1}"),
    ("<|begin_of_thought|>a<|begin_of_solution|>\\boxed{1}", "a", "\\boxed{1}"),
    ("", "", ""),
])  # fmt: skip
def test_split_chain(text, thought, solution):
    assert split_chain(text) == (thought, solution)


def test_chains_that_cannot_be_checked_are_kept_apart(tmp_path, no_sandbox):
    code = a_problem(id="k", question="Add.", verifier="code", tests=["f(1, 2) == 3"])
    with serve(lambda body: STEPS) as (endpoint, _):
        chat = Chat("m", endpoint, store=tmp_path / "store.jsonl")
        found, _ = collect([PROBLEM, code], chat, "fast", samples=1, seed=0)
    verified, unverified = set_apart(found)
    assert [c.problem_id for c in verified] == ["p"] and verified[0].correct is True
    assert [c.problem_id for c in unverified] == ["k"]
    assert unverified[0].correct is None and unverified[0].why
    assert unverified[0].text == STEPS
    assert not [c for c in found if c.correct and c.problem_id == "k"], "the filter of 02 and 03"


def test_why_a_chain_is_not_correct():
    assert chain(STEPS).correct
    assert chain(STEPS, finish="length").why == "cut off at the token limit"
    assert chain("so \\boxed{14}").why == "wrong answer"
    assert chain("fifteen").why == "no boxed answer"
    assert chain("\\boxed{15} or \\boxed{16}").why == "several boxed answers"
    assert chain("\\boxed{15}\n\n\\boxed{15}").correct
    assert chain("4 + 5 = 10\n\n9 + 6 = 15\n\n\\boxed{15}").why == "right answer, false step"
    reply = Reply("4 + 5 = 10? No.\n\n4 + 5 = 9\n\n\\boxed{15}", "", "stop", 1, 9)
    assert make_chain("s", PROBLEM, "slow", reply, teacher="m").correct, "a slow chain may err and turn back"


LONG = chain("Let me look at the sum. " * 10 + "\n\n" + STEPS, name="long")


@pytest.mark.parametrize(("text", "kind", "reason"), [
    ("", "long2short", "said nothing"),
    ("I cannot help with that.", "long2short", "not one boxed answer"),
    ("4 + 5 = 9\n\n\\boxed{9}", "long2short", "answer changed"),
    ("4 + 5 = 10\n\n10 + 6 = 15\n\n\\boxed{15}", "long2short", "false step"),
    ("4 + 5 + 6 \\boxed{15}", "long2short", "steps run together"),
    ("x " * 400 + "\n\n\\boxed{15}", "long2short", "length moved the wrong way"),
    (STEPS, "long2short", None),
    ("4 + 5 = 9\n\n4 + 5 = 9\n\n" + "so " * 99 + "\n\n9 + 6 = 15\n\n\\boxed{15}", "expand", "repeats a step"),
    ("\\boxed{15}" * 5000, "expand", "steps run together"),
    ("步骤一：四加五等于九。\n\n\\boxed{15}", "simplify", None),
])  # fmt: skip
def test_faults_of_rewrites(text, kind, reason):
    assert fault(chain(text), LONG, kind, Exact()) == reason


@pytest.mark.parametrize("kind", ["long2short", "simplify"])
def test_a_very_long_thought_may_become_a_few_steps(kind):
    long = chain("Wait. Let me look at the sum again. " * 800 + "\n\n" + STEPS)
    assert fault(chain(STEPS), long, kind, Exact()) is None
    assert fault(chain("So\n\n\\boxed{15}"), long, kind, Exact()) == "length moved the wrong way"


@pytest.mark.parametrize(("text", "reason"), [
    (STEPS, "answer is still right"),
    ("First 4 + 5 = 9.\n\nThen 9 + 6 = 15.\n\n\\boxed{16}", "no step but the last differs"),
    ("First 4 + 5 = 8, a mistake.\n\nThen 8 + 6 = 14.\n\n\\boxed{14}", "gives itself away"),
    ("First 4 + 5 = 8.\n\nThen 8 + 6 = 14 (slip).\n\n\\boxed{14}", "gives itself away"),
    ("First 4 + 5 = 9.5.\n\nThen 9.5 + 6 = 15.5.\n\n\\boxed{15.5}", "gives itself away"),
    ("First 4 + 5 = 8.\n\nThen 8 + 6 = 14.\n\n\\boxed{}", "not one boxed answer"),
    ("Bananas are yellow fruit,\n\nquite often, I hear\n\n\\boxed{7}", "another solution altogether"),
    ("First 4 + 5 = 8.\n\nThen 8 + 6 = 14.\n\n\\boxed{14}", None),
])  # fmt: skip
def test_faults_of_corrupted_chains(text, reason):
    assert fault(chain(text), chain(STEPS), "corrupt", Exact()) == reason


def test_a_classifier_finds_what_gives_corrupted_chains_away():
    rng = random.Random(0)
    good = [f"{rng.randint(1, 99)} + {rng.randint(1, 99)} = {rng.randint(1, 99)}" for _ in range(60)]
    told = giveaway_accuracy(good, [text + ".5" for text in good])
    assert told["accuracy"] == 1.0 and told["n"] == 60
    hidden = giveaway_accuracy(good, [text[:-1] + "0" for text in good])
    assert hidden["ci_low"] <= 0.5
    with pytest.raises(ValueError, match="at least ten"):
        giveaway_accuracy(good[:9], good[:9])


def test_what_goes_in_comes_out_or_is_rejected_with_a_reason(project):
    def answer(body):
        return random.Random(body["seed"]).choice([STEPS, "no", "\\boxed{3}"])

    chains = [LONG.replace(id=f"c{i}") for i in range(5)]
    with serve(answer) as (endpoint, seen):
        kept, lost = rewrite(chains, {"p": PROBLEM}, Chat("m", endpoint), "long2short", seed=1, tries=3)
    assert len(kept) + len(lost) == 5
    assert all(row.correct for row in kept) and all(row.rejection_reason for row in lost)


@pytest.mark.parametrize(("text", "verdict"), [
    ("Verdict: easy", "easy"),
    ("**Verdict:** HARD.", "hard"),
    ("medium", "medium"),
    ("Verdict: easy ... Verdict: hard", None),
    ("The verdict is that this is hardly easy", None),
    ("", None),
    ("Verdict: easy " * 4000, "easy"),
])  # fmt: skip
def test_parse_verdict(text, verdict):
    assert parse_verdict(text) == verdict


@pytest.mark.parametrize(("text", "rating"), [
    ("Verbosity: 3, Difficulty: 2, Correct: 1", {"rv": 3, "cd": 2, "correct": 1}),
    ("Verbosity: 30, Difficulty: 2, Correct: 1", None),
    ("Verbosity: 3, Verbosity: 4, Difficulty: 2, Correct: 1", None),
    ("Verbosity: 3", None),
])  # fmt: skip
def test_parse_rating(text, rating):
    assert parse_rating(text) == rating


@pytest.mark.parametrize(("student", "name"), [
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"), ("students/mine/", "mine"),
    ("tiny-random", "SmolLM2-135M-Instruct"),
])  # fmt: skip
def test_the_judge_is_told_of_the_student_by_its_name(student, name):
    assert spoken_name(student) == name


def test_the_loop_improves_until_medium_and_keeps_the_trail(project):
    longer = STEPS.replace("First", "First we add two numbers, 4 and 5, which gives nine.\n\nWritten out:")

    def answer(body):
        if "Verdict" not in body["messages"][0]["content"]:
            return longer
        return "Verdict: medium" if "Written out" in body["messages"][-1]["content"] else "Verdict: easy"

    with serve(answer) as (endpoint, _):
        chat = Chat("m", endpoint)
        rows = align([chain(STEPS)], {"p": PROBLEM}, by_llm(chat, "pupil", 3), chat, seed=0)
    assert rows[0].kept and rows[0].chain.full_text == longer
    assert [(s["difficulty"], s["action"]) for s in rows[0].trail] == [("easy", "expand"), ("medium", "keep")]


def test_the_loop_is_bounded_and_says_why(project):
    with serve(lambda body: "Verdict: hard" if "Verdict" in body["messages"][0]["content"] else "no") as (endpoint, _):
        chat = Chat("m", endpoint)
        rows = align([chain(STEPS)], {"p": PROBLEM}, by_llm(chat, "pupil", 3), chat, seed=0, max_rounds=1)
    assert not rows[0].kept and rows[0].reason == "simplify: not one boxed answer"


def test_no_verdict_is_never_a_number(project):
    with serve(lambda body: "Verdict: easy, hard or medium? Verdict: hard") as (endpoint, _):
        chat = Chat("m", endpoint)
        rows = align([chain(STEPS)], {"p": PROBLEM}, by_llm(chat, "pupil", 3), chat, seed=0)
    assert rows[0].reason == "unrated"


def test_a_value_with_braces_is_not_filled_again():
    filled = messages("long2short", question="{answer}", answer="\\boxed{chain}", chain="{question}")
    assert "Problem:\n{answer}\n" in filled[1]["content"] and "{question}" in filled[1]["content"]


def test_the_prescribed_prompt_is_word_for_word():
    import hashlib

    system = messages("long2short", question="", answer="", chain="")[0]["content"]
    assert hashlib.sha256(system.encode()).hexdigest()[:16] == "faabbf2e2bcb3e3f"


CODE = a_problem(id="k", question="Add 1 to n.", verifier="code", tests="assert f(1) == 2")
PROGRAM = "```python\ndef f(n):\n    return n + 1\n```"


@pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
def test_of_a_programs_chain_only_the_thought_is_rewritten(tmp_path):
    thought = "We are given a number n.\n\nIt is to be made larger by one.\n\nSo the function returns n + 1."
    long = make_chain("c", CODE, "slow", Reply(f"{thought}\n\n{PROGRAM}", "", "stop", 1, 40), teacher="m")
    assert long.correct
    replies = {"long2short": "Take n.\n\nReturn n + 1.", "expand": "```python\ndef f(n):\n    return 0\n```"}
    for kind, reply in replies.items():
        with serve(lambda body, reply=reply: reply) as (endpoint, _):
            chat = Chat("m", endpoint, store=tmp_path / f"{kind}.jsonl")
            accepted, rejected = rewrite([long], {"k": CODE}, chat, kind, seed=0)
        if kind == "long2short":
            assert accepted[0].full_text == f"{reply}\n\n{PROGRAM}" and accepted[0].correct
            assert 0 < accepted[0].ratio < 1, "its tokens are counted with the program's"
        else:
            assert not accepted and rejected[0].rejection_reason == "a program of its own"
    with serve(lambda body: pytest.fail("no program is corrupted")) as (endpoint, _):
        chat = Chat("m", endpoint, store=tmp_path / "c.jsonl")
        assert rewrite([long], {"k": CODE}, chat, "corrupt", seed=0) == ([], [])

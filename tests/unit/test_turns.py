"""Slow chains in turns, from a server that sees the talk grow; cut off, refused, and resumed."""

from factories import a_problem
from loopback import Refusal, serve

from distil.chains.collect import collect
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.multi_turn import joined
from distil.verify.answers import unboxed

SUM = a_problem(id="sum", question="What is 3 + 4?", answer="7", source="reasoning-gym")  # with worked examples
CODE = a_problem(id="code", question="Double x.", verifier="code", tests=["f(2) == 4"])
FIRST = """<|begin_of_thought|>
The question asks for 3 + 4.

3 + 4 = 8
<|end_of_thought|>
<|begin_of_solution|>
\\boxed{8}
<|end_of_solution|>"""
CHECK = "Let me check this in another way.\n\n4 + 3 = 7"
LAST = "Let me compare.\n\nThe first way gave 8, the second 7; 3 + 4 is 7.\n\n\\boxed{7}"


def talk(body: dict) -> str:
    """What is said in the turn that a request asks for."""
    return {2: FIRST, 3: CHECK, 5: LAST}[len(body["messages"])]


def test_three_turns_are_one_chain_with_one_box(tmp_path, project):
    with serve(talk) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "store.jsonl")
        (chain,), failed = collect([SUM], chat, "slow", samples=1, seed=0, turns=True)
        assert not failed and len(seen) == 3
        assert [m["role"] for m in seen[0]["messages"]] == ["system", "user"]
        assert [m["role"] for m in seen[-1]["messages"]] == "user assistant user assistant user".split()
        assert seen[-1]["messages"][1]["content"] == FIRST and seen[-1]["messages"][3]["content"] == CHECK
        assert collect([SUM], chat, "slow", samples=1, seed=0, turns=True)[0] == [chain] and len(seen) == 3, (
            "asked once"
        )
    assert chain.correct and chain.turns and chain.finish_reason == "stop"
    assert chain.n_tokens == sum(len(text.split()) for text in (FIRST, CHECK, LAST))
    text = chain.full_text
    assert text.startswith("The question asks") and "<|" not in text and text.endswith("\\boxed{7}")
    assert text.count("boxed") == 1 and "\n\n8\n\nLet me check" in text, "what was to be checked is no answer"


def test_only_slow_chains_with_a_box_are_made_in_turns(tmp_path, project):
    def answer(body: dict) -> str:
        return talk(body) if len(body["messages"]) > 1 else "```python\ndef f(x):\n    return 2 * x\n```"

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "store.jsonl")
        chains, _ = collect([CODE, SUM, CODE.replace(id="more")], chat, "slow", samples=2, seed=0, turns=True)
        assert [c.id for c in chains] == [f"{p}-slow-{k}" for p in ("code", "sum", "more") for k in (0, 1)]
        assert [c.turns for c in chains] == [False, False, True, True, False, False]
        assert len(seen) == 2 + 2 * 3, "each seed is a talk of its own, and a request made before is not made again"
        before = len(seen)
        (chain,), _ = collect([SUM], chat, "slow", samples=1, seed=0)
        assert not chain.turns and len(seen) == before, "asked once, it is the first turn, known already"


def test_a_turn_that_fails_is_listed_and_asked_again(tmp_path, project):
    broken = [True]

    def answer(body: dict) -> str:
        if "3 + 4" in body["messages"][0]["content"] and len(body["messages"]) == 3 and broken:
            raise Refusal(400, "flagged by the content_filter")
        return talk(body)

    other = SUM.replace(id="other", question="What is 4 + 3?")
    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "store.jsonl")
        chains, failed = collect([SUM, other], chat, "slow", samples=1, seed=0, turns=True)
        assert [c.problem_id for c in chains] == ["other"] and len(seen) == 2 + 2 + 1
        assert [(row["problem_id"], row["sample"]) for row in failed] == [("sum", 0)]
        assert "content_filter" in failed[0]["reason"]
        broken.clear()
        chains, failed = collect([SUM, other], chat, "slow", samples=1, seed=0, turns=True)
        assert [c.problem_id for c in chains] == ["sum", "other"] and not failed and len(seen) == 5 + 2


def reply(text: str, finish_reason: str = "stop", reasoning: str = "") -> Reply:
    return Reply(text, reasoning, finish_reason, 10, len(text.split()))


def test_a_chain_that_is_cut_off_stays_as_it_is():
    cut = reply("<|begin_of_thought|>\nOn and on", "length")
    assert joined([cut]) == cut
    whole = joined([reply("A"), reply("B"), reply("C", "length")])
    assert (whole.finish_reason, whole.text, whole.completion_tokens) == ("length", "A\n\nB\n\nC", 3)


def test_of_a_reasoning_model_the_reasoning_is_the_thought():
    whole = joined([reply("It is 7.", reasoning="3 + 4 = 7"), reply(r"\boxed{7}", reasoning="4 + 3 = 7")])
    assert (whole.text, whole.reasoning) == ("3 + 4 = 7\n\n4 + 3 = 7\n\n\\boxed{7}", "")


def test_boxes_are_opened_however_they_nest():
    assert unboxed(r"so \boxed{\frac{1}{2}} or \boxed{7}; \boxed{}") == r"so \frac{1}{2} or 7; "
    assert unboxed(r"\boxed{\sqrt{\frac{1}{2}}}, \boxed{\boxed{7}}") == r"\sqrt{\frac{1}{2}}, 7"
    assert unboxed(r"it is {1} and \boxed{never closed") == r"it is {1} and \boxed{never closed"

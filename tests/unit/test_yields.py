"""A stage that keeps too little fails, and the error names the parameter to change."""

from collections import Counter

import pytest
from factories import a_chain

from distil.chains import yields
from distil.workspace.errors import StageError
from distil.workspace.rows import AlignedChain


def chains(right: int, why: str, wrong: int) -> list:
    return [a_chain() for _ in range(right)] + [a_chain(correct=False, why=why) for _ in range(wrong)]


@pytest.mark.parametrize(("why", "advice"), [
    ("cut off at the token limit", "--set fast_tokens=N"),
    ("thought until the token limit, said nothing", "--set fast_tokens=N"),
    ("wrong answer", "Name an abler fast_teacher or easier problems"),
    ("no boxed answer", "DISTIL_PROMPTS"),
    ("said nothing", "empty answers"),
    ("ended by content_filter", "See chains.jsonl"),
])  # fmt: skip
def test_too_few_right_chains(why, advice):
    yields.right_chains("fast", chains(1, why, 19), [], 0.05)
    with pytest.raises(StageError) as error:
        yields.right_chains("fast", chains(1, why, 20), [], 0.05)
    said = str(error.value)
    assert said.startswith("1 of 21 fast chains are right") and f"20 {why}" in said and advice in said
    with pytest.raises(StageError, match="0 of 3 fast"):
        yields.right_chains("fast", chains(0, why, 3), [], 0.0)


def test_a_failed_request_is_a_chain_that_was_asked_for():
    failed = [{"style": "fast"}] * 30 + [{"style": "slow"}] * 30
    with pytest.raises(StageError, match=r"1 of 31 fast .*30 request failed.*See failed\.jsonl"):
        yields.right_chains("fast", chains(1, "", 0), failed, 0.05)


def test_too_few_short_chains():
    lost = [a_chain(rejection_reason="thought until the token limit, said nothing")] * 9
    with pytest.raises(StageError, match="0 of 9 slow chains were shortened.*--set rewrite_tokens=N"):
        yields.short_chains([], lost, 0.05)
    yields.short_chains([a_chain()], lost, 0.1)


def row(verdict: str, reason: str | None) -> AlignedChain:
    trail = [{"difficulty": verdict}]
    return AlignedChain(id="c", problem_id="p", kept=reason is None, reason=reason, chain=a_chain(), trail=trail)


@pytest.mark.parametrize(("rows", "advice"), [
    ([row("unrated", "unrated")] * 30, "0 of 30 chains have a verdict.*--set verdict_tokens=N"),
    ([row("hard", "simplify: cut off at the token limit")] * 9, "0 of 9 chains suit.*--set rewrite_tokens=N"),
    ([row("hard", "rounds used up (hard)")] * 9, "0 of 9 chains suit.*Raise max_rounds"),
    ([row("hard", "simplify: answer changed")] * 9, "0 of 9 chains suit.*abler rewriter"),
])  # fmt: skip
def test_too_few_chains_that_suit(rows, advice):
    with pytest.raises(StageError, match=advice):
        yields.suited_chains(rows, 0.05)
    yields.suited_chains([*rows, *[row("medium", None)] * 9], 0.05)


def test_too_few_grades():
    none, some = {"rv": None}, {"rv": 3}
    with pytest.raises(StageError, match="1 of 40 chains are graded.*--set verdict_tokens=N"):
        yields.graded_chains([some, *[none] * 39], 0.05)
    yields.graded_chains([some, none], 0.05)


def test_a_share_that_is_none():
    with pytest.raises(StageError, match=r"min_share=5: a share lies between 0 and 1"):
        yields.check(5)


def test_what_no_advice_fits_gets_the_last():
    with pytest.raises(StageError, match="others: 2 odd, 1 even. Do that"):
        yields.require(0, 3, 0.1, "things", Counter(odd=2, even=1), {"even": "Do this", "": "Do that"})


def test_a_stage_that_kept_nothing_fails_there_and_says_what_to_do():
    """It ended as done, and the next one died of an IndexError."""
    yields.candidates(chains(1, "", 0))
    with pytest.raises(StageError, match="no chain is left to judge: 01 kept no right fast chain.* Collect more in 01"):
        yields.candidates([])
    yields.training_rows("slow", [], [])  # of a style that nobody collected there is no set
    yields.training_rows("fast", [1], [1])
    with pytest.raises(StageError, match="'fast' has no row: all 2 fell to validation"):
        yields.training_rows("fast", [], [1, 1])

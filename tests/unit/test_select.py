"""Which chain of a problem goes into which training set."""

import pytest
from factories import a_chain, a_problem

from distil.chains.select import (
    families,
    same_problems,
    select_adaptive,
    select_fast,
    select_random,
    select_shortest,
    select_slow,
    select_surprise,
    split_by_problem,
)
from distil.workspace.errors import StageError
from distil.workspace.rows import Chain, TrainingRow


def chains(*told: tuple[str, str, int]) -> list[Chain]:
    return [a_chain(id=name, problem_id=problem, n_tokens=n) for name, problem, n in told]


def ids(chosen: list[Chain]) -> list[str]:
    return [chain.id for chain in chosen]


BRIEF = chains(("a", "p", 30), ("b", "q", 50), ("c", "p", 9), ("d", "p", 9), ("e", "r", 7))


def test_slow_is_the_first_of_each_problem_and_shortest_that_of_fewest_tokens():
    assert ids(select_slow(BRIEF)) == ["a", "b", "e"]
    assert ids(select_shortest(BRIEF)) == ["c", "b", "e"], "the first of equals"


def test_random_is_drawn_by_the_seed_and_not_by_what_else_there_is():
    drawn = {seed: ids(select_random(BRIEF, seed)) for seed in range(20)}
    assert {names[0] for names in drawn.values()} == {"a", "c", "d"}
    assert all(names[1:] == ["b", "e"] for names in drawn.values())
    assert all(ids(select_random(BRIEF[2:] + BRIEF[:2], seed))[0] in "acd" for seed in drawn)
    alone = [chain for chain in BRIEF if chain.problem_id == "p"]
    assert all(ids(select_random(alone, seed)) == names[:1] for seed, names in drawn.items())


def test_fast_takes_what_the_loop_kept_and_loses_no_problem():
    kept = chains(("a-expand-1", "p", 60), ("a2", "p", 40), ("b-expand-1", "q", 90))
    assert ids(select_fast(kept, select_shortest(BRIEF))) == ["a2", "b-expand-1", "e"]
    assert ids(select_fast([], select_shortest(BRIEF))) == ["c", "b", "e"], "nothing kept: all fall back"


def test_adaptive_matches_verbosity_to_difficulty():
    both = chains(("a", "p", 10), ("b", "p", 20))
    scores = {"a": {"rv": 2, "cd": 5}, "b": {"rv": 5, "cd": 5}}
    assert ids(select_adaptive(both, scores, select_shortest(both))) == ["b"]
    assert ids(select_adaptive(both, scores, select_shortest(both), cd_cap=4)) == ["a"], "over the cap: the shortest"
    scores["a"]["cd"] = 3
    assert ids(select_adaptive(both, scores, select_shortest(both), cd_cap=4)) == ["b"], "the mean is at the cap"


def test_adaptive_falls_back_where_nothing_was_rated():
    slow = [chain.replace(style="slow") for chain in chains(("long", "p", 90), ("only", "s", 80), ("wrong", "t", 1))]
    slow[2].correct = False
    scores = {name: {"rv": None, "cd": None} for name in ("long", "only", "c")}
    assert ids(select_adaptive([*BRIEF, *slow], scores, select_shortest(BRIEF))) == ["c", "b", "e", "only"]
    shortened = chains(("shortened", "p", 95))
    assert ids(select_adaptive(slow[:1], scores, shortened)) == ["shortened"], "a brief chain, be it the longer"


def test_surprise_is_the_chain_of_the_smallest_leap():
    leaps = {"a": 0.4, "b": 7.0, "c": 2.5, "d": 2.5, "e": 0.1}
    assert ids(select_surprise(BRIEF, leaps)) == ["a", "b", "e"]
    assert ids(select_surprise(BRIEF, leaps | {"a": 2.5})) == ["c", "b", "e"], "of equals the shortest"


def test_families_are_counted_before_and_after_alignment():
    problems = {name: a_problem(id=name, task=task) for name, task in (("p", "sums"), ("q", "sums"), ("r", "words"))}
    kept = chains(("x", "q", 1), ("y", "q", 2))
    rows = families(select_shortest(BRIEF), kept, problems)
    assert rows == [["sums", 2, 1, 1], ["words", 1, 0, 1], ["all", 3, 1, 2]]


def test_sets_of_the_same_problems_differ_by_their_chains_alone():
    found = same_problems({
        "slow": chains(("s1", "r", 90), ("s2", "p", 80), ("s3", "z", 70)),
        "fast": chains(("f1", "p", 5), ("f2", "q", 6), ("f3", "r", 7)),
        "surprise": [],
    })  # fmt: skip
    assert {name: ids(chosen) for name, chosen in found.items()} == {
        "slow": ["s1", "s2"], "fast": ["f3", "f1"], "surprise": [],
    }  # fmt: skip
    assert [c.problem_id for c in found["slow"]] == [c.problem_id for c in found["fast"]], "in the same order"


def test_no_problem_in_common_is_said_before_anything_is_trained():
    with pytest.raises(StageError, match=r"problems: slow 1, fast 2.* --set same_problems=false.* in 01"):
        same_problems({"slow": chains(("s", "z", 1)), "fast": chains(("f", "p", 1), ("g", "q", 1)), "surprise": []})


def test_splits_keep_a_problem_together():
    rows = [TrainingRow(instruction="", output="", messages=[], problem_id=f"p{i % 40}") for i in range(200)]
    train, valid = split_by_problem(rows, seed=0)
    assert len(train) + len(valid) == 200 and valid
    assert not {r.problem_id for r in train} & {r.problem_id for r in valid}

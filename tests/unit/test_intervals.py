"""Estimates against enumeration, intervals against simulation."""

import json
import tracemalloc
from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from conftest import ROOT

from distil.workspace import statistics
from distil.workspace.statistics import (
    bootstrap,
    difference,
    difference_over_seeds,
    interval,
    majority_at_k,
    pass_at_k,
    seeds_and_questions,
)


def simulated(rng, questions: int, samples: int) -> np.ndarray:
    """Shares of right answers to questions whose difficulty differs; their true mean is 0.3."""
    return rng.binomial(samples, rng.beta(1.2, 2.8, questions)) / samples


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = [any(i < c for i in draw) for draw in combinations(range(n), k)]
                assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


VOTES = [("4", True), ("4", True), ("5", False), ("5", False), ("6", False), (None, False)]


def enumerated(votes, k) -> Fraction:
    """Majority@k by hand: every subset, ties shared evenly."""
    total = Fraction(0)
    subsets = list(combinations(range(len(votes)), k))
    for subset in subsets:
        counts = Counter(votes[i][0] for i in subset if votes[i][0] is not None)
        top = [a for a in counts if counts[a] == max(counts.values())]
        total += Fraction(sum(dict(votes)[a] for a in top), len(top) or 1)
    return total / len(subsets)


@pytest.mark.parametrize("votes", [VOTES, VOTES[:3], VOTES[2:], [(None, False)] * 3, [("4", True)] * 4])
def test_majority_at_k_is_that_of_all_subsets(votes):
    for k in range(1, len(votes) + 1):
        assert majority_at_k(votes, k, seed=0) == pytest.approx(float(enumerated(votes, k)))


def test_ties_are_shared_and_silence_is_no_answer():
    assert majority_at_k(VOTES[1:3], 2, 0) == 0.5
    assert majority_at_k([(None, False), (None, False), ("4", True)], 3, 0) == 1
    assert majority_at_k([(None, False)] * 2, 2, 0) == 0
    for k in (0, 7):
        with pytest.raises(ValueError, match="majority@"):
            majority_at_k(VOTES, k, 0)


def test_majority_over_drawn_subsets_is_near_that_over_all_and_the_same_again():
    votes = [("4", True)] * 7 + [("5", False)] * 6 + [(None, False)] * 3
    drawn = majority_at_k(votes, 8, seed=1)
    assert drawn == majority_at_k(votes, 8, seed=1)
    assert drawn == pytest.approx(float(enumerated(votes, 8)), abs=0.07)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 4])
def test_95_percent_intervals_cover_the_truth_95_times_of_100(samples):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        low, high = interval(simulated(rng, 100, samples).tolist())
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 1000 <= 0.97


def test_an_interval_over_answers_instead_of_questions_would_be_too_sure():
    rng = np.random.default_rng(0)
    shares = simulated(rng, 30, 16)
    low, high = interval(shares.tolist())
    right = np.repeat(shares, 16)
    naive = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    assert high - low > 1.5 * naive


def test_nothing_right_is_no_proof_of_zero():
    for samples in (1, 4):
        low, high = interval([0.0] * 30)
        assert low == 0 and high > 0.05, samples


def test_the_same_answers_to_few_questions_are_no_proof_of_equality():
    few, many = (difference([1.0, 0.0] * n, [1.0, 0.0] * n, seed=0) for n in (4, 400))
    assert few["difference"] == 0 and few["ci_low"] < -0.2 and few["ci_high"] > 0.2
    assert many["ci_high"] < 0.01


@pytest.mark.slow
@pytest.mark.slow
def test_differences_over_several_samples_are_paired_by_question():
    rng = np.random.default_rng(0)
    covered, widths = 0, []
    for _ in range(300):
        hard = rng.beta(1.2, 2.8, 100)
        ours, theirs = (rng.binomial(8, np.clip(hard + gain, 0, 1)) / 8 for gain in (0.1, 0.0))
        truth = np.mean(np.clip(hard + 0.1, 0, 1) - hard)
        gap = difference(ours.tolist(), theirs.tolist(), seed=0)
        covered += gap["ci_low"] <= truth <= gap["ci_high"]
        apart = [bootstrap(shares.tolist(), 0) for shares in (ours, theirs)]
        widths.append((gap["ci_high"] - gap["ci_low"]) / sum(high - low for low, high in apart))
    assert 0.92 <= covered / 300 <= 0.98 and np.mean(widths) < 0.6
    with pytest.raises(ValueError, match="shorter|longer"):
        difference([1.0], [1.0, 0.0], seed=0)


def test_a_bootstrap_in_parts_is_that_of_one_piece(monkeypatch):
    values = np.random.default_rng(1).random(600)
    means = np.random.default_rng(7).choice(values, (statistics.DRAWS, 600)).mean(axis=1)
    whole = tuple(np.percentile(means, [2.5, 97.5]))
    for at_once in (1, 5000, 2**20, 10**9):
        monkeypatch.setattr(statistics, "AT_ONCE", at_once)
        assert bootstrap(values.tolist(), 7) == whole, at_once


def test_the_questions_of_mmlu_pro_fit_into_memory():
    shares = np.random.default_rng(0).integers(0, 5, 12_032) / 4
    tracemalloc.start()
    interval(shares.tolist())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20, "drawn in one piece they take 1.8 GiB"


def crossed(rng, seeds: int, questions: int, between_seeds: float) -> np.ndarray:
    """Gaps of two recipes whose true difference is 0: a row a training seed, all of them on the same questions."""
    seed, question = rng.normal(0, between_seeds, (seeds, 1)), rng.normal(0, 0.2, (1, questions))
    return seed + question + rng.normal(0, 0.3, (seeds, questions))


def pigeonhole(rng, gaps: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap that draws seeds and questions (Owen 2007)."""
    k, n = gaps.shape
    of_seeds, of_questions = (rng.multinomial(size, [1 / size] * size, 400) / size for size in (k, n))
    low, high = np.percentile(np.einsum("dk,kn,dn->d", of_seeds, gaps, of_questions, optimize=True), [2.5, 97.5])
    return low, high


@pytest.mark.parametrize("between_seeds", [0.0, 0.02, 0.05])
def test_intervals_over_three_seeds_cover_the_truth(between_seeds):
    rng = np.random.default_rng(0)
    covered = np.zeros(3)
    for _ in range(500):
        gaps = crossed(rng, 3, 200, between_seeds)
        mean, error = gaps.mean(), gaps.mean(axis=0).std(ddof=1) / 200**0.5
        questions = mean - 1.96 * error, mean + 1.96 * error
        found = questions, pigeonhole(rng, gaps), seeds_and_questions(gaps.mean(axis=1).tolist(), *questions)
        covered += [low <= 0 <= high for low, high in found]
    of_questions, drawn, ours = covered / 500
    assert 0.91 <= ours <= 0.99
    if between_seeds == 0.05:
        assert of_questions < 0.8 and drawn < 0.91, "why seeds are not held fixed, nor three of them drawn anew"


def test_seeds_that_disagree_widen_the_interval_and_one_seed_cannot():
    theirs = [[False] * 100] * 3
    ours = [[True] * n + [False] * (100 - n) for n in (10, 30, 50)]
    apart = difference_over_seeds(ours, theirs, seed=0)
    assert apart["by_seed"] == pytest.approx([0.1, 0.3, 0.5]) and apart["difference"] == pytest.approx(0.3)
    low, high = apart["over_questions"]
    assert apart["ci_low"] < -0.1 < 0.2 < low < high < 0.4 < 0.7 < apart["ci_high"]
    alike = difference_over_seeds([ours[1]] * 3, theirs, seed=0)
    assert [alike["ci_low"], alike["ci_high"]] == pytest.approx(alike["over_questions"], abs=0.02)
    assert difference_over_seeds(ours[:1], theirs[:1], seed=0) == difference(ours[0], theirs[0], seed=0)


def gains_over_seeds() -> list[tuple[dict, list[dict], str, str]]:
    """(gain, rows, of, to) of each kept result with several training seeds."""
    found = []
    for file, key, gains, base in (
        ("align", "selection", "minus_shortest", "shortest"),
        ("prefer", "name", "minus_sft", "sft"),
        ("prefer_unequal", "name", "minus_sft", "sft"),
    ):
        kept = json.loads((ROOT / "benchmarks/results" / f"{file}.json").read_text())
        rows = [row | {"name": row[key]} for row in kept["rows"]]
        found += [(gain, rows, gain[key], base) for gain in kept[gains]]
        if file == "align":
            found.append((kept["student-loop_minus_student"], rows, "student-loop", "student"))
    return found


def test_kept_gains_over_seeds_follow_from_what_was_kept_of_each_seed():
    """The answers were not kept: by-seed accuracies were, and the interval over questions."""
    checked = gains_over_seeds()
    assert len(checked) == 16
    for gain, rows, of, to in checked:
        accuracy = {(row["name"], row["seed"]): row["accuracy"] for row in rows}
        by_seed = [accuracy[of, seed] - accuracy[to, seed] for seed in (0, 1, 2)]
        assert gain["by_seed"] == pytest.approx(by_seed, abs=1.01e-4), of
        assert gain["difference"] == pytest.approx(sum(gain["by_seed"]) / 3)
        both = seeds_and_questions(gain["by_seed"], *gain["over_questions"])
        assert (gain["ci_low"], gain["ci_high"]) == pytest.approx(both), of
        assert both[0] <= gain["over_questions"][0] and gain["over_questions"][1] <= both[1]

"""Estimates against enumeration, intervals against simulation."""

from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from distil.workspace.statistics import bootstrap, difference, interval, majority_at_k, pass_at_k


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

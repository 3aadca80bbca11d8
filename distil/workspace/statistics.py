"""Estimates from repeated answers, and their intervals. The unit that is drawn is always the question.

So an interval says what other questions would have given with these checkpoints; what another training seed would have
given is in it only where several were trained (`difference_over_seeds`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from math import comb

DRAWS = 10_000  # of a bootstrap
AT_ONCE = 2**20  # values drawn at once: 16 MiB with their numbers, whatever the number of questions
SUBSETS = 500  # subsets of answers looked at where there are more


def wilson(right: int, n: int) -> tuple[float, float]:
    """95% interval of a proportion. (Wilson 1927, as scipy computes it.)"""
    from scipy.stats import binomtest

    found = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(values: Sequence[float], seed: int) -> tuple[float, float]:
    """95% percentile bootstrap interval of a mean over questions. (Efron 1979.)"""
    import numpy as np

    given, draw, means = np.asarray(values, float), np.random.default_rng(seed), np.empty(DRAWS)
    some = max(1, AT_ONCE // len(given))
    for first in range(0, DRAWS, some):  # the same stream of random numbers as if all were drawn at once
        part = means[first : first + some]
        part[:] = draw.choice(given, (len(part), len(given))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def interval(shares: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of accuracy from the share of right answers to each question.

    Wilson's where each share is 0 or 1, as with one answer a question; else a bootstrap over questions: a second answer
    to a question says less than an answer to a second question.
    """
    if all(share in (0, 1) for share in shares):  # a bootstrap of zeros alone would be sure of itself
        return wilson(int(sum(shares)), len(shares))
    return bootstrap(shares, seed)


def difference(ours: Sequence[float], theirs: Sequence[float], seed: int) -> dict:
    """Accuracy of one student minus another's on the same questions, {difference, ci_low, ci_high}.

    `ours` and `theirs` are right or wrong, or the share of right answers, question by question. 95% bootstrap over
    questions, which are drawn in pairs: what is easy for both cancels out. Of these two checkpoints: see above.
    """
    gaps = [float(a) - float(b) for a, b in zip(ours, theirs, strict=True)]
    if not any(gaps):  # all that is known: the share of questions on which they differ is below this
        most = wilson(0, len(gaps))[1]
        return {"difference": 0.0, "ci_low": -most, "ci_high": most}
    low, high = bootstrap(gaps, seed)
    return {"difference": sum(gaps) / len(gaps), "ci_low": low, "ci_high": high}


def difference_over_seeds(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], seed: int) -> dict:
    """Accuracy of one recipe minus another's: a row of answers for each training seed, all to the same questions.

    `difference` of the means over the seeds, and where there are several seeds what each gives (`by_seed`), its
    interval (`over_questions`), and in its place one that allows for other seeds, too (`seeds_and_questions`).
    """
    import numpy as np

    means = [np.mean(of_seeds, axis=0) for of_seeds in (ours, theirs)]
    found = difference(means[0].tolist(), means[1].tolist(), seed)
    if len(ours) == 1:
        return found
    by_seed = [float(np.mean(a) - np.mean(b)) for a, b in zip(ours, theirs, strict=True)]
    questions = [found["ci_low"], found["ci_high"]]
    low, high = seeds_and_questions(by_seed, *questions)
    within = {"ci_low": max(-1.0, low), "ci_high": min(1.0, high)}  # of two shares
    return found | {"by_seed": by_seed, "over_questions": questions, **within}


def seeds_and_questions(by_seed: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """95% interval of a mean over training seeds and questions from its value `by_seed`, two at least, and its interval
    over the questions alone, `low` to `high`.

    All seeds answer the same questions: the two are crossed, so the variance of the mean is that between seeds plus
    that between questions. What is left over is in both and counted twice, on the safe side. t has the degrees of
    freedom of Satterthwaite (1946), of seeds only: k - 1 where seeds make the difference, many where questions do.

    To draw seeds and questions with replacement (the pigeonhole bootstrap, Owen 2007) is for many of each: three seeds
    give ten different draws, whose variance is two thirds of what it should be. Where seeds differ it then covers the
    truth 88 times of 100, and this interval 92 to 94 times; where they do not, both cover it more often than 95.
    """
    import numpy as np
    from scipy.stats import norm, t

    k, mean = len(by_seed), float(np.mean(by_seed))
    of_seeds = float(np.var(by_seed, ddof=1)) / k
    of_questions = float(((high - low) / (2 * norm.ppf(0.975))) ** 2)
    freedom = (k - 1) * (1 + of_questions / of_seeds) ** 2 if of_seeds else np.inf
    half = float(t.ppf(0.975, freedom)) * (of_seeds + of_questions) ** 0.5
    return mean - half, mean + half


def pass_at_k(n, c, k: int):
    """Unbiased pass@k of n samples a question of which c are right: 1 - C(n-c, k)/C(n, k). (Chen et al. 2021.)

    `n` and `c` are numbers or arrays of one shape, k at most min(n); returns the same shape. Raises ValueError
    otherwise.
    """
    import numpy as np

    n, c = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    if k < 1 or (n < k).any() or (c < 0).any() or (c > n).any():
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n")
    product = np.ones(n.shape)
    for i in range(k):  # C(n-c, k)/C(n, k) as a product of k ratios, which cannot overflow
        product = product * np.clip((n - c - i) / (n - i), 0, None)
    return 1 - product


def majority_at_k(votes: Sequence[tuple[Hashable | None, bool]], k: int, seed: int) -> float:
    """Chance that the most frequent of k answers to one question is right, k of the given ones being drawn.

    A vote is (answer, is it right?); an answer None has no vote, and equally frequent answers are equally likely to be
    chosen. Exact over all subsets where there are at most `SUBSETS`, else over as many drawn by `seed`. (Wang et al.
    2023, self-consistency.) Raises ValueError for a k that is not between 1 and the number of votes.
    """
    if not 1 <= k <= len(votes):
        raise ValueError(f"majority@{k} needs 1 <= k <= {len(votes)}")
    if comb(len(votes), k) <= SUBSETS:
        subsets = list(combinations(votes, k))
    else:
        import random

        draw = random.Random(seed)
        subsets = [draw.sample(votes, k) for _ in range(SUBSETS)]
    return sum(map(chosen_right, subsets)) / len(subsets)


def chosen_right(votes: Sequence[tuple[Hashable | None, bool]]) -> float:
    """The share of right ones among the most frequent answers; 0 if nobody votes."""
    counts = Counter(answer for answer, _ in votes if answer is not None)
    if not counts:
        return 0.0
    top = [answer for answer, count in counts.items() if count == max(counts.values())]
    right = {answer: ok for answer, ok in votes}
    return sum(right[answer] for answer in top) / len(top)

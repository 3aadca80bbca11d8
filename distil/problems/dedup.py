"""Duplicates, near-duplicates and problems that give a test away: found and set apart, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distil.workspace.rows import Problem

LONG = 30  # tokens; shorter questions are compared as a whole only: "3 + 4" and "3 + 5" are two problems
SHINGLE = 3  # tokens
NEAR = 0.9  # Jaccard similarity of shingles from which two long questions are one
PERMUTATIONS = 128  # of MinHash: a standard error of the estimate of 0.03 near 0.9
NGRAM = 13  # tokens; the length that GPT-3's and most later decontaminations look for
NUMBER = r"\d+(?:[.,:]\d+)*"
# numbers, single ideographs and kana (Chinese and Japanese leave no spaces), words, and every sign but punctuation
IDEOGRAPH = "\u3040-\u30ff\u4e00-\u9fff"
TOKEN = re.compile(rf"{NUMBER}|[{IDEOGRAPH}]|[^\W\d_{IDEOGRAPH}]+|[^\w\s.,;:?\"'`$“”‘’。，、；：？]")


def tokens(text: str) -> list[str]:
    """Words, numbers and operators of a text in lower case; spaces, quotes and full stops do not count."""
    return TOKEN.findall(text.casefold())


def numbers(found: Sequence[str]) -> list[str]:
    """Those tokens that are numbers, in order."""
    return [token for token in found if token[0].isdigit()]


def ngrams(found: Sequence[str], n: int) -> set[str]:
    """All runs of `n` tokens."""
    return {" ".join(found[i : i + n]) for i in range(len(found) - n + 1)}


def contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Does `part` stand in `whole`, without a gap? An empty part does."""
    return any(list(whole[i : i + len(part)]) == list(part) for i in range(len(whole) - len(part) + 1))


def removal(problem: Problem, other: Problem, reason: str) -> dict:
    """A row of `removed.jsonl`: the problem, why it was removed, and what it collides with."""
    why = {"reason": reason, "collides_with": other.id, "collides_with_question": other.question}
    return problem.to_dict() | why


def remove_duplicates(rows: Sequence[Problem]) -> tuple[list[Problem], list[dict]]:
    """(kept, removed): of questions that say the same the first is kept.

    Two questions say the same if their tokens are equal. Two of at least `LONG` tokens also do if they have the same
    numbers in the same order and their sets of shingles have a Jaccard similarity of `NEAR` or more. MinHash finds
    candidates; an exact comparison decides.
    """
    kept, removed, seen = [], [], {}
    index = shingles = None
    for number, row in enumerate(rows):
        found = tokens(row.question)
        twin = seen.get(tuple(found))
        if twin is not None:
            same = twin.answer == row.answer
            removed.append(removal(row, twin, "duplicate question" if same else "duplicate question, another answer"))
            continue
        if len(found) >= LONG:
            if index is None:
                index, shingles = new_index(), {}
            mine = ngrams(found, SHINGLE)
            sketch = minhash(mine)
            near = [rows[i] for i in sorted(index.query(sketch)) if is_near(found, mine, *shingles[i])]
            if near:
                removed.append(removal(row, near[0], "near-duplicate question"))
                continue
            index.insert(number, sketch)
            shingles[number] = (found, mine)
        seen[tuple(found)] = row
        kept.append(row)
    return kept, removed


def is_near(found: Sequence[str], mine: set[str], other_found: Sequence[str], other: set[str]) -> bool:
    """Equal numbers, and shingles that are nearly the same."""
    return numbers(found) == numbers(other_found) and len(mine & other) >= NEAR * len(mine | other)


def new_index():
    """An empty MinHash index. Its threshold lies below `NEAR`, so that the estimate misses few pairs."""
    from datasketch import MinHashLSH

    return MinHashLSH(threshold=NEAR - 0.1, num_perm=PERMUTATIONS)


def minhash(shingles: set[str]):
    """The MinHash sketch of a set of shingles; its seed is fixed, so that every run finds the same."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
    sketch.update_batch([shingle.encode() for shingle in shingles])
    return sketch


def decontaminate(train: Sequence[Problem], tests: Sequence[Problem]) -> tuple[list[Problem], list[dict]]:
    """(kept, removed) of training problems, each compared with every test problem.

    A question is removed if it has the tokens of a test question, or if it shares a run of `NGRAM` tokens with one and
    holds that one's numbers in their order. A run that several test questions share does not count: it is the wording
    of a family.
    """
    whole, runs = {}, {}
    for test in tests:
        found = tokens(test.question)
        if tuple(found) in whole:
            continue
        whole[tuple(found)] = test
        for run in ngrams(found, NGRAM):
            runs.setdefault(run, []).append((test, numbers(found)))
    kept, removed = [], []
    for row in train:
        found = tokens(row.question)
        if tuple(found) in whole:
            removed.append(removal(row, whole[tuple(found)], "same question as a test problem"))
            continue
        mine, hit = numbers(found), None
        for run in sorted(ngrams(found, NGRAM) & runs.keys()):
            if len(runs[run]) == 1 and contains(mine, runs[run][0][1]):
                hit = runs[run][0][0]
                break
        if hit is None:
            kept.append(row)
        else:
            removed.append(removal(row, hit, f"{NGRAM} words in a row from a test problem"))
    return kept, removed


def clean(rows: Sequence[Problem], others: Sequence[Problem] = ()) -> tuple[list[Problem], list[dict]]:
    """(kept, removed) problems of a run, in their order: no question twice, no test question among those to learn.

    `others` are further questions that must not be learned, such as those of a benchmark.
    """
    train, twice = remove_duplicates([row for row in rows if row.split != "test"])
    test, twice_in_test = remove_duplicates([row for row in rows if row.split == "test"])
    train, known = decontaminate(train, [*test, *others])
    keep = {row.id for row in (*train, *test)}
    return [row for row in rows if row.id in keep], [*twice, *twice_in_test, *known]

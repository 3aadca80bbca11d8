"""Stage 03, its end: of each problem one chain a training set, and the rows to train on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from distil.llm.prompts import prompt_of
from distil.models import formats
from distil.workspace.errors import StageError
from distil.workspace.rows import Chain, Pair, Problem, TrainingRow

T = TypeVar("T", bound=TrainingRow | Pair)
LOST = 0.25  # share of the problems that may fall away without a word


def by_problem(chains: Sequence[Chain]) -> dict[str, list[Chain]]:
    """The chains of each problem, both in the order in which they come."""
    groups: dict[str, list[Chain]] = {}
    for chain in chains:
        groups.setdefault(chain.problem_id, []).append(chain)
    return groups


def select_slow(slow: Sequence[Chain]) -> list[Chain]:
    """For each problem the first of its right slow chains."""
    return [group[0] for group in by_problem(slow).values()]


def select_shortest(brief: Sequence[Chain]) -> list[Chain]:
    """For each problem the chain of fewest tokens, the first of equals, whoever it suits.

    A slow chain that was shortened is still several times as long as a fast one: trained on both, the student learns
    two ways of writing and pays for the longer.
    """
    return [min(group, key=lambda c: c.n_tokens) for group in by_problem(brief).values()]


def select_random(brief: Sequence[Chain], seed: int) -> list[Chain]:
    """For each problem one of its chains, drawn by the seed: the same one whatever other problems there are."""
    return [random.Random(f"{seed}:{problem}").choice(group) for problem, group in by_problem(brief).items()]


def select_fast(kept: Sequence[Chain], shortest: Sequence[Chain]) -> list[Chain]:
    """For each problem of `shortest` the shortest chain that the loop kept; where it kept none, that of `shortest`.

    Otherwise alignment would choose problems, too, and a student would be the worse for those that it never saw.
    """
    aligned = {chain.problem_id: chain for chain in select_shortest(kept)}
    return [aligned.get(chain.problem_id, chain) for chain in shortest]


def select_adaptive(
    chains: Sequence[Chain], scores: Mapping[str, dict], shortest: Sequence[Chain], cd_cap: int = 6
) -> list[Chain]:
    """For each problem the right chain whose verbosity is nearest its difficulty, if that is within `cd_cap`.

    The published rule keeps chains that are correct, of moderate verbosity and of bounded difficulty; matching RV to
    CD is our reading of it, since the formula is unpublished. CD of a problem is the mean over its rated chains. Unlike
    the published rule ours loses no problem: one that is above the cap, or has no rated chain, falls back on its chain
    in `shortest`, or on the shortest of `chains` where no brief one is right.
    """
    right = [chain for chain in chains if chain.correct]
    groups = by_problem([c for c in right if scores.get(c.id, {}).get("rv") is not None])
    instead = {chain.problem_id: chain for chain in (*select_shortest(right), *shortest)}
    chosen = []
    for problem, fallback in instead.items():
        group = groups.get(problem, [])
        cd = sum(scores[c.id]["cd"] for c in group) / max(1, len(group))
        suited = group if cd <= cd_cap else []
        chosen.append(min(suited, key=lambda c: (abs(scores[c.id]["rv"] - cd), c.n_tokens), default=fallback))
    return chosen


def select_surprise(brief: Sequence[Chain], leaps: Mapping[str, float]) -> list[Chain]:
    """For each problem the chain whose most surprising step surprises the student least; of equals the shortest.

    `leaps` are the bits a token of that step of each chain, as made by `student_judge.leaps`.
    """
    return [min(group, key=lambda c: (leaps[c.id], c.n_tokens)) for group in by_problem(brief).values()]


def families(shortest: Sequence[Chain], kept: Sequence[Chain], problems: Mapping[str, Problem]) -> list[list]:
    """[family, problems with a right brief chain, of which aligned, fell back] of each family, then of all."""
    aligned = {chain.problem_id for chain in kept}
    have = Counter(problems[chain.problem_id].task for chain in shortest)
    suited = Counter(problems[chain.problem_id].task for chain in shortest if chain.problem_id in aligned)
    counts = [(family, n, suited[family]) for family, n in have.items()]
    return [[*row, row[1] - row[2]] for row in (*counts, ("all", have.total(), suited.total()))]


def same_problems(sets: Mapping[str, Sequence[Chain]]) -> dict[str, list[Chain]]:
    """Of each set the problems that all sets have, in one order, so that sets differ by their chains alone.

    Empty sets stay empty and do not count. A line is printed if they lose more than `LOST` of the largest set's
    problems. Raises StageError if there is no such problem.
    """
    of_problem = {name: {chain.problem_id: chain for chain in chosen} for name, chosen in sets.items()}
    filled = [found for found in of_problem.values() if found]
    if not filled:
        return {name: [] for name in sets}
    shared = [problem for problem in filled[0] if all(problem in found for found in filled)]
    counts = ", ".join(f"{name} {len(found)}" for name, found in of_problem.items() if found)
    most = max(map(len, filled))
    if len(shared) < (1 - LOST) * most:
        print(
            f"{len(shared)} of {most} problems are in every training set ({counts}), and only these are kept, so that "
            "students compare like with like. To lose none: --set same_problems=false"
        )
    if not shared:
        raise StageError(
            f"no problem has a chain in every training set (problems: {counts}). Give --set same_problems=false, which "
            "leaves each set its own problems, or collect chains of more problems in 01"
        )
    return {name: [found[problem] for problem in shared if found] for name, found in of_problem.items()}


def training_row(chain: Chain, problem: Problem, student_format: str = "plain") -> TrainingRow:
    """A chain as an example to train on, in the student's format: instruction, output, and both as chat messages."""
    prompt = prompt_of(problem, student_format)
    output = formats.write(chain.thought, chain.solution, student_format)
    return TrainingRow(
        instruction=prompt[-1]["content"],
        output=output,
        messages=[*prompt, {"role": "assistant", "content": output}],
        problem_id=problem.id,
        chain_id=chain.id,
        task=problem.task,
    )


def split_by_problem(rows: Sequence[T], seed: int, *, valid_share: float = 0.1) -> tuple[list[T], list[T]]:
    """(train, valid): all rows of one problem fall on one side, the same for one seed. Rows have a `problem_id`."""
    train, valid = [], []
    for row in rows:
        (valid if random.Random(f"{seed}:{row.problem_id}").random() < valid_share else train).append(row)
    return train, valid

"""Stage 05, its data: preference pairs of several gaps, and the student's own mistakes among them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from distil.chains.select import select_shortest, split_by_problem
from distil.llm.prompts import prompt_of
from distil.models import formats
from distil.models.student import load_tokenizer
from distil.train.model import prepare_backend
from distil.verify.registry import is_correct, verifiable, verifier_of
from distil.workspace.bars import bar
from distil.workspace.errors import StageError
from distil.workspace.rows import AlignedChain, Chain, Pair, Problem, Row

GAPS = {
    "small": "03 improved no chain of this run",
    "medium": "no unsuitable chain of 03 has a corrupted form in 02",
    "large": "no kept chain of 03 has a corrupted form in 02",
    "own": "the student answered none of the problems wrongly in due form",
}
AT_ONCE = 128  # own answers
WATCHED = 6  # pairs a gap that are looked at and not trained on


@dataclass(kw_only=True)
class Mistake(Row):
    """A student's own wrong answer to a problem, a row of `own.jsonl`."""

    problem_id: str
    text: str


def parse_betas(text: str) -> dict[str, float]:
    """{gap: beta} from "small:0.1,medium:0.2,large:0.5"; a gap not named is left out.

    Raises StageError for anything else: an unknown gap, one named twice, a beta not above 0.
    """
    betas: dict[str, float] = {}
    for part in text.split(","):
        gap, _, number = (word.strip() for word in part.partition(":"))
        try:
            beta = float(number)
        except ValueError:
            beta = 0.0
        if gap not in GAPS or gap in betas or not 0 < beta < math.inf:
            raise StageError(f"betas {text!r}, at {part!r}: write gap:beta with beta above 0, gaps {', '.join(GAPS)}")
        betas[gap] = beta
    return betas


def build_pairs(
    aligned: Sequence[AlignedChain],
    corrupted: Sequence[Chain],
    own: Sequence[Mistake],
    problems: dict[str, Problem],
    *,
    betas: dict[str, float],
    max_pairs: int,
    seed: int,
    student_format: str = "plain",
) -> list[Pair]:
    """Pairs of the gaps named in `betas`, as evenly as they come; `problems` by their ids.

    Both sides are written in `student_format`. At most `max_pairs` are of split `train`, and up to `WATCHED` a gap of
    split `valid`, of other problems. The gaps:
    small: the aligned form of a chain over its original, which was correct but unsuitable.
    medium: such an original over its corrupted form.
    large: an aligned chain over its corrupted form.
    own: the shortest aligned chain of a problem over a wrong answer of the student itself.
    A chain is compared with its own corruption, which is about as long. A chosen side that is usually longer would
    teach wordiness. Raises StageError if a gap named in `betas` has no pair, and says what it lacks.
    """

    def written(text: str, problem: str) -> str:
        return formatted(text, problems[problem], student_format)

    bad = {chain.parent: formats.write(chain.thought, chain.solution, student_format) for chain in corrupted}
    wrong = {mistake.problem_id: mistake.text for mistake in own}
    shortest = {chain.id for chain in select_shortest([row.chain for row in aligned if row.kept])}
    found: dict[str, list[tuple[str, str, str]]] = {gap: [] for gap in GAPS}
    for row in aligned:
        name, original = row.problem_id, written(row.trail[0]["text"], row.problem_id)
        final = formats.write(row.chain.thought, row.chain.solution, student_format)
        unsuitable = row.trail[0]["difficulty"] in ("easy", "hard")
        if row.kept and unsuitable:
            found["small"].append((name, final, original))
        if unsuitable and row.id in bad:
            found["medium"].append((name, original, bad[row.id]))
        if row.kept and row.id in bad:
            found["large"].append((name, final, bad[row.id]))
        if row.chain.id in shortest and name in wrong:
            found["own"].append((name, final, wrong[name]))
    for gap in betas:
        found[gap] = [pair for pair in dict.fromkeys(found[gap]) if pair[1] != pair[2]]
        if not found[gap]:
            rest = ",".join(f"{g}:{b}" for g, b in betas.items() if g != gap)
            raise StageError(f"no pair for the gap {gap!r}: {GAPS[gap]}. Leave it out, as in betas={rest!r}, or ask 02 "
                             "and 03 of more problems")  # fmt: skip
        random.Random(f"{seed}{gap}").shuffle(found[gap])
    rows = [
        Pair(
            prompt=prompt_of(problems[name], student_format),
            chosen=chosen,
            rejected=rejected,
            gap=gap,
            beta=betas[gap],
            problem_id=name,
            split="train",
        )
        for place in range(max(len(found[gap]) for gap in betas))
        for gap in betas
        for name, chosen, rejected in found[gap][place : place + 1]
    ]
    train, valid = split_by_problem(rows, seed)
    for gap in betas:
        if not any(row.gap == gap for row in train[:max_pairs]):
            raise StageError(
                f"no pair for the gap {gap!r} is trained on: all {len(found[gap])} were set aside, or left out by "
                f"max_pairs={max_pairs}. Raise it, leave the gap out of betas, or ask 02 and 03 of more problems"
            )
    watched = [row for gap in betas for row in [r for r in valid if r.gap == gap][:WATCHED]]
    return train[:max_pairs] + [row.replace(split="valid") for row in watched]


def formatted(text: str, problem: Problem, student_format: str) -> str:
    """A plain chain in a student's format."""
    if student_format == "plain":
        return text
    return formats.write(*verifier_of(problem).split(text), student_format)


def own_mistakes(
    problems: Sequence[Problem],
    student: str,
    n: int,
    seed: int,
    *,
    own_tokens: int = 160,
    student_format: str = "plain",
) -> list[Mistake]:
    """Wrong answers of the student in folder `student` to `n` of the problems, sampled once each.

    The problems are drawn at random from those whose answers can be checked. Answers are sampled at temperature 1, at
    most `own_tokens` long, the thought counted. Only answers in due form count, which ended by themselves with one box:
    to prefer the teacher's form over a missing box would teach form, not thought.
    """
    import torch

    from distil.models.student import generate, load

    prepare_backend(compiler=False)  # if at all, before transformers: the training that follows may want it
    torch.manual_seed(seed)
    model, tokenizer = load(student), load_tokenizer(student)
    problems = [p for p in problems if verifiable(p)]  # an answer that nothing checked is not a mistake
    problems = random.Random(seed).sample(problems, min(n, len(problems)))
    prompts = [prompt_of(p, student_format) for p in problems]
    batches = generate(model, tokenizer, prompts, max_new_tokens=own_tokens, batch_size=AT_ONCE, temperature=1.0)
    shown = bar(batches, math.ceil(len(prompts) / AT_ONCE), desc="own answers", unit="batch")
    replies = [reply for batch in shown for reply in batch]
    return [
        Mistake(problem_id=problem.id, text=reply.text)
        for problem, reply in zip(problems, replies, strict=True)
        if reply.finish_reason == "stop"
        and formats.fault(reply.text, student_format) is None
        and verifier_of(problem).answers_once(formats.said(reply.text), problem)
        and not is_correct(formats.said(reply.text), problem)
    ]


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Raise StageError unless there are pairs, each with two different sides and a beta above 0."""
    if not pairs:
        raise StageError("there is no preference pair to train on: make some with build_pairs")
    for number, row in enumerate(pairs, 1):
        if row.chosen.strip() == row.rejected.strip():
            raise StageError(
                f"pair {number} (problem {row.problem_id}): chosen and rejected are the same text; leave it out"
            )
        if not 0 < row.beta < math.inf:
            raise StageError(f"pair {number} (problem {row.problem_id}): beta is {row.beta}, must be above 0")

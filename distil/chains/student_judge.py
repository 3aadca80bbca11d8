"""Stage 03, the judge that asks the student: from where can it go on by itself, and which step surprises it?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from distil.chains.judge import Item
from distil.chains.judge_replies import VERDICTS
from distil.llm.prompts import format_turns, prompt_of
from distil.models import formats
from distil.models.student import Generated, encode_prompt, generate, load, load_tokenizer
from distil.models.weights import resolve
from distil.verify.answers import all_boxed
from distil.verify.chain_text import split_steps
from distil.verify.registry import is_correct, is_right
from distil.workspace.bars import bar
from distil.workspace.rows import Problem

SPIKE = 1.0  # bits a token: a step that surprises the student so much is a leap
REACH = 0.5  # share of its continuations that must end at the right answer for the student to be said to get there
BATCH = 8  # chains a forward pass


def surprise(
    items: Sequence[Item], shown: Sequence[list[dict]], model, tokenizer, student_format: str = "plain"
) -> list[list[float]]:
    """For each (chain, problem) the bits per token of every step, under the student, given all that comes before it.

    The mean of -log2 p over the step's tokens; the blank line after a step is counted with it. `shown` are messages to
    go before each problem, as made by `examples`.
    """
    import torch

    encoded = []
    for (chain, problem), before in zip(items, shown, strict=True):
        steps = split_steps(chain.full_text)
        begun = {"role": "assistant", "content": formats.BEGINS[student_format]}
        prompt = encode_prompt(tokenizer, [*before, *prompt_of(problem), begun])
        text = tokenizer("\n\n".join(steps), add_special_tokens=False, return_offsets_mapping=True)
        ends, step_of, at = [], [], 0
        for step in steps:
            at += len(step) + 2
            ends.append(at)
        for begin, _ in text["offset_mapping"]:
            step_of.append(next(i for i, end in enumerate(ends) if begin < end))
        encoded.append((prompt, text["input_ids"], step_of, len(steps)))
    order = sorted(range(len(items)), key=lambda i: len(encoded[i][0]) + len(encoded[i][1]))
    bits: list[list[float]] = [[] for _ in items]
    for start in bar(range(0, len(order), BATCH), desc="surprise", unit="batch"):
        places = order[start : start + BATCH]
        ids = [encoded[i][0] + encoded[i][1] for i in places]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)  # on the left
        with torch.inference_mode():
            logits = model(**batch).logits
        for row, i in enumerate(places):
            _, tokens, step_of, n_steps = encoded[i]
            target = torch.tensor(tokens, device=logits.device)
            nats = torch.nn.functional.cross_entropy(
                logits[row, -len(tokens) - 1 : -1].float(), target, reduction="none"
            )
            of_step: list[list[float]] = [[] for _ in range(n_steps)]
            for step, value in zip(step_of, nats.tolist(), strict=True):
                of_step[step].append(value / math.log(2))
            bits[i] = [round(sum(values) / max(1, len(values)), 3) for values in of_step]
    return bits


def examples(items: Sequence[Item], pool: Sequence[Item], student_format: str = "plain") -> list[list[dict]]:
    """For each (chain, problem) one solved problem of `pool`, as chat messages to go before it.

    The student has not been taught to write in steps and to box the answer; without an example the form surprises it.
    The example is another problem of the same task; there is none if the pool holds none.
    """
    of_task: dict[str, list[Item]] = {}
    for chain, problem in pool:
        of_task.setdefault(problem.task, []).append((chain, problem))
    shown = []
    for place, (_, problem) in enumerate(items):
        alike = [item for item in of_task.get(problem.task, []) if item[1].id != problem.id]
        turns = format_turns(student_format)
        if alike:
            chain, other = alike[place % len(alike)]
            told = formats.write(chain.thought, chain.solution, student_format)
            turns += [*prompt_of(other), {"role": "assistant", "content": told}]
        shown.append(turns)
    return shown


def got_there(reply: Generated, problem: Problem) -> bool:
    """Is the first answer that a continuation boxes right? Without a box: did it end by itself at the right answer?"""
    boxed = all_boxed(reply.text)
    if boxed:
        return is_right(boxed[0], problem)
    return reply.finish_reason == "stop" and is_correct(formats.said(reply.text), problem)


def looks(bits: Sequence[float]) -> list[int]:
    """Numbers of steps that the student is given before it goes on alone.

    None of them, all before the step that surprises it most, and all but the last.
    """
    return sorted({0, leap(bits), len(bits) - 1})


def leap(bits: Sequence[float]) -> int:
    """The place of the step that surprises the student most."""
    return max(range(len(bits)), key=lambda i: bits[i])


def verdict(bits: Sequence[float], reach: dict[int, float]) -> str:
    """easy, medium or hard for this student, from surprise and from `reach`, {steps given: share that got there}.

    easy: the student cannot go on before its most surprising step, of `SPIKE` bits a token or more, and can go on after
    it (or nothing comes after it); what leads up to that step is missing. hard: it does not get to the answer even with
    all steps but the last. medium: every other chain.
    """
    place, last = leap(bits), len(bits) - 1
    lost_before, lost_at_end = reach[place] < REACH, reach[last] < REACH
    if bits[place] >= SPIKE and lost_before and (place == last or not lost_at_end):
        return "easy"
    return "hard" if lost_at_end else "medium"


@lru_cache(maxsize=1)
def loaded(student: str, student_format: str) -> tuple:
    """(model, tokenizer) of a student, a model id or folder; the last one stays in memory for who asks next."""
    folder = resolve(student)
    return load(folder), load_tokenizer(folder, student_format)


def leaps(student: str, items: Sequence[Item], student_format: str = "plain") -> dict[str, float]:
    """{chain id: bits a token of the step that surprises the student most}.

    All chains of a problem have the same example before them: what differs is theirs.
    """
    one_each = {problem.id: (chain, problem) for chain, problem in items}
    shown = dict(zip(one_each, examples(list(one_each.values()), items, student_format), strict=True))
    before = [shown[problem.id] for _, problem in items]
    model, tokenizer = loaded(student, student_format)
    bits = surprise(items, before, model, tokenizer, student_format)
    return {chain.id: max(steps) for (chain, _), steps in zip(items, bits, strict=True)}


def by_student(
    student: str,
    pool: Sequence[Item],
    *,
    samples: int,
    batch_size: int,
    max_new_tokens: int = 96,
    student_format: str = "plain",
) -> Callable:
    """A judge for `judge.align`: a function (items, seed) -> [{difficulty, agreement, bits, reach}].

    `student` is a model id or folder, loaded when first asked; `pool` are chains from which an example is shown before
    each problem. Each chain is continued `samples` times at temperature 0.7 from each of its `looks`; `agreement` is
    the share of continuations, over all looks, that turned out as the majority of their look did.
    """
    import torch

    def rate(items: Sequence[Item], seed: int) -> list[dict]:
        model, tokenizer = loaded(student, student_format)
        torch.manual_seed(seed)
        shown = examples(items, pool, student_format)
        bits = surprise(items, shown, model, tokenizer, student_format)
        jobs = [(i, given) for i in range(len(items)) for given in looks(bits[i]) for _ in range(samples)]
        begun = {
            (i, given): formats.BEGINS[student_format]
            + "".join(step + "\n\n" for step in split_steps(items[i][0].full_text)[:given])
            for i, given in jobs
        }
        jobs.sort(key=lambda job: len(begun[job]))  # like lengths together
        prompts = [
            [*shown[i], *prompt_of(items[i][1]), {"role": "assistant", "content": begun[i, given]}] for i, given in jobs
        ]
        batches = generate(model, tokenizer, prompts, max_new_tokens, batch_size, temperature=0.7, until=all_boxed)
        total = math.ceil(len(jobs) / batch_size)
        replies = [r for batch in bar(batches, total, desc="going on", unit="batch") for r in batch]
        right: list[dict[int, list[bool]]] = [{} for _ in items]
        for (i, given), reply in zip(jobs, replies, strict=True):
            right[i].setdefault(given, []).append(got_there(reply, items[i][1]))
        rated = []
        for item_bits, found in zip(bits, right, strict=True):
            reach = {given: sum(ended) / samples for given, ended in sorted(found.items())}
            agreed = [share if share >= REACH else 1 - share for share in reach.values()]
            rated.append(
                {
                    "difficulty": verdict(item_bits, reach),
                    "agreement": round(sum(agreed) / len(agreed), 3),
                    "bits": item_bits,
                    "reach": [[given, share] for given, share in reach.items()],
                }
            )
        return rated

    return rate


def compare(first: Sequence[str], second: Sequence[str]) -> dict:
    """How far two judges of the same chains agree: {counts, kappa, agree, n}.

    `counts` has a row for each verdict of the first judge and in it a number for each of the second's, both in the
    order of `VERDICTS`; chains that either left unrated do not count. Cohen's kappa is 0 for chance, 1 for full
    agreement, None where all verdicts are the same.
    """
    import numpy as np
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    both = [(a, b) for a, b in zip(first, second, strict=True) if a in VERDICTS and b in VERDICTS]
    if not both:
        return {"counts": [[0] * len(VERDICTS) for _ in VERDICTS], "kappa": None, "agree": None, "n": 0}
    ours, theirs = zip(*both, strict=True)
    kappa = cohen_kappa_score(ours, theirs, labels=VERDICTS) if len({*ours, *theirs}) > 1 else np.nan
    return {
        "counts": confusion_matrix(ours, theirs, labels=VERDICTS).tolist(),
        "kappa": None if np.isnan(kappa) else round(float(kappa), 3),
        "agree": round(sum(a == b for a, b in both) / len(both), 3),
        "n": len(both),
    }

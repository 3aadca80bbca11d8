"""Rows joined end to end: a step is so many tokens, of any number of rows, with hardly any padding.

A compiled model wants every batch in one shape. So all micro batches of a training have the same number of tokens, the
same number of row boundaries and the same number of learned tokens; what a batch lacks is filled up and left out of the
loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GRAIN = 128  # tokens: shapes are multiples of it, which suits the GPU's matrix units
NO_TARGET = -100  # what cross_entropy ignores
CHUNK = 4096  # tokens whose logits lie in memory at a time


def by_rows(ordered: Sequence[dict], batch_size: int) -> list[list[dict]]:
    """Steps of `batch_size` encoded rows each, in order; the last may be smaller."""
    return [list(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]


def by_tokens(ordered: Sequence[dict], tokens_a_step: int) -> list[list[dict]]:
    """Steps of at most `tokens_a_step` tokens each, of whole rows in order; a longer row is a step by itself."""
    steps: list[list[dict]] = []
    room = 0
    for row in ordered:
        length = len(row["input_ids"])
        if length > room:
            steps.append([])
            room = tokens_a_step
        steps[-1].append(row)
        room -= length
    return steps


def tokens_of(rows: Sequence[dict]) -> int:
    """Tokens of encoded rows, prompts included."""
    return sum(len(row["input_ids"]) for row in rows)


def learned_of(rows: Sequence[dict]) -> int:
    """Tokens that the loss is taken of."""
    return sum(sum(row["completion_mask"]) for row in rows)


def divided(rows: Sequence[dict], parts: int) -> list[list[dict]]:
    """The rows of a step in `parts` micro batches of about as many tokens: the longest first, each to the emptiest."""
    found: list[list[dict]] = [[] for _ in range(parts)]
    filled = [0] * parts
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        emptiest = filled.index(min(filled))
        found[emptiest].append(row)
        filled[emptiest] += len(row["input_ids"])
    return found


@dataclass(frozen=True)
class Shape:
    """What all micro batches of a training have in common."""

    tokens: int
    boundaries: int  # row starts, and the end
    learned: int  # room for tokens that the loss is taken of
    longest: int  # tokens of the longest row, at most


def rounded_up(number: int, grain: int = GRAIN) -> int:
    return max(1, -(-number // grain)) * grain


def shape_of(batches: Sequence[Sequence[dict]], longest: int) -> Shape:
    """The smallest shape that holds every micro batch, of rows of at most `longest` tokens."""
    tokens = rounded_up(max(tokens_of(batch) for batch in batches))
    longest = rounded_up(longest)
    padding = max(-(-(tokens - tokens_of(batch)) // longest) for batch in batches)
    return Shape(
        tokens=tokens,
        boundaries=max(len(batch) for batch in batches) + padding + 1,
        learned=rounded_up(max(learned_of(batch) for batch in batches)),
        longest=longest,
    )


def packed(rows: Sequence[dict], shape: Shape, pad_token_id: int) -> dict:
    """A micro batch as tensors: input_ids, position_ids and attention_mask (1, tokens), starts (boundaries), where and
    labels (learned).

    Row i lies between starts[i] and starts[i + 1]; positions begin anew with each row. The hidden state at where[j]
    predicts labels[j]; `shift_labels` is the same, under the name by which a Trainer counts what the loss is taken of.
    Padding is rows of its own, of no more than `longest` tokens, in which nothing is learned.
    """
    import torch

    ids: list[int] = []
    positions: list[int] = []
    starts = [0]
    where: list[int] = []
    labels: list[int] = []
    for row in rows:
        for place, learned in enumerate(row["completion_mask"]):
            if learned and place:  # nothing comes before a row's first token
                where.append(len(ids) + place - 1)
                labels.append(row["input_ids"][place])
        ids += row["input_ids"]
        positions += range(len(row["input_ids"]))
        starts.append(len(ids))
    while len(ids) < shape.tokens:
        missing = min(shape.longest, shape.tokens - len(ids))
        ids += [pad_token_id] * missing
        positions += range(missing)
        starts.append(len(ids))
    starts += [shape.tokens] * (shape.boundaries - len(starts))
    where += [0] * (shape.learned - len(where))
    labels += [NO_TARGET] * (shape.learned - len(labels))
    targets = torch.tensor(labels)
    real = [1] * tokens_of(rows)  # what is not padding; for those who count tokens, attention goes by `starts`
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": torch.tensor([real + [0] * (shape.tokens - len(real))]),
        "starts": torch.tensor(starts, dtype=torch.int32),
        "where": torch.tensor(where),
        "labels": targets,
        "shift_labels": targets,
    }

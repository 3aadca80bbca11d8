"""What a student is trained on, token by token: rows encoded, repeated for a budget of tokens, and put in order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from distil.models import formats
from distil.models.student import encode_prompt
from distil.models.templates import check_opening
from distil.train.packing import by_rows, by_tokens, tokens_of
from distil.workspace.errors import StageError
from distil.workspace.rows import TrainingRow


def default_batch_size() -> int:
    """Rows a step. The few hundred rows that a CPU bears are worth more in many small steps; a GPU wants more."""
    import torch

    return 16 if torch.cuda.is_available() else 4


def encode(rows: Sequence[TrainingRow], tokenizer) -> list[dict]:
    """Each row as {input_ids, completion_mask}: the prompt as inference renders it, the completion, and its end token.

    The mask is 1 on the tokens that the loss is taken of. Raises StageError for a row whose output is empty: it would
    teach the student to say nothing; for one in another form than the format that the tokenizer is pinned to; and for
    a chat template that begins an answer otherwise than it asks for one.
    """
    encoded = []
    if rows:
        check_opening(tokenizer)
    opened, student_format = formats.opened(tokenizer), formats.pinned(tokenizer)
    for row in rows:
        if not row.output.strip():
            raise StageError(f"the training row of problem {row.problem_id!r} has no output: leave it out")
        prompt = encode_prompt(tokenizer, row.messages[:-1])
        if fault := formats.fault(row.output, student_format):
            raise StageError(
                f"the training row of problem {row.problem_id!r} is not of student_format={student_format}: {fault}. "
                "Give the student_format that the rows were written in"
            )
        written = tokenizer(row.output.removeprefix(opened), add_special_tokens=False)["input_ids"]
        completion = [*written, tokenizer.eos_token_id]
        encoded.append({"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)})
    return encoded


def encode_rows(rows: Sequence[TrainingRow], tokenizer, max_length: int) -> tuple[list[dict], int]:
    """(rows as `encode` has them, number left out as longer than `max_length`). No row is cut."""
    encoded = encode(rows, tokenizer)
    fits = [row for row in encoded if len(row["input_ids"]) <= max_length]
    return fits, len(encoded) - len(fits)


def validation_sample(
    rows: Sequence[TrainingRow], tokenizer, max_length: int, n: int, seed: int
) -> tuple[list[dict], int]:
    """(at most `n` of the encoded rows that fit, number of those that fit), in the rows' order.

    Of each task there are as many as is its share, drawn at random: files come a task after the other. Rows without
    tasks are drawn from all alike.
    """
    encoded, rng = encode(rows, tokenizer), random.Random(seed)
    of_task: dict[str, list[int]] = {}
    for place, (row, ids) in enumerate(zip(rows, encoded, strict=True)):
        if len(ids["input_ids"]) <= max_length:
            of_task.setdefault(row.task, []).append(place)
    along: list[tuple[float, int]] = []  # each task spread over 0 to 1
    for places in of_task.values():
        rng.shuffle(places)
        offset = rng.random()  # else rare tasks would all come late
        along += [((nth + offset) / len(places), place) for nth, place in enumerate(places)]
    return [encoded[place] for place in sorted(place for _, place in sorted(along)[:n])], len(along)


def fitting(rows: Sequence[TrainingRow], tokenizer, max_length: int) -> tuple[list[dict], int]:
    """What `encode_rows` gives. Raises StageError if there is no row, or none fits into `max_length` tokens."""
    if not rows:
        raise StageError("the training set has no row: leave its student out of `students`, or see what 03 kept of it")
    encoded, too_long = encode_rows(rows, tokenizer, max_length)
    if not encoded:
        raise StageError(f"none of {len(rows)} training rows fits into max_length={max_length} tokens: raise it")
    return encoded, too_long


def fill_budget(encoded: Sequence[dict], train_tokens: int, seed: int) -> list[dict]:
    """Rows until they make up `train_tokens` (prompts included): all in a random order, then all in another, ..."""
    chosen, used, rng = [], 0, random.Random(seed)
    while used < train_tokens:
        order = list(range(len(encoded)))
        rng.shuffle(order)
        for i in order:
            chosen.append(encoded[i])
            used += len(encoded[i]["input_ids"])
            if used >= train_tokens:
                break
    return chosen


def fill_epochs(encoded: Sequence[dict], epochs: float, seed: int) -> list[dict]:
    """`epochs` times the rows, to the nearest row and at least one: all in a random order, then all in another, ..."""
    wanted, chosen, rng = max(1, round(epochs * len(encoded))), [], random.Random(seed)
    while len(chosen) < wanted:
        order = list(range(len(encoded)))
        rng.shuffle(order)
        chosen += [encoded[i] for i in order[: wanted - len(chosen)]]
    return chosen


def fill(encoded: Sequence[dict], *, epochs: float, train_tokens: int, seed: int) -> list[dict]:
    """The rows that are trained on: for so many `epochs`, or where these are 0 for `train_tokens`."""
    return fill_epochs(encoded, epochs, seed) if epochs else fill_budget(encoded, train_tokens, seed)


def by_length(rows: Sequence[dict], seed: int, batch_size: int) -> list[dict]:
    """The same rows, batches in random order. Rows of like length are in one batch, so that little is padded."""
    rng, batches = random.Random(seed), []
    for start in range(0, len(rows), 16 * batch_size):
        block = sorted(rows[start : start + 16 * batch_size], key=lambda row: len(row["input_ids"]))
        batches += [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
    rng.shuffle(batches)
    batches.sort(key=len, reverse=True)  # an incomplete batch goes last
    return [row for batch in batches for row in batch]


@dataclass
class TrainingSet:
    """What a training goes through: rows, encoded by `encode_rows`, for some epochs or a budget of tokens."""

    encoded: list[dict]  # each row that fits, once
    ordered: list[dict]  # in the order they are trained on, repeated as the budget allows
    too_long: int  # rows left out
    batch_size: int

    tokens_a_step: int = 0  # 0: a step is `batch_size` rows

    def in_steps(self) -> list[list[dict]]:
        """The rows of each step."""
        if self.tokens_a_step:
            return by_tokens(self.ordered, self.tokens_a_step)
        return by_rows(self.ordered, self.batch_size)

    @property
    def steps(self) -> int:
        return -(-len(self.ordered) // self.batch_size)

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.ordered)

    @property
    def longest(self) -> int:
        """Tokens of the longest row that is trained on."""
        return max(len(row["input_ids"]) for row in self.ordered)


def rows_for(tokens_a_step: int, filled: Sequence[dict], processes: int = 1) -> int:
    """How many of these rows have about so many tokens: a number that processes and micro batches can share."""
    rows = tokens_a_step * len(filled) / tokens_of(filled)
    shared = math.lcm(processes, 8 if rows >= 8 else 1)
    return max(1, round(rows / shared)) * shared


def training_set(
    rows: Sequence[TrainingRow],
    tokenizer,
    *,
    max_length: int,
    train_tokens: int,
    batch_size: int,
    seed: int,
    epochs: float = 0.0,
    tokens_a_step: int = 0,
    processes: int = 1,
    padded: bool = True,
) -> TrainingSet:
    """The set that `rows` make, by `fill`. Raises StageError if none fits into `max_length`.

    With `tokens_a_step` a step is as many rows as fit into it, if rows are packed; if they are `padded`, it is the
    number of rows that have so many tokens on average. Padded rows are sorted so that those of a step are of like
    length.
    """
    encoded, too_long = fitting(rows, tokenizer, max_length)
    filled = fill(encoded, epochs=epochs, train_tokens=train_tokens, seed=seed)
    if not padded:
        return TrainingSet(encoded, filled, too_long, batch_size, tokens_a_step)
    if tokens_a_step:
        batch_size = rows_for(tokens_a_step, filled, processes)
    return TrainingSet(encoded, by_length(filled, seed, batch_size), too_long, batch_size)

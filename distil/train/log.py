"""The log of a training: what is added to each of its rows, how it is read, and its file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distil.workspace.bars import bar
from distil.workspace.environment import peak_ram_gb
from distil.workspace.files import write_csv


def throughput_callback():
    """A callback that adds two columns to the log: tokens a second since the last row, and the peak memory in GiB.

    Padding is not counted. TRL counts the tokens; Unsloth takes that away, so they are also counted as batches are
    made.
    """
    import torch
    from transformers import TrainerCallback

    class Throughput(TrainerCallback):
        def on_train_begin(self, args, state, control, train_dataloader=None, **_):
            self.at, self.tokens, self.begun, self.batches = time.perf_counter(), 0.0, state.global_step, []
            if train_dataloader is not None:
                each_batch(train_dataloader, lambda batch: self.batches.append(real_tokens(batch)))

        def on_log(self, args, state, control, **_):
            row = state.log_history[-1]
            if "loss" not in row:
                return
            # batches are made ahead of the steps that take them
            made = self.batches[: (state.global_step - self.begun) * args.gradient_accumulation_steps]
            now, tokens = time.perf_counter(), float(row.get("num_tokens", sum(made)))
            gpu = torch.cuda.is_available()
            if tokens:
                row["tokens_per_s"] = round((tokens - self.tokens) / (now - self.at), 1)
            row["memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30 if gpu else peak_ram_gb(), 2)
            self.at, self.tokens = now, tokens

    return Throughput()


def steps_callback(name: str):
    """A callback that shows the steps of a trainer which draws no bar of its own; `name` says what it trains."""
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            hidden = not state.is_world_process_zero
            self.bar = bar(total=state.max_steps, desc=name, unit="step", hidden=hidden, start=state.global_step)

        def on_step_end(self, args, state, control, **_):
            self.bar.update()

        def on_train_end(self, args, state, control, **_):
            self.bar.close()

    return Steps()


def each_batch(dataloader, see: Callable[[object], None]) -> None:
    """Call `see` with every batch that a trainer's `dataloader` makes from now on, as it is made."""
    loader = getattr(dataloader, "base_dataloader", dataloader)
    collate = loader.collate_fn

    def collated(rows):
        batch = collate(rows)
        see(batch)
        return batch

    loader.collate_fn = collated


def real_tokens(batch: object) -> int:
    """Tokens of a batch, padding left out; 0 if it has no `input_ids`."""
    if not isinstance(batch, Mapping) or "input_ids" not in batch:
        return 0
    mask = batch.get("attention_mask")  # none: the rows were joined, and nothing is padded
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


def last_value(log: Sequence[dict], column: str):
    """The last value in a column of the log; None if there is none."""
    return next((row[column] for row in reversed(log) if column in row), None)


def write_log(log: Sequence[dict], path: Path) -> None:
    """The trainer's log as CSV, a column a quantity."""
    columns = sorted({name for row in log for name in row}, key=lambda name: (name != "step", name))
    write_csv(path, log, columns)

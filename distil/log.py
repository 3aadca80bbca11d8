"""The log of a training: what is added to each of its rows, and its file."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distil.stage import peak_ram_gb


def watch():
    """A callback that adds to each row of the log the real tokens a second since the last row, and the peak memory.

    TRL counts the tokens, padding left out; where Unsloth has taken that away, they are counted as batches are made.
    """
    import torch
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, train_dataloader=None, **_):
            self.at, self.tokens, self.begun, self.batches = time.perf_counter(), 0.0, state.global_step, []
            loader = getattr(train_dataloader, "base_dataloader", train_dataloader)
            if loader is not None:
                loader.collate_fn = counted(loader.collate_fn, self.batches)

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

    return Watch()


def counted(collate: Callable, batches: list[int]) -> Callable:
    """`collate`, which appends to `batches` how many real tokens each batch has; 0 if it has no `input_ids`."""

    def collated(rows):
        batch = collate(rows)
        ids, mask = (batch.get(key) if isinstance(batch, Mapping) else None for key in ("input_ids", "attention_mask"))
        # no mask: the rows were joined, and nothing is padded
        batches.append(0 if ids is None else ids.numel() if mask is None else int(mask.sum()))
        return batch

    return collated


def write_log(log: Sequence[dict], path: Path) -> None:
    """The trainer's log as CSV, a column a quantity."""
    columns = sorted({name for row in log for name in row}, key=lambda name: (name != "step", name))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(log)

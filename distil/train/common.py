"""What every trainer shares: a cache of results, the trainer's arguments, and the training itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from distil.train.checkpoints import discard_those_of_other_requests, last_checkpoint, sealing_callback
from distil.train.errors import resource_errors_explained
from distil.train.log import steps_callback, throughput_callback, write_log
from distil.train.model import save_student
from distil.workspace.environment import choose_dtype, quiet
from distil.workspace.files import write_text
from distil.workspace.fingerprint import code
from distil.workspace.rows import Row

R = TypeVar("R", bound=Row)


# code that makes students
TRAINING = ("train/", "models/student.py", "models/templates.py", "models/formats.py", "models/weights.py")


@dataclass(frozen=True)
class ResultCache(Generic[R]):
    """The result of a training, in a file {request, result}: what was asked for already is not computed again."""

    file: Path
    asked: dict  # everything that the result depends on but the code; JSON
    result_type: type[R]

    @property
    def request(self) -> dict:
        """What was asked, and the code that answers."""
        return self.asked | {"code": code(*TRAINING)}

    def read(self) -> R | None:
        """The result that the file holds, None if it holds none or that of another request."""
        if not self.file.exists():
            return None
        kept = json.loads(self.file.read_text(encoding="utf-8"))
        return self.result_type.from_dict(kept["result"]) if kept["request"] == self.request else None

    def write(self, result: R) -> R:
        """Keep the result, and return it. Of several processes, rank 0 writes."""
        if is_main_process():
            write_text(self.file, json.dumps({"request": self.request, "result": result.to_dict()}, indent=1))
        return result


def is_main_process() -> bool:
    """Is this rank 0, or the only process?"""
    return int(os.environ.get("RANK", 0)) == 0


def trainer_arguments(
    out: Path,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    batch_size: int,
    micro_batch_size: int,
    gradient_checkpointing: bool = False,
    weight_decay: float = 0.0,
    warmup_ratio: float = 0.05,
) -> dict:
    """What every trainer here is told alike: batches, precision, schedule, checkpoints, no logger that asks questions.

    `batch_size` is the rows of a step in one process. They go through the model `micro_batch_size` at a time, which
    divides it, and their gradients are added up. The learning rate rises for the share `warmup_ratio` of the steps,
    rounded down; unless it is 0, for one step at least.
    """
    import torch

    dtype, _ = choose_dtype()
    return {
        "output_dir": str(out / "checkpoints"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": batch_size // micro_batch_size,  # said outright: Unsloth would make 1 a 2
        "gradient_checkpointing": gradient_checkpointing,
        "learning_rate": learning_rate,
        "seed": seed,
        "data_seed": seed,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, int(warmup_ratio * steps)) if warmup_ratio else 0,
        "optim": "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",  # not Unsloth's 8-bit one
        "weight_decay": weight_decay,
        "max_grad_norm": 1.0,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, steps // 40),
        "save_strategy": "steps",
        "save_steps": max(1, -(-steps // 4)),
        "report_to": "none",
        "disable_tqdm": quiet(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def evaluations(examples: int, looked_at: int) -> int:
    """How often a training on `examples` is evaluated on `looked_at` rows: 4 times, or 2 where 4 would take too long.

    An evaluation, which has no backward pass, computes a third of what training on as many rows does. All together may
    take a tenth of the training.
    """
    return 4 if 4 * looked_at / 3 <= 0.1 * examples else 2


def eval_arguments(every: int, micro_batch_size: int) -> dict:
    """What a trainer is told that looks at validation rows, `every` so many steps."""
    return {"eval_strategy": "steps", "eval_steps": every, "per_device_eval_batch_size": micro_batch_size}


def dataset(rows: Sequence[dict]):
    """The rows as the trainers take them. No bar is drawn here or when a trainer maps over them."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.Dataset.from_list(list(rows))


def on_one_gpu(config):
    """The trainer's arguments, for a process that trains on one GPU though it sees several.

    The trainer would split every batch over all of them, in threads (DataParallel), and multiply the rows of a step.
    To train on several GPUs, start a process for each with `accelerate launch`.
    """
    config._n_gpu = min(config.n_gpu, 1)  # as transformers does itself where a model lies on several GPUs
    return config


def train(trainer, out: Path, cache: ResultCache, base: str | None) -> list[dict]:
    """Train, from the last whole checkpoint of the same request if there is one; returns the trainer's log.

    The student, its tokenizer and the log (`log.csv`) go to `out`; an adapter names its base by `base`. Checkpoints of
    other requests are removed first, all checkpoints at the end. The cached result marks a finished student: it is
    removed before the student in `out` is written over. Raises StageError if memory or disk runs out.
    """
    from transformers import PrinterCallback

    if quiet():
        trainer.remove_callback(PrinterCallback)  # it would print a line a step; log.csv has them
        trainer.add_callback(steps_callback(out.name))
    trainer.add_callback(throughput_callback())
    trainer.callback_handler.callbacks.insert(0, sealing_callback(trainer.accelerator))  # before any that may fail
    checkpoints = Path(trainer.args.output_dir)
    if trainer.is_world_process_zero():
        discard_those_of_other_requests(checkpoints, cache.request)
        last_checkpoint(checkpoints)  # removes what is damaged, before the others look
    trainer.accelerator.wait_for_everyone()
    with resource_errors_explained(checkpoints):
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        log = trainer.state.log_history
        cache.file.unlink(missing_ok=True)
        save_student(trainer, out, base)
        if trainer.is_world_process_zero():
            trainer.processing_class.save_pretrained(out)
            write_log(log, out / "log.csv")
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return log

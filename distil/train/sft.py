"""Stage 04: supervised fine-tuning on chains, with Unsloth on a GPU and TRL elsewhere, from one configuration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.models.formats import FORMATS
from distil.models.student import load_tokenizer
from distil.models.weights import resolve
from distil.train import own_rows
from distil.train.common import (
    ResultCache,
    dataset,
    eval_arguments,
    is_main_process,
    on_one_gpu,
    train,
    trainer_arguments,
)
from distil.train.examples import encode_rows, training_set
from distil.train.log import last_value
from distil.train.memory import plan
from distil.train.model import LORA, METHODS, backend, load_for_training, prepare_backend, uses_fsdp, world_size
from distil.train.recipe import Recipe
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl
from distil.workspace.rows import Row, TrainingRow
from distil.workspace.stage import needed, run_folder

N_VALID = 32  # validation rows looked at, at most


@dataclass(kw_only=True)
class SFTResult(Row):
    """What a fine-tuning came to, as `sft.json` keeps it."""

    examples: int  # rows trained on, repetitions counted
    distinct: int
    epochs: float
    tokens: int  # prompts included
    completion_tokens: int  # those that the loss is taken of
    too_long: int  # rows left out
    seconds: float
    tokens_per_s: float
    loss: float  # the last that was logged, nats a token
    valid_loss: float | None  # None without validation rows
    backend: str  # unsloth or trl
    processes: int


def sft(
    rows: Sequence[TrainingRow],
    valid: Sequence[TrainingRow],
    student: str,
    out: Path,
    *,
    callbacks: Sequence = (),
    **settings: Any,
) -> SFTResult:
    """Fine-tune `student` on `rows`; weights or adapter, tokenizer and log.csv go to `out`.

    `settings` are the fields of `Recipe`; `callbacks` go to the trainer. A finished result of the same request is not
    computed again. Under `accelerate launch`, all processes call this alike and share each step's rows, so that the
    steps are those of one process. Raises StageError for settings that cannot be meant, if no row fits, or if the rows
    of a step cannot be shared evenly.
    """
    recipe = Recipe(**settings)
    request = {"student": student, **asdict(recipe), "rows": digest(*rows)}
    cache = ResultCache(out / "sft.json", request, SFTResult)
    if (known := cache.read()) is not None:
        return known
    prepare_backend(compiler=True)
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(resolve(student), recipe.student_format)
    batch_size, n_processes = recipe.rows_a_step, world_size()
    if batch_size % n_processes:
        raise StageError(
            f"{n_processes} processes cannot share {batch_size} rows a step evenly: start a divisor of {batch_size}"
        )
    chosen = training_set(
        rows,
        tokenizer,
        max_length=recipe.max_length,
        epochs=recipe.epochs,
        train_tokens=recipe.train_tokens,
        batch_size=batch_size,
        seed=recipe.seed,
    )
    held_out = encode_rows(valid, tokenizer, recipe.max_length)[0][:N_VALID]
    planned = plan(
        student,
        recipe.method,
        batch_size=batch_size // n_processes,
        longest=chosen.longest,
        lora_rank=recipe.lora_rank,
    )
    arguments = trainer_arguments(
        out,
        steps=chosen.steps,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        batch_size=batch_size // n_processes,
        micro_batch_size=planned.micro_batch_size,
        gradient_checkpointing=planned.gradient_checkpointing,
        weight_decay=recipe.weight_decay,
        warmup_ratio=recipe.warmup_ratio,
    )
    if uses_fsdp():
        # TRL's chunked loss runs no forward of the output layer, whose weights FSDP gathers with the embeddings that
        # they are tied to: after an evaluation and a checkpoint it leaves both sharded, and the next step dies
        arguments |= {"loss_type": "nll"}
    if held_out:
        arguments |= eval_arguments(arguments["save_steps"], planned.micro_batch_size)
    config = SFTConfig(
        **arguments,
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="sequential",
    )
    trainer = SFTTrainer(
        model=load_for_training(
            student,
            recipe.method,
            max_length=recipe.max_length,
            seed=recipe.seed,
            gradient_checkpointing=planned.gradient_checkpointing,
            **recipe.adapter,
        ),
        args=on_one_gpu(config),
        processing_class=tokenizer,
        train_dataset=dataset(chosen.ordered),
        eval_dataset=dataset(held_out) if held_out else None,
        callbacks=list(callbacks),
    )
    log = train(trainer, out, cache, base=student)
    seconds = last_value(log, "train_runtime")
    return cache.write(
        SFTResult(
            examples=len(chosen.ordered),
            distinct=len(chosen.encoded),
            epochs=round(len(chosen.ordered) / len(chosen.encoded), 2),
            tokens=chosen.tokens,
            completion_tokens=sum(sum(row["completion_mask"]) for row in chosen.ordered),
            too_long=chosen.too_long,
            seconds=round(seconds, 1),
            tokens_per_s=round(chosen.tokens / seconds, 1),
            loss=last_value(log, "loss"),
            valid_loss=last_value(log, "eval_loss"),
            backend=backend(),
            processes=n_processes,
        )
    )


def main(argv: Sequence[str] | None = None) -> None:
    """What notebook 04 does for one student, on several GPUs; the notebook then finds it done."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m distil.train.sft", description=main.__doc__)
    parser.add_argument("run", help="01 to 03 are done in it, unless --train names a file")
    parser.add_argument("set", help="a training set of 03 (fast, slow, unaligned, adaptive), or the student of --train")
    parser.add_argument("--train", default="", help="a file of your own, as 04's parameter train")
    parser.add_argument("--student", required=True, help="a Hub id or a local folder")
    parser.add_argument("--epochs", type=float, default=0.0)
    parser.add_argument("--train-tokens", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--warmup-ratio", type=float, default=0.05)
    parser.add_argument("--lora-rank", type=int, default=LORA["r"])
    parser.add_argument("--lora-alpha", type=int, default=LORA["lora_alpha"])
    parser.add_argument("--student-format", choices=FORMATS, default="plain")
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args(argv))
    run, name, file = asked.pop("run"), asked.pop("set"), asked.pop("train")
    try:
        if file:
            rows, valid = own_rows.read_split(file, asked["student_format"], asked["seed"])
        else:
            rows, valid = (
                read_jsonl(needed(run, f"03_judge/{part}/{name}.jsonl"), TrainingRow) for part in ("train", "valid")
            )
        result = sft(rows, valid, asked.pop("student"), run_folder(run) / "04_finetune" / name, **asked)
    except StageError as error:
        raise SystemExit(f"distil.train.sft: {error}") from None
    if is_main_process():
        print(json.dumps(result.to_dict()))


if __name__ == "__main__":
    main()

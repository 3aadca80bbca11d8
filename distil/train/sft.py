"""Stage 04: supervised fine-tuning on chains: packed, through Unsloth or through TRL, from one configuration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.models.formats import FORMATS
from distil.models.student import identity, load_tokenizer
from distil.models.weights import resolve
from distil.train import own_rows
from distil.train.common import ResultCache, is_main_process, train
from distil.train.examples import training_set, validation_sample
from distil.train.log import last_value
from distil.train.memory import limit_memory
from distil.train.model import LORA, METHODS, prepare_backend, trained_weights, world_size
from distil.train.recipe import Recipe
from distil.train.sft_trainers import packed_trainer, trl_trainer
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl
from distil.workspace.rows import Row, TrainingRow
from distil.workspace.stage import needed, run_folder
from distil.workspace.students import check, recipe_of, seed_of

N_VALID = 32  # validation rows looked at, at most: a sample of all


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
    backend: str  # packed, unsloth or trl
    processes: int
    valid_rows: int = 0  # validation rows looked at; 0 also where an earlier version took the first and did not say
    valid_of: int = 0  # of so many that fit
    trained: int = 0  # weights that were trained; 0 also where an earlier version did not count them

    @property
    def validated(self) -> str:
        """How many of the validation rows `valid_loss` is of."""
        return f"{self.valid_rows} of {self.valid_of}" if self.valid_rows else "-"


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
    cache = result_cache(rows, valid, student, out, recipe)
    if (known := cache.read()) is not None:
        return known
    chosen_backend = prepare_backend(compiler=True, student=student, method=recipe.method)
    tokenizer = load_tokenizer(resolve(student), recipe.student_format)
    n_processes = world_size()
    if recipe.rows_a_step % n_processes and not recipe.tokens_a_step:
        raise StageError(
            f"{n_processes} processes cannot share {recipe.rows_a_step} rows a step evenly: start a divisor of "
            f"{recipe.rows_a_step}"
        )
    chosen = training_set(
        rows,
        tokenizer,
        max_length=recipe.max_length,
        epochs=recipe.epochs,
        train_tokens=recipe.train_tokens,
        batch_size=recipe.rows_a_step,
        seed=recipe.seed,
        tokens_a_step=recipe.tokens_a_step,
        processes=n_processes,
        padded=chosen_backend != "packed",
    )
    held_out, valid_of = validation_sample(valid, tokenizer, recipe.max_length, N_VALID, recipe.seed)
    build = packed_trainer if chosen_backend == "packed" else trl_trainer
    trainer = build(student, recipe, chosen, held_out, tokenizer, out, callbacks)
    trained = trained_weights(trainer.model)
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
            backend=chosen_backend,
            processes=n_processes,
            valid_rows=len(held_out),
            valid_of=valid_of,
            trained=trained,
        )
    )


def result_cache(
    rows: Sequence[TrainingRow], valid: Sequence[TrainingRow], student: str, out: Path, recipe: Recipe
) -> ResultCache[SFTResult]:
    """Where the result of a fine-tuning lies in `out`, and what was asked for it."""
    length = {"train_tokens": 0} if recipe.epochs else {}  # which is then not looked at
    request = {"student": identity(student), **asdict(recipe), **length, "rows": digest(*rows)}
    request["valid"] = digest(*valid)  # their loss is in the log
    return ResultCache(out / "sft.json", request, SFTResult)


def main(argv: Sequence[str] | None = None) -> None:
    """What notebook 04 does for one student, on several GPUs or beside others; the notebook then finds it done."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m distil.train.sft", description=main.__doc__)
    parser.add_argument("run", help="01 to 03 are done in it, unless --train names a file")
    parser.add_argument(
        "set", help="a training set of 03 (fast, slow, shortest, ...), also SET@SEED; or the student of --train"
    )
    parser.add_argument("--train", default="", help="a file of your own, as 04's parameter train")
    parser.add_argument("--student", required=True, help="a Hub id or a local folder")
    parser.add_argument("--epochs", type=float, default=0.0)
    parser.add_argument("--train-tokens", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--tokens-a-step", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--warmup-ratio", type=float, default=0.05)
    parser.add_argument("--lora-rank", type=int, default=LORA["r"])
    parser.add_argument("--lora-alpha", type=int, default=LORA["lora_alpha"])
    parser.add_argument("--student-format", choices=FORMATS, default="plain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-share", type=float, default=1.0, help="of the whole GPU, where others train beside")
    asked = vars(parser.parse_args(argv))
    run, name, file, share = (asked.pop(what) for what in ("run", "set", "train", "memory_share"))
    try:
        limit_memory(share)
        if file:
            name = own_rows.student_name(name, file)
            rows, valid = own_rows.read_split(file, asked["student_format"], asked["seed"])
        else:
            check([name], asked["seed"])
            asked["seed"] = seed_of(name, asked["seed"])
            files = (needed(run, f"03_judge/{part}/{recipe_of(name)}.jsonl") for part in ("train", "valid"))
            rows, valid = (read_jsonl(file, TrainingRow) for file in files)
        result = sft(rows, valid, asked.pop("student"), run_folder(run) / "04_finetune" / name, **asked)
    except StageError as error:
        raise SystemExit(f"distil.train.sft: {error}") from None
    if is_main_process():
        print(json.dumps(result.to_dict()))


if __name__ == "__main__":
    main()

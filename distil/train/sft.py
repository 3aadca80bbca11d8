"""Stage 04: supervised fine-tuning on chains, with Unsloth on a GPU and TRL elsewhere, from one configuration."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from distil.models.student import encode_prompt, load_tokenizer
from distil.models.weights import resolve
from distil.train.common import (
    METHODS,
    backend,
    load_for_training,
    on_one_gpu,
    prepare_backend,
    processes,
    sharded,
    train,
    trainer_arguments,
)
from distil.train.memory import plan
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl, write_text
from distil.workspace.stage import needed, run_folder


def batch_size() -> int:
    """Rows a step. The few hundred rows that a CPU bears are worth more in many small steps; a GPU wants more."""
    import torch

    return 16 if torch.cuda.is_available() else 4


def encode_rows(rows: Sequence[dict], tokenizer, max_length: int) -> tuple[list[dict], int]:
    """(encoded rows, number left out as longer than `max_length`).

    An encoded row is {input_ids, completion_mask}: the prompt exactly as inference renders it, then the completion
    and the end token; the mask is 1 on what the loss is taken of. Nothing is ever cut. Raises StageError for a row
    whose output is empty: it would teach to say nothing.
    """
    encoded, too_long = [], 0
    for row in rows:
        if not row["output"].strip():
            raise StageError(f"the training row of problem {row['problem_id']!r} has no output: leave it out")
        prompt = encode_prompt(tokenizer, row["messages"][:-1])
        completion = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        if len(prompt) + len(completion) > max_length:
            too_long += 1
            continue
        encoded.append({"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)})
    return encoded, too_long


def fill_budget(encoded: Sequence[dict], train_tokens: int, seed: int) -> list[dict]:
    """Rows in the order they are trained on, repeated in fresh orders until `train_tokens` (prompts included)."""
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


def by_length(rows: Sequence[dict], seed: int, batch: int) -> list[dict]:
    """The same rows, with rows of like length in one batch, so that little is padded; batches in random order."""
    rng, batches = random.Random(seed), []
    for start in range(0, len(rows), 16 * batch):
        block = sorted(rows[start : start + 16 * batch], key=lambda row: len(row["input_ids"]))
        batches += [block[i : i + batch] for i in range(0, len(block), batch)]
    rng.shuffle(batches)
    batches.sort(key=len, reverse=True)  # an incomplete batch goes last
    return [row for batch in batches for row in batch]


def sft(
    rows: Sequence[dict],
    valid: Sequence[dict],
    student: str,
    out: Path,
    *,
    train_tokens: int,
    learning_rate: float,
    max_length: int,
    method: str,
    seed: int,
    rows_a_step: int | None = None,
    callbacks: Sequence = (),
) -> dict:
    """Fine-tune `student` on `rows` for `train_tokens` tokens; weights or adapter, tokenizer and log.csv go to `out`.

    A step takes `rows_a_step` rows, by default those of `batch_size`; `callbacks` go to the trainer. Returns
    {examples, distinct, epochs, tokens, completion_tokens, too_long, seconds, tokens_per_s, loss, valid_loss, backend,
    processes}. A finished result of the same request is not computed again. Started by `accelerate launch`, all
    processes call it alike and share each step's rows, so that the steps are those of one process. Raises StageError
    if no row fits, or if the rows of a step cannot be shared evenly.
    """
    request = {
        "student": student,
        "train_tokens": train_tokens,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "method": method,
        "seed": seed,
        "rows": digest(*rows),
    } | ({"rows_a_step": rows_a_step} if rows_a_step else {})
    done = out / "sft.json"
    if done.exists() and json.loads(done.read_text())["request"] == request:
        return json.loads(done.read_text())["result"]
    prepare_backend(compiler=True)
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(resolve(student))
    encoded, too_long = encode_rows(rows, tokenizer, max_length)
    if not encoded:
        raise StageError(f"none of {len(rows)} training rows fits into max_length={max_length} tokens: raise it")
    batch, sharers = rows_a_step or batch_size(), processes()
    if batch % sharers:
        raise StageError(f"{sharers} processes cannot share {batch} rows a step evenly: start a divisor of {batch}")
    ordered = by_length(fill_budget(encoded, train_tokens, seed), seed, batch)
    held_out = encode_rows(valid, tokenizer, max_length)[0][:32]
    longest = max(len(row["input_ids"]) for row in ordered)
    planned = plan(student, method, batch // sharers, longest)
    steps = -(-len(ordered) // batch)
    arguments = trainer_arguments(out, steps, learning_rate, seed) | {"gradient_checkpointing": planned.checkpointing}
    if sharded():
        # TRL's chunked loss runs no forward of the output layer, whose weights FSDP gathers with the embeddings that
        # they are tied to: after an evaluation and a checkpoint it leaves both sharded, and the next step dies
        arguments |= {"loss_type": "nll"}
    if held_out:
        arguments |= {"eval_strategy": "steps", "eval_steps": arguments["save_steps"]}
    config = SFTConfig(
        **arguments,
        num_train_epochs=1,
        per_device_train_batch_size=planned.at_once,
        gradient_accumulation_steps=batch // sharers // planned.at_once,  # said outright: Unsloth would make 1 a 2
        max_length=max_length,
        per_device_eval_batch_size=planned.at_once,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="sequential",
    )
    trainer = SFTTrainer(
        model=load_for_training(student, method, max_length, seed, planned.checkpointing),
        args=on_one_gpu(config),
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(ordered),
        eval_dataset=datasets.Dataset.from_list(held_out) if held_out else None,
        callbacks=list(callbacks),
    )
    log = train(trainer, out, request, base=student, done=done)
    tokens = sum(len(row["input_ids"]) for row in ordered)
    seconds = next(row["train_runtime"] for row in log if "train_runtime" in row)
    losses = [row["loss"] for row in log if "loss" in row]
    result = {
        "examples": len(ordered),
        "distinct": len(encoded),
        "epochs": round(len(ordered) / len(encoded), 2),
        "tokens": tokens,
        "completion_tokens": sum(sum(row["completion_mask"]) for row in ordered),
        "too_long": too_long,
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds, 1),
        "loss": losses[-1],
        "valid_loss": next((r["eval_loss"] for r in reversed(log) if "eval_loss" in r), None),
        "backend": backend(),
        "processes": sharers,
    }
    if trainer.is_world_process_zero():
        write_text(done, json.dumps({"request": request, "result": result}, indent=1))
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """What notebook 04 does for one student, on several GPUs; the notebook then finds it done."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m distil.train.sft", description=main.__doc__)
    parser.add_argument("run", help="01 to 03 are done in it")
    parser.add_argument("set", help="a training set of 03: fast, slow, unaligned or adaptive")
    parser.add_argument("--student", required=True, help="a Hub id or a local folder")
    parser.add_argument("--train-tokens", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args(argv))
    run, name = asked.pop("run"), asked.pop("set")
    try:
        rows, valid = (read_jsonl(needed(run, f"03_judge/{part}/{name}.jsonl")) for part in ("train", "valid"))
        result = sft(rows, valid, asked.pop("student"), run_folder(run) / "04_finetune" / name, **asked)
    except StageError as error:
        raise SystemExit(f"distil.train.sft: {error}") from None
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

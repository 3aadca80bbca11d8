"""The trainers that `sft` chooses between, one for padded and one for packed rows, of one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distil.train.common import dataset, eval_arguments, evaluations, on_one_gpu, trainer_arguments
from distil.train.examples import TrainingSet, rows_for
from distil.train.memory import plan, plan_packed, this_machine
from distil.train.model import backend, load_for_training, uses_fsdp, world_size
from distil.train.packing import by_tokens, divided, learned_of, shape_of, tokens_of
from distil.train.recipe import Recipe
from distil.workspace.environment import give_memory_back


def expected(
    student: str, recipe: Recipe, filled: Sequence[dict], gib: float | None = None
) -> tuple[str, dict[str, float]]:
    """(how a step goes through this machine, GiB by part) of a training on encoded rows, as its trainer plans it.

    It may take `gib` of a GPU, by default what is free.
    """
    give_memory_back()
    machine = None if gib is None else replace(this_machine(student, recipe.method), gib=gib)
    how = {"lora_rank": recipe.lora_rank, "machine": machine}
    longest = max(len(row["input_ids"]) for row in filled)
    if backend(student, recipe.method) == "packed":
        steps = TrainingSet(list(filled), list(filled), 0, recipe.rows_a_step, recipe.tokens_a_step).in_steps()
        planned = plan_packed(student, recipe.method, steps, longest=longest, **how)
        tokens = max(tokens_of(rows) for rows in steps)
        return f"steps of up to {tokens:,} tokens, {planned.parts} micro batches each", planned.memory
    rows_a_step = rows_for(recipe.tokens_a_step, filled) if recipe.tokens_a_step else recipe.rows_a_step
    padded = plan(student, recipe.method, batch_size=rows_a_step, longest=longest, **how)
    return f"batches of {rows_a_step} rows, micro batches of {padded.micro_batch_size}", padded.parts


def trl_trainer(
    student: str,
    recipe: Recipe,
    chosen: TrainingSet,
    held_out: list[dict],
    tokenizer,
    out: Path,
    callbacks: Sequence,
):
    """TRL's SFTTrainer on rows padded to the longest of their batch, patched by Unsloth where that is the backend."""
    from trl import SFTConfig, SFTTrainer

    give_memory_back()  # that of the student before
    each = chosen.batch_size // world_size()
    planned = plan(student, recipe.method, batch_size=each, longest=chosen.longest, lora_rank=recipe.lora_rank)
    arguments = trainer_arguments(
        out,
        steps=chosen.steps,
        batch_size=each,
        micro_batch_size=planned.micro_batch_size,
        gradient_checkpointing=planned.gradient_checkpointing,
        **recipe.schedule,
    )
    if uses_fsdp():
        # TRL's chunked loss runs no forward of the output layer, whose weights FSDP gathers with the embeddings that
        # they are tied to: after an evaluation and a checkpoint it leaves both sharded, and the next step dies
        arguments |= {"loss_type": "nll"}
    if held_out:
        every = -(-chosen.steps // evaluations(len(chosen.ordered), len(held_out)))
        arguments |= eval_arguments(every, planned.micro_batch_size)
    config = SFTConfig(
        **arguments,
        max_length=recipe.max_length,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="sequential",
    )
    return SFTTrainer(
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


def packed_trainer(
    student: str,
    recipe: Recipe,
    chosen: TrainingSet,
    held_out: list[dict],
    tokenizer,
    out: Path,
    callbacks: Sequence,
):
    """The same training on packed rows (`distil.train.packed_trainer`), with the same losses for the same steps."""
    from transformers import TrainingArguments

    from distil.train.packed_trainer import make_trainer, steps_as_batches

    give_memory_back()  # that of the student before
    steps = chosen.in_steps()
    longest = max(len(row["input_ids"]) for row in [*chosen.ordered, *held_out])
    planned = plan_packed(student, recipe.method, steps, longest=longest, lora_rank=recipe.lora_rank)
    batches = [part for rows in steps for part in divided(rows, planned.parts)]
    looked_at = by_tokens(held_out, shape_of(batches, longest).tokens)
    shape = shape_of([*batches, *looked_at], longest)
    arguments = trainer_arguments(
        out,
        steps=len(steps),
        batch_size=planned.parts,
        micro_batch_size=1,
        gradient_checkpointing=planned.gradient_checkpointing,
        **recipe.schedule,
    )
    if held_out:
        arguments |= eval_arguments(-(-len(steps) // evaluations(len(chosen.ordered), len(held_out))), 1)
    model = load_for_training(student, recipe.method, max_length=recipe.max_length, seed=recipe.seed, **recipe.adapter)
    return make_trainer(
        model,
        on_one_gpu(TrainingArguments(**arguments, train_sampling_strategy="sequential", remove_unused_columns=False)),
        shape=shape,
        train_dataset=steps_as_batches(batches, shape, tokenizer.pad_token_id),
        eval_dataset=steps_as_batches(looked_at, shape, tokenizer.pad_token_id) if held_out else None,
        learned_a_look=learned_of(held_out) / max(1, len(looked_at)),
        processing_class=tokenizer,
        callbacks=callbacks,
    )

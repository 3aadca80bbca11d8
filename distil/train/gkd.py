"""Stage 04, its second half: white-box distillation, on a local teacher's whole distribution over the next token."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from distil.models.student import base_of, load, load_tokenizer
from distil.models.weights import resolve
from distil.train import common, memory, sft
from distil.train.common import load_student_for_training
from distil.workspace.errors import StageError
from distil.workspace.files import digest, sha256, write_text

# Bytes a token's score of a word, counted in TRL's trainer: both models' logits (4 and 2), the same divided by the
# temperature, their logarithms (4 and 4), the loss and what it is made of (16). Not yet held against a measured peak.
SCORES = 36


def gkd() -> tuple[type, type]:
    """TRL's (GKDConfig, GKDTrainer), without its notice that both may change: the version here is pinned."""
    unasked = "TRL_EXPERIMENTAL_SILENCE" not in os.environ
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.gkd import GKDConfig, GKDTrainer
    finally:
        if unasked:
            del os.environ["TRL_EXPERIMENTAL_SILENCE"]
    return GKDConfig, GKDTrainer


def output_size(folder: str) -> int:
    """How many scores a model gives a position: its tokens, and what was added to round their number up."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(resolve(base_of(folder) or folder)).get_text_config().vocab_size


def check_vocabularies(student: str, teacher: str) -> None:
    """Raise StageError unless a score of the teacher's is about the same token as the student's, for every token."""
    ours, theirs = load_tokenizer(student).get_vocab(), load_tokenizer(resolve(teacher)).get_vocab()
    kinds = {
        "only the student's": ours.keys() - theirs.keys(),
        "only the teacher's": theirs.keys() - ours.keys(),
        "of another id": {token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token]},
    }
    unlike = [f"{len(tokens)} {kind}, as {min(tokens)!r}" for kind, tokens in kinds.items() if tokens]
    if unlike:
        raise StageError(
            f"the vocabulary of the teacher {teacher} is not the student's (tokens: {'; '.join(unlike)}): take a "
            "teacher of the student's own family, or train on what the teacher writes, with `sft`"
        )
    if output_size(teacher) < output_size(student):
        raise StageError(
            f"the teacher {teacher} gives {output_size(teacher)} scores a position, the student "
            f"{output_size(student)}, though their tokens are the same: take a teacher with at least as many"
        )


def planned_for(student_folder: str, teacher_folder: str, batch: int, longest: int) -> memory.Plan:
    """How a step's rows, of `longest` tokens at most, go through a GPU that the teacher's weights lie on as well."""
    base, _ = memory.trained_how(teacher_folder)  # an adapter may teach, too
    weights = memory.estimate(base, "lora", 1, 1, memory.here())["weights"]
    return memory.plan_further(student_folder, batch, longest, taken=weights, scores=SCORES)


def distil_from_logits(
    rows: Sequence[dict],
    student_folder: str,
    teacher: str,
    out: Path,
    *,
    train_tokens: int,
    learning_rate: float,
    max_length: int,
    seed: int,
    on_policy: float = 0.0,
    beta: float = 0.0,
) -> dict:
    """Teach the student in `student_folder` the distribution of `teacher`, a folder or a model id; saves it to `out`.

    The loss is that of GKD (Agarwal et al. 2024, arXiv 2306.13649, equation 1), in nats, the mean over the tokens of
    a batch's completions (of each part's, where memory asks for a step in parts), of teacher P and student Q: `beta` 0
    is KL(P||Q), 1 is KL(Q||P), and between them it is beta KL(P||M) + (1 - beta) KL(Q||M), M = beta P + (1 - beta) Q,
    which is small near both ends. Rows, prompts and budget are those of `sft`; the prompt is rendered for the student,
    whatever template the teacher has. `on_policy` is the share of steps in which the completions are not the rows' but
    the student's own, sampled at temperature 1 and no longer than the longest of the rows'.

    Returns {examples, tokens, too_long, seconds, tokens_per_s, loss}; tokens are those of the rows, whoever wrote the
    completion in the end. A finished result of the same request is not computed again. Raises StageError for shares
    outside 0 to 1, a teacher that is the student or has another vocabulary, no row that fits, or after Unsloth.
    """
    for name, value in (("on_policy", on_policy), ("beta", beta)):
        if not 0 <= value <= 1:
            raise StageError(f"{name} is {value}: use a number from 0 to 1")
    if not Path(student_folder).is_dir():
        raise StageError(f"{student_folder} is no folder: train a student with `sft` first")
    folder = resolve(teacher)
    for name, other in (("the teacher", folder), ("out", out)):
        if Path(other).resolve() == Path(student_folder).resolve():
            raise StageError(f"{name} is the student's own folder {student_folder}: name another one")
    request = {
        "student": sha256(Path(student_folder)),
        "teacher": sha256(Path(teacher)) if Path(teacher).is_dir() else teacher,
        "train_tokens": train_tokens,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "seed": seed,
        "on_policy": on_policy,
        "beta": beta,
        "rows": digest(*rows),
    }
    done = out / "whitebox.json"
    if done.exists() and json.loads(done.read_text())["request"] == request:
        return json.loads(done.read_text())["result"]
    if "unsloth" in sys.modules:  # its models leave padding unmasked in training; GKD pads before the prompt
        raise StageError("Unsloth is at work in this process and would spoil the loss: restart the kernel, call again")
    check_vocabularies(student_folder, teacher)
    tokenizer = load_tokenizer(student_folder)
    encoded, too_long = sft.encode_rows(rows, tokenizer, max_length)
    if not encoded:
        raise StageError(f"none of {len(rows)} training rows fits into max_length={max_length} tokens: raise it")
    import datasets

    datasets.disable_progress_bars()
    batch = sft.batch_size()
    ordered = sft.by_length(sft.fill_budget(encoded, train_tokens, seed), seed, batch)
    planned = planned_for(student_folder, folder, batch, max(len(row["input_ids"]) for row in ordered))
    config_class, trainer_class = gkd()
    config = config_class(
        **common.trainer_arguments(out, -(-len(ordered) // batch), learning_rate, seed)
        | {"gradient_checkpointing": planned.checkpointing},
        num_train_epochs=1,
        per_device_train_batch_size=planned.at_once,
        gradient_accumulation_steps=batch // planned.at_once,
        max_length=max_length,
        train_sampling_strategy="sequential",
        lmbda=on_policy,
        beta=beta,
        temperature=1.0,
        max_new_tokens=max(sum(row["completion_mask"]) for row in encoded),
    )
    teacher_model = load(folder)
    # Qwen2.5 has 151,936 scores or, from 7B, 152,064 for the same 151,665 tokens; the trainer wants equal numbers
    teacher_model.resize_token_embeddings(output_size(student_folder))
    trainer = trainer_class(
        model=load_student_for_training(student_folder),
        teacher_model=teacher_model,
        args=common.on_one_gpu(config),
        processing_class=tokenizer,
        # TRL's collator takes encoded rows as they are, but asks for a prompt's text. Given messages, it would render
        # them itself, and teach whatever the template puts after the end token.
        train_dataset=datasets.Dataset.from_list([row | {"prompt": ""} for row in ordered]),
    )
    # else the loss of the student's own completions would be divided by the number of tokens in those they replaced
    trainer.model_accepts_loss_kwargs = False
    log = common.train(trainer, out, request, base=base_of(student_folder), done=done)
    tokens = sum(len(row["input_ids"]) for row in ordered)
    seconds = next(row["train_runtime"] for row in log if "train_runtime" in row)
    result = {
        "examples": len(ordered),
        "tokens": tokens,
        "too_long": too_long,
        "seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds, 1),
        "loss": [row["loss"] for row in log if "loss" in row][-1],
    }
    write_text(done, json.dumps({"request": request, "result": result}, indent=1))
    return result

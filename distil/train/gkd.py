"""Stage 04, white-box distillation: a student learns a local teacher's whole distribution over the next token."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.models.student import base_of, identity, load, load_tokenizer
from distil.models.templates import stop_ids
from distil.models.weights import resolve
from distil.train import memory
from distil.train.common import ResultCache, dataset, on_one_gpu, train, trainer_arguments
from distil.train.examples import default_batch_size, training_set
from distil.train.log import last_value
from distil.train.model import load_student_for_training
from distil.workspace.errors import StageError
from distil.workspace.files import digest
from distil.workspace.rows import Row, TrainingRow

# Bytes a logit, counted in TRL's trainer: both models' logits (4 and 2), the same divided by the temperature (4 and 2),
# their logarithms (4 and 4), the loss and what it is made of (16). Not yet held against a measured peak.
BYTES_PER_LOGIT = 36


@dataclass(kw_only=True)
class GKDResult(Row):
    """What a white-box distillation came to, as `whitebox.json` keeps it."""

    examples: int
    tokens: int  # of the rows, whoever wrote the completion in the end
    too_long: int  # rows left out
    seconds: float
    tokens_per_s: float
    loss: float  # the last that was logged, nats a token


def trl_gkd() -> tuple[type, type]:
    """TRL's (GKDConfig, GKDTrainer), without its notice that both may change: the version here is pinned."""
    was_unset = "TRL_EXPERIMENTAL_SILENCE" not in os.environ
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.gkd import GKDConfig, GKDTrainer
    finally:
        if was_unset:
            del os.environ["TRL_EXPERIMENTAL_SILENCE"]
    return GKDConfig, GKDTrainer


def output_size(folder: str) -> int:
    """How many logits a model gives a position: one a token, and those added to round their number up."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(resolve(base_of(folder) or folder)).get_text_config().vocab_size


def check_vocabularies(student: str, teacher: str) -> None:
    """Raise StageError unless every token has the same id in both vocabularies, and the teacher has enough logits."""
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


def teacher_folder(student_folder: str, teacher: str, out: Path) -> str:
    """What `from_pretrained` should be given for the teacher.

    Raises StageError if there is no student, or if its folder is the teacher's or `out`.
    """
    if not Path(student_folder).is_dir():
        raise StageError(f"{student_folder} is no folder: train a student with `sft` first")
    folder = resolve(teacher)
    for name, other in (("the teacher", folder), ("out", out)):
        if Path(other).resolve() == Path(student_folder).resolve():
            raise StageError(f"{name} is the student's own folder {student_folder}: name another one")
    return folder


def refuse_unsloth() -> None:
    """Raise StageError if Unsloth was imported: its models leave padding unmasked in training, and we pad before."""
    if "unsloth" in sys.modules:
        raise StageError("Unsloth is at work in this process and would spoil the loss: restart the kernel, call again")


def load_teacher(folder: str, student_folder: str):
    """The teacher, with as many scores a position as the student: the trainers want equal numbers.

    Qwen2.5 has 151,936 scores or, from 7B, 152,064 for the same 151,665 tokens.
    """
    model = load(folder)
    model.resize_token_embeddings(output_size(student_folder))
    return model


def teacher_gib(folder: str) -> float:
    """GiB of a GPU that the teacher takes; an adapter may teach, too."""
    return memory.weights_gib(memory.base_and_method(folder)[0])


def plan_beside_teacher(student_folder: str, folder: str, batch_size: int, longest: int) -> memory.Plan:
    """The plan of a step of `batch_size` rows, of `longest` tokens at most, on a GPU that also holds the teacher."""
    return memory.plan_further(
        student_folder,
        batch_size=batch_size,
        longest=longest,
        taken=teacher_gib(folder),
        bytes_per_logit=BYTES_PER_LOGIT,
    )


def distil_from_logits(
    rows: Sequence[TrainingRow],
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
) -> GKDResult:
    """Teach the student in `student_folder` the distribution of `teacher`, a folder or a model id; saves it to `out`.

    The loss is that of GKD (Agarwal et al. 2024, arXiv 2306.13649, equation 1) of teacher P and student Q, in nats.
    `beta` 0 is KL(P||Q), 1 is KL(Q||P). Between them it is beta KL(P||M) + (1 - beta) KL(Q||M) with
    M = beta P + (1 - beta) Q, which is small near both ends. It is the mean over the completion tokens of a micro
    batch. Rows, prompts and budget are those of `sft`; the prompt is rendered by the student's template, not the
    teacher's. In a share `on_policy` of the steps, the student writes the completions itself: sampled at temperature
    1, no longer than the longest of the rows'.

    A finished result of the same request is not computed again. Raises StageError for shares outside 0 to 1, if the
    teacher is the student or has another vocabulary, if no row fits, or if Unsloth was imported before.
    """
    for name, value in (("on_policy", on_policy), ("beta", beta)):
        if not 0 <= value <= 1:
            raise StageError(f"{name} is {value}: use a number from 0 to 1")
    folder = teacher_folder(student_folder, teacher, out)
    request = {
        "student": identity(student_folder),
        "teacher": identity(teacher),
        "train_tokens": train_tokens,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "seed": seed,
        "on_policy": on_policy,
        "beta": beta,
        "rows": digest(*rows),
    }
    cache = ResultCache(out / "whitebox.json", request, GKDResult)
    if (known := cache.read()) is not None:
        return known
    refuse_unsloth()
    check_vocabularies(student_folder, teacher)
    tokenizer = load_tokenizer(student_folder)
    chosen = training_set(
        rows,
        tokenizer,
        max_length=max_length,
        train_tokens=train_tokens,
        batch_size=default_batch_size(),
        seed=seed,
    )
    planned = plan_beside_teacher(student_folder, folder, chosen.batch_size, chosen.longest)
    config_class, trainer_class = trl_gkd()
    config = config_class(
        **trainer_arguments(
            out,
            steps=chosen.steps,
            learning_rate=learning_rate,
            seed=seed,
            batch_size=chosen.batch_size,
            micro_batch_size=planned.micro_batch_size,
            gradient_checkpointing=planned.gradient_checkpointing,
        ),
        max_length=max_length,
        train_sampling_strategy="sequential",
        lmbda=on_policy,
        beta=beta,
        temperature=1.0,
        max_new_tokens=max(sum(row["completion_mask"]) for row in chosen.encoded),
    )
    trainer = trainer_class(
        model=load_student_for_training(student_folder),
        teacher_model=load_teacher(folder, student_folder),
        args=on_one_gpu(config),
        processing_class=tokenizer,
        # TRL's collator takes encoded rows as they are, but asks for a prompt's text. Given messages, it would render
        # them itself, and teach whatever the template puts after the end token.
        train_dataset=dataset([row | {"prompt": ""} for row in chosen.ordered]),
    )
    trainer.generation_config.eos_token_id = stop_ids(trainer.model, tokenizer)
    # else the loss of the student's own completions would be divided by the number of tokens in those they replaced
    trainer.model_accepts_loss_kwargs = False
    log = train(trainer, out, cache, base=base_of(student_folder))
    seconds = last_value(log, "train_runtime")
    return cache.write(
        GKDResult(
            examples=len(chosen.ordered),
            tokens=chosen.tokens,
            too_long=chosen.too_long,
            seconds=round(seconds, 1),
            tokens_per_s=round(chosen.tokens / seconds, 1),
            loss=last_value(log, "loss"),
        )
    )

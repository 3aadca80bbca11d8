"""On-policy distillation: a student writes answers of its own, and a local teacher says of each token how likely it is.

The student is corrected where it really goes wrong, and in every token: Agarwal et al. 2024 (arXiv 2306.13649), and
with the reverse KL as here, Lu and Thinking Machines Lab 2025 (thinkingmachines.ai/blog/on-policy-distillation). The
teacher may be shown another prompt than the student, with worked examples, say; then the student learns to do without
them (Ye et al. 2026, arXiv 2602.12275).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from distil.chains.collect import STYLES, asked_for
from distil.llm.prompts import prompt_of
from distil.models import formats
from distil.models.student import base_of, encode_prompt, identity, load_tokenizer
from distil.train import memory
from distil.train.common import ResultCache, dataset, on_one_gpu, train, trainer_arguments
from distil.train.examples import default_batch_size, fill_epochs
from distil.train.gkd import check_vocabularies, load_teacher, refuse_unsloth, teacher_folder, teacher_gib
from distil.train.log import last_value
from distil.train.model import load_student_for_training
from distil.train.writing import TimedWriting, engine, engine_settings, without_bars, write_with_a_copy
from distil.workspace.errors import StageError
from distil.workspace.files import digest
from distil.workspace.rows import Problem, Row

ENDS = 5  # steps at either end whose mean loss is reported


@dataclass(kw_only=True)
class OnPolicyResult(Row):
    """What an on-policy distillation came to, as `on_policy.json` keeps it."""

    steps: int
    completions: int
    tokens: int  # that the student learned from or read: its prompts and its completions
    written: int  # of these, in completions: the loss is taken of them
    seconds: float  # since it was last started
    writing_s: float  # of these, while completions were written
    tokens_per_s: int  # of writing alone
    loss_first: float  # mean of the first `ENDS` steps, nats a token
    loss_last: float  # of the last
    engine: str  # vllm or transformers


def trainer_class() -> type:
    """TRL's trainer, whose teacher sees the prompt in the column `teacher_ids`, and then what the student wrote."""
    import torch
    from trl import DistillationTrainer
    from trl.trainer.utils import pad

    class OnPolicyTrainer(TimedWriting, DistillationTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            ids = [torch.tensor(row["teacher_ids"]) for row in inputs]
            for name, rows, filler in (
                ("teacher_ids", ids, self._tokenizer.pad_token_id),
                ("teacher_mask", [torch.ones_like(row) for row in ids], 0),
            ):  # the trainer shuffles and divides whatever has a row a completion
                batch[name] = pad(rows, padding_value=filler, padding_side="left").to(batch["prompt_ids"].device)
            return batch

        def _compute_loss(self, unwrapped_student, inputs, num_items_in_batch):
            self.batch = inputs
            with self.accelerator.autocast():  # TRL goes past the model's own `forward`, which alone would do that
                return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)

        def _get_last_hidden_state(self, unwrapped_model, input_ids, attention_mask, logits_to_keep, **more):
            if unwrapped_model is self.accelerator.unwrap_model(self.teacher_model):
                batch = self.batch
                input_ids = torch.cat([batch["teacher_ids"], batch["completion_ids"]], dim=1)
                attention_mask = torch.cat([batch["teacher_mask"], batch["completion_mask"]], dim=1)
            # of either prompt's states, those of the last `logits_to_keep` tokens are kept: the completion's
            return super()._get_last_hidden_state(unwrapped_model, input_ids, attention_mask, logits_to_keep, **more)

    return OnPolicyTrainer


def distil_on_policy(
    problems: Sequence[Problem],
    student_folder: str,
    teacher: str,
    out: Path,
    *,
    steps: int,
    learning_rate: float,
    max_completion: int,
    seed: int,
    beta: float = 1.0,
    teacher_prompt: str = "",
) -> OnPolicyResult:
    """Teach the student in `student_folder` what `teacher`, a folder or a model id, would say next to its own words.

    In each of `steps` steps it answers the next problems (16 on a GPU, 4 on a CPU; all in a random order, then all in
    another) by an answer each, sampled at temperature 1, of `max_completion` tokens at most. The loss is that of
    `distil.train.gkd.distil_from_logits`, by the same `beta`: 1 is KL(Q||P) of teacher P and student Q, 0 KL(P||Q). It
    is the mean over the tokens of a step's completions. No gold answer is looked at. The teacher sees what the student
    is asked, or with `teacher_prompt` (fast, slow) what 01 asks a teacher; rendered by the student's template in either
    case.

    The student goes to `out`, its losses to log.csv there. An interrupted training goes on from its last checkpoint; a
    finished result of the same request is not computed again. Raises StageError for settings that cannot be meant, if
    there is no problem, if the teacher is the student or has another vocabulary, or if Unsloth was imported before.
    """
    wrong = {
        f"beta is {beta}: use a number from 0 to 1": not 0 <= beta <= 1,
        f"steps is {steps}: use 1 or more": steps < 1,
        f"max_completion is {max_completion}: use 1 or more": max_completion < 1,
        f"teacher_prompt is {teacher_prompt!r}: use one of {', '.join(STYLES)}, or none": teacher_prompt
        not in ("", *STYLES),
    }
    for rule, broken in wrong.items():
        if broken:
            raise StageError(rule)
    folder, batch_size = teacher_folder(student_folder, teacher, out), default_batch_size()
    if not problems:
        raise StageError("there is no problem to answer: see what 01 kept")
    tokenizer, student_format = load_tokenizer(student_folder), formats.format_in(student_folder)
    rows = []
    for problem in problems:
        prompt = prompt_of(problem, student_format)
        shown = asked_for(problem, teacher_prompt) if teacher_prompt else prompt
        rows.append({"prompt": prompt, "teacher_ids": encode_prompt(tokenizer, shown)})
    request = {
        "student": identity(student_folder), "teacher": identity(teacher), "steps": steps,
        "learning_rate": learning_rate, "max_completion": max_completion, "seed": seed, "beta": beta,
        "teacher_prompt": teacher_prompt, "rows": digest(*rows),
    }  # fmt: skip
    cache = ResultCache(out / "on_policy.json", request, OnPolicyResult)
    if (known := cache.read()) is not None:
        return known
    refuse_unsloth()
    check_vocabularies(student_folder, teacher)
    from trl import DistillationConfig

    longest = max(len(encode_prompt(tokenizer, row["prompt"])) for row in rows) + max_completion
    vllm, for_vllm = engine_settings(student_folder, longest, tokenizer.eos_token_id)
    planned = memory.plan_further(
        student_folder,
        batch_size=batch_size,
        longest=max(longest, max(len(row["teacher_ids"]) for row in rows) + max_completion),
        taken=teacher_gib(folder) + for_vllm,
        backend="distillation",
    )
    config = DistillationConfig(
        **trainer_arguments(
            out,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            batch_size=batch_size,
            micro_batch_size=planned.micro_batch_size,
            gradient_checkpointing=planned.gradient_checkpointing,
        )
        | {"logging_steps": 1},
        **vllm,
        shuffle_dataset=False,
        max_completion_length=max_completion,
        temperature=1.0,
        beta=beta,
    )
    model = load_student_for_training(student_folder)
    write_with_a_copy(model)
    with without_bars():
        trainer = trainer_class()(
            model=model,
            teacher_model=load_teacher(folder, student_folder),
            args=on_one_gpu(config),
            processing_class=tokenizer,
            # in an order of our own: the trainer's would be drawn anew where a training goes on
            train_dataset=dataset(fill_epochs(rows, steps * batch_size / len(rows), seed)),
        )
    log = train(trainer, out, cache, base=base_of(student_folder))
    taken = [row for row in log if "loss" in row]
    few = min(ENDS, -(-len(taken) // 2))
    return cache.write(
        OnPolicyResult(
            steps=len(taken),
            completions=batch_size * len(taken),
            tokens=int(last_value(taken, "num_tokens")),
            written=round(sum(batch_size * row["completions/mean_length"] for row in taken)),
            seconds=round(last_value(log, "train_runtime"), 1),
            writing_s=round(trainer.writing_s, 1),
            tokens_per_s=round(trainer.written / max(1e-9, trainer.writing_s)),
            loss_first=round(fmean(row["loss"] for row in taken[:few]), 4),
            loss_last=round(fmean(row["loss"] for row in taken[-few:]), 4),
            engine=engine(),
        )
    )

"""Stage 05: CogPO, preference training that gives each pair a strength of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from distil.models.student import base_of, load_tokenizer
from distil.train.common import (
    load_student_for_training,
    on_one_gpu,
    prepare_backend,
    train,
    trainer_arguments,
)
from distil.train.pairs import check_pairs
from distil.workspace.errors import StageError
from distil.workspace.files import digest, sha256, write_text

# what may be minimised, in TRL's names: DPO and CogPO, the same by the token, the same with the SFT loss added
LOSSES = {"sigmoid": ["sigmoid"], "sigmoid_norm": ["sigmoid_norm"], "sigmoid+sft": ["sigmoid", "sft"]}
BATCH = 4  # pairs a step


def cogpo_trainer_class():
    """TRL's DPOTrainer with a beta for each row.

    The loss of a row is -log sigmoid(beta_i * delta_i), delta the difference of the chosen and the rejected chain's
    log-ratios to the reference (recipe: CogPO, arXiv 2504.09802). The trainer multiplies `self.beta` into delta;
    a tensor of shape (rows,) there is all that is needed. With equal betas it is DPO.
    """
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class CollatorWithBeta(DataCollatorForPreference):
        def torch_call(self, examples):
            import torch

            batch = super().torch_call(examples)
            batch["beta"] = torch.tensor([example["beta"] for example in examples])
            return batch

    class CogPOTrainer(DPOTrainer):
        def __init__(self, *args, **kwargs):
            tokenizer, config = kwargs["processing_class"], kwargs["args"]
            kwargs["data_collator"] = CollatorWithBeta(
                pad_token_id=tokenizer.pad_token_id, max_length=config.max_length
            )
            super().__init__(*args, **kwargs)

        def _set_signature_columns_if_needed(self):
            super()._set_signature_columns_if_needed()
            if "beta" not in self._signature_columns:
                self._signature_columns = [*self._signature_columns, "beta"]

        def _compute_loss(self, model, inputs, return_outputs):
            common, self.beta = self.beta, inputs.pop("beta")
            try:
                return super()._compute_loss(model, inputs, return_outputs)
            finally:
                self.beta = common

    return CogPOTrainer


def render(pairs: Sequence[dict], tokenizer) -> list[dict]:
    """Pairs as plain text: the prompt as inference renders it, so that only the answers and an end token follow."""
    return [
        {
            "prompt": tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True),
            "chosen": row["chosen"],
            "rejected": row["rejected"],
            "beta": row["beta"],
        }
        for row in pairs
    ]


def too_long(rows: Sequence[dict], tokenizer, max_length: int) -> list[bool]:
    """For each rendered pair: would either side be cut at `max_length` tokens, its answer lost?"""
    return [
        max(
            len(tokenizer(row["prompt"] + row[side], add_special_tokens=False)["input_ids"]) + 1
            for side in ("chosen", "rejected")
        )
        > max_length
        for row in rows
    ]


def cogpo(
    pairs: Sequence[dict],
    student: str,
    out: Path,
    *,
    learning_rate: float,
    seed: int,
    loss: str = "sigmoid",
    max_length: int = 512,
) -> dict:
    """Preference-train the student in folder `student` on pairs; saves it to `out` with log.csv.

    Rows of split `train` are trained on, those of split `valid` looked at before, halfway and after.
    `loss` is one of `LOSSES`. Returns {pairs, dropped, seconds, loss, gaps}; `gaps` holds, for each gap with pairs
    that were set aside, their number n and the last row of `watched`; a chosen side that falls is the known ailment of
    DPO. Raises StageError for an unknown loss, faulty pairs (`check_pairs`), or if no pair fits into
    `max_length` tokens, since a cut pair would lose its answer.
    """
    if loss not in LOSSES:
        raise StageError(f"loss {loss!r}: use one of {', '.join(LOSSES)}")
    check_pairs(pairs)
    request = {
        "student": sha256(Path(student)),
        "learning_rate": learning_rate,
        "seed": seed,
        "loss": loss,
        "max_length": max_length,
        "pairs": digest(*pairs),
    }
    done = out / "prefer.json"
    if done.exists() and json.loads(done.read_text())["request"] == request:
        return json.loads(done.read_text())["result"]
    prepare_backend(compiler=False)
    import datasets
    import torch
    from trl import DPOConfig

    datasets.disable_progress_bars()
    at_once = BATCH if torch.cuda.is_available() else BATCH // 2  # four pairs at once took a laptop's 8 GiB
    tokenizer = load_tokenizer(student)
    rendered = render(pairs, tokenizer)
    fitting = [row for row, cut in zip(pairs, too_long(rendered, tokenizer, max_length), strict=True) if not cut]
    train_on = [row for row in fitting if row["split"] == "train"]
    held: dict[str, list[dict]] = {}
    for row in fitting:
        if row["split"] == "valid":
            held.setdefault(row["gap"], []).append(row)
    if not train_on:
        raise StageError(
            f"none of {len(pairs)} pairs fits into {max_length} tokens: raise max_length, or prefer shorter chains"
        )
    steps = -(-len(train_on) // BATCH)
    arguments = trainer_arguments(out, steps, learning_rate, seed) | {"logging_steps": max(1, steps // 12)}
    if held:
        arguments |= {"eval_strategy": "steps", "eval_steps": -(-steps // 2), "eval_on_start": True}
    config = DPOConfig(
        **arguments,
        num_train_epochs=1,
        per_device_train_batch_size=at_once,
        per_device_eval_batch_size=at_once,
        gradient_accumulation_steps=BATCH // at_once,
        max_length=max_length,
        loss_type=LOSSES[loss],
    )
    trainer = cogpo_trainer_class()(
        model=load_student_for_training(student, max_length),
        args=on_one_gpu(config),
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(render(train_on, tokenizer)),
        eval_dataset={gap: datasets.Dataset.from_list(render(rows, tokenizer)) for gap, rows in held.items()} or None,
    )
    log = train(trainer, out, request, base=base_of(student), done=done)
    result = {
        "pairs": len(train_on),
        "dropped": len(pairs) - len(fitting),
        "seconds": round(next(row["train_runtime"] for row in log if "train_runtime" in row), 1),
        "loss": [row["loss"] for row in log if "loss" in row][-1],
        "gaps": {gap: {"n": len(rows)} | watched(log, gap)[-1] for gap, rows in held.items()},
    }
    write_text(done, json.dumps({"request": request, "result": result}, indent=1))
    return result


def watched(log: Sequence[dict], gap: str) -> list[dict]:
    """The looks at one gap's pairs set aside, in order: {step, margin, chosen, rejected}.

    margin: mean difference of the implicit rewards, beta times log-ratio; chosen, rejected: how far the mean
    log-probability of that side has moved since the first look, in nats.
    """
    looks = [row for row in log if row.get(f"eval_{gap}_loss") is not None]  # the other columns do not name the gap
    return [
        {
            "step": row["step"],
            "margin": round(row["eval_rewards/margins"], 4),
            "chosen": round(row["eval_logps/chosen"] - looks[0]["eval_logps/chosen"], 4),
            "rejected": round(row["eval_logps/rejected"] - looks[0]["eval_logps/rejected"], 4),
        }
        for row in looks
    ]

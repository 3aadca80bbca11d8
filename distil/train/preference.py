"""Stage 05: CogPO, preference training that gives each pair a strength of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.models import formats
from distil.models.student import base_of, encode_prompt, identity, load_tokenizer
from distil.train.common import ResultCache, dataset, eval_arguments, on_one_gpu, train, trainer_arguments
from distil.train.log import last_value
from distil.train.model import load_student_for_training, prepare_backend
from distil.train.pairs import check_pairs
from distil.workspace.errors import StageError
from distil.workspace.files import digest
from distil.workspace.rows import Pair, Row

# losses by TRL's names: that of DPO and CogPO, the same by the token, the same with the SFT loss added
LOSSES = {"sigmoid": ["sigmoid"], "sigmoid_norm": ["sigmoid_norm"], "sigmoid+sft": ["sigmoid", "sft"]}
BATCH_SIZE = 4  # pairs a step


@dataclass(kw_only=True)
class CogPOResult(Row):
    """What a preference training came to, as `prefer.json` keeps it."""

    pairs: int  # trained on
    dropped: int  # pairs left out as too long
    seconds: float
    loss: float  # the last that was logged
    gaps: dict[str, dict]  # of the pairs set aside, by gap: how many (n), and the last row of `watched`


def cogpo_trainer_class():
    """TRL's DPOTrainer with a beta for each row.

    The loss of a row is -log sigmoid(beta_i * delta_i) (recipe: CogPO, arXiv 2504.09802). delta_i is the difference of
    the chosen and the rejected chain's log-ratios to the reference. The trainer multiplies `self.beta` into delta, so
    that a tensor of shape (rows,) in its place is enough. With equal betas this is DPO.
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

        def _prepare_dataset(self, dataset, *_):
            return dataset  # it is encoded already

        def _set_signature_columns_if_needed(self):
            super()._set_signature_columns_if_needed()
            if "beta" not in self._signature_columns:
                self._signature_columns = [*self._signature_columns, "beta"]

        def _compute_loss(self, model, inputs, return_outputs):
            of_all, self.beta = self.beta, inputs.pop("beta")
            try:
                return super()._compute_loss(model, inputs, return_outputs)
            finally:
                self.beta = of_all

    return CogPOTrainer


def encode_pairs(pairs: Sequence[Pair], tokenizer) -> list[dict]:
    """Pairs as token ids, as the trainer takes them: the prompt as inference renders it, and both answers to their end.

    TRL would tokenise texts with special tokens, and put a second BOS before a prompt whose template writes one.
    """
    opened = formats.opened(tokenizer)

    def answer(text: str) -> list[int]:
        ids = tokenizer(text.removeprefix(opened), add_special_tokens=False)["input_ids"]
        return [*ids, tokenizer.eos_token_id]

    return [
        {
            "prompt_ids": encode_prompt(tokenizer, row.prompt),
            "chosen_ids": answer(row.chosen),
            "rejected_ids": answer(row.rejected),
            "beta": row.beta,
        }
        for row in pairs
    ]


def too_long(row: dict, max_length: int) -> bool:
    """Would `max_length` tokens cut either side of an encoded pair off, and with it the answer?"""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) > max_length


def cogpo(
    pairs: Sequence[Pair],
    student: str,
    out: Path,
    *,
    learning_rate: float,
    seed: int,
    loss: str = "sigmoid",
    max_length: int = 512,
) -> CogPOResult:
    """Preference-train the student in folder `student` on pairs; saves it to `out` with log.csv.

    Pairs of split `train` are trained on. Those of split `valid` are looked at before, halfway and after; a chosen side
    that becomes less likely is the known ailment of DPO. `loss` is one of `LOSSES`. A finished result of the same
    request is not computed again. Raises StageError for an unknown loss, for faulty pairs (`check_pairs`), or if no
    pair fits into `max_length` tokens: a pair that was cut would lose its answer.
    """
    if loss not in LOSSES:
        raise StageError(f"loss {loss!r}: use one of {', '.join(LOSSES)}")
    check_pairs(pairs)
    request = {
        "student": identity(student),
        "learning_rate": learning_rate,
        "seed": seed,
        "loss": loss,
        "max_length": max_length,
        "pairs": digest(*pairs),
    }
    cache = ResultCache(out / "prefer.json", request, CogPOResult)
    if (known := cache.read()) is not None:
        return known
    prepare_backend(compiler=False)
    import torch
    from trl import DPOConfig

    micro_batch_size = BATCH_SIZE if torch.cuda.is_available() else BATCH_SIZE // 2  # four took a laptop's 8 GiB
    tokenizer = load_tokenizer(student)
    train_on: list[dict] = []
    set_aside: dict[str, list[dict]] = {}
    for row, encoded in zip(pairs, encode_pairs(pairs, tokenizer), strict=True):
        if not too_long(encoded, max_length):
            (train_on if row.split == "train" else set_aside.setdefault(row.gap, [])).append(encoded)
    if not train_on:
        raise StageError(
            f"none of {len(pairs)} pairs fits into {max_length} tokens: raise max_length, or prefer shorter chains"
        )
    steps = -(-len(train_on) // BATCH_SIZE)
    arguments = trainer_arguments(
        out,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        batch_size=BATCH_SIZE,
        micro_batch_size=micro_batch_size,
    )
    arguments |= {"logging_steps": max(1, steps // 12)}
    if set_aside:
        arguments |= eval_arguments(-(-steps // 2), micro_batch_size) | {"eval_on_start": True}
    trainer = cogpo_trainer_class()(
        model=load_student_for_training(student, max_length),
        args=on_one_gpu(DPOConfig(**arguments, max_length=max_length, loss_type=LOSSES[loss])),
        processing_class=tokenizer,
        train_dataset=dataset(train_on),
        eval_dataset={gap: dataset(rows) for gap, rows in set_aside.items()} or None,
    )
    log = train(trainer, out, cache, base=base_of(student))
    return cache.write(
        CogPOResult(
            pairs=len(train_on),
            dropped=len(pairs) - len(train_on) - sum(map(len, set_aside.values())),
            seconds=round(last_value(log, "train_runtime"), 1),
            loss=last_value(log, "loss"),
            gaps={gap: {"n": len(rows)} | watched(log, gap)[-1] for gap, rows in set_aside.items()},
        )
    )


def watched(log: Sequence[dict], gap: str) -> list[dict]:
    """The evaluations of one gap's pairs set aside, in order: {step, margin, chosen, rejected}.

    margin: mean difference of the implicit rewards, which are beta times the log-ratio.
    chosen, rejected: how far the mean log-probability of that side has moved since the first evaluation, in nats.
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

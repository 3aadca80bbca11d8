"""Stage 05: preference pairs of three gaps, and CogPO, which gives each gap a strength of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from distil.collect import chain_text
from distil.finetune import (
    load_student_for_training,
    rows_digest,
    save_student,
    train,
    trainer_arguments,
    write_log,
)
from distil.prompt import student_messages
from distil.stage import StageError, write_text
from distil.student import load_tokenizer

GAPS = ("small", "medium", "large")
BATCH = 4


def parse_betas(text: str) -> dict[str, float]:
    """{gap: beta} from "0.1,0.2,0.5". Raises StageError unless there are three, positive and not falling."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) <= 0 or values != sorted(values):
        raise StageError(f"betas {text!r}: give three numbers above 0 for {', '.join(GAPS)}, none below the one before")
    return dict(zip(GAPS, values, strict=True))


def build_pairs(
    aligned: Sequence[dict],
    corrupted: Sequence[dict],
    problems: dict[str, dict],
    betas: dict[str, float],
    max_pairs: int,
    seed: int,
) -> list[dict]:
    """Rows {prompt, chosen, rejected, gap, beta, problem_id}: at most `max_pairs`, the gaps as even as they come.

    small: the aligned form of a chain over its original, which was correct but unsuitable; medium: such an original
    over a corrupted chain of the same problem; large: an aligned chain over a corrupted one. Raises StageError if
    there is no pair at all.
    """
    bad = {row["problem_id"]: chain_text(row) for row in corrupted}
    found: dict[str, list[dict]] = {gap: [] for gap in GAPS}
    for row in aligned:
        original, final = row["trail"][0]["text"], chain_text(row["chain"])
        unsuitable = row["trail"][0]["difficulty"] in ("easy", "hard")
        problem = problems[row["problem_id"]]

        def add(gap: str, chosen: str, rejected: str, problem: dict = problem) -> None:
            if chosen != rejected:
                found[gap].append(
                    {
                        "prompt": student_messages(problem["question"]),
                        "chosen": chosen,
                        "rejected": rejected,
                        "gap": gap,
                        "beta": betas[gap],
                        "problem_id": problem["id"],
                    }
                )

        if row["kept"] and unsuitable:
            add("small", final, original)
        if unsuitable and row["problem_id"] in bad:
            add("medium", original, bad[row["problem_id"]])
        if row["kept"] and row["problem_id"] in bad:
            add("large", final, bad[row["problem_id"]])
    rng, pairs = random.Random(seed), []
    for rows in found.values():
        rng.shuffle(rows)
    while len(pairs) < max_pairs and any(found.values()):
        for rows in found.values():
            if rows and len(pairs) < max_pairs:
                pairs.append(rows.pop())
    if not pairs:
        raise StageError(
            "no preference pair could be made: 02 accepted no corrupted chain and 03 improved none; "
            "collect more problems, or a stronger rewriter"
        )
    return pairs


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
    pairs: Sequence[dict], student: str, out: Path, *, learning_rate: float, seed: int, max_length: int = 512
) -> dict:
    """Preference-train the student in folder `student` on pairs; saves it to `out` with log.csv.

    Returns {pairs, dropped, seconds, loss, margin, chosen_logps_change}: `margin` is the last logged difference of
    rewards, `chosen_logps_change` what became of the chosen chains' log-probability (a fall is the known ailment of
    DPO). Raises StageError if no pair fits into `max_length`, since a cut pair would lose its answer.
    """
    request = {
        "student": str(student),
        "learning_rate": learning_rate,
        "seed": seed,
        "max_length": max_length,
        "pairs": rows_digest([{"output": row["chosen"] + row["rejected"] + str(row["beta"])} for row in pairs]),
    }
    done = out / "prefer.json"
    if done.exists() and json.loads(done.read_text())["request"] == request:
        return json.loads(done.read_text())["result"]
    import datasets
    from trl import DPOConfig

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(student)
    rendered = render(pairs, tokenizer)
    rows = [row for row, cut in zip(rendered, too_long(rendered, tokenizer, max_length), strict=True) if not cut]
    if not rows:
        raise StageError(f"none of {len(pairs)} pairs fits into {max_length} tokens")
    steps = -(-len(rows) // BATCH)
    config = DPOConfig(
        **trainer_arguments(out, steps, learning_rate, seed) | {"logging_steps": max(1, steps // 12)},
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        max_length=max_length,
    )
    trainer = cogpo_trainer_class()(
        model=load_student_for_training(student),
        args=config,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(rows),
    )
    log = train(trainer, out, save=save_student)
    tokenizer.save_pretrained(out)
    write_log(log, out / "log.csv")
    logged = [row for row in log if "rewards/margins" in row]
    result = {
        "pairs": len(rows),
        "dropped": len(pairs) - len(rows),
        "seconds": round(next(row["train_runtime"] for row in log if "train_runtime" in row), 1),
        "loss": logged[-1]["loss"],
        "margin": round(logged[-1]["rewards/margins"], 4),
        "chosen_logps_change": round(logged[-1]["logps/chosen"] - logged[0]["logps/chosen"], 2),
    }
    write_text(done, json.dumps({"request": request, "result": result}, indent=1))
    return result

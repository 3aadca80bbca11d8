"""The variants that sft.py measures, each trained once in a fresh process under a callback that times it."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

from distil.models.student import load_tokenizer
from distil.models.weights import resolve
from distil.train import examples, model, sft, sft_trainers
from distil.train.log import each_batch, real_tokens
from distil.train.memory import plan_packed
from distil.workspace.environment import choose_dtype, quiet
from distil.workspace.errors import StageError
from distil.workspace.rows import TrainingRow

LEARNING_RATE, MAX_LENGTH, SEED = 2e-4, 512, 0
WARM_UP = 5  # the first steps compile, choose kernels and fill the allocator: they are trained but not timed
LARGE = 64  # rows a step
TOKENS_A_STEP = {"ours, large steps": 32_768, "ours, little memory": 16_384}
LARGE_TOKENS = 20 * 32_768  # enough large steps to time
CHECK_ROWS = 8  # rows a step where losses are compared
PROFILED = 3  # steps; what is seen of more takes longer to read than to train
VARIANTS = {
    "ours": "train.sft.sft as 04 calls it, 16 rows a step: packed and compiled on a GPU, TRL elsewhere",
    "ours, large steps": "the same, 32,768 tokens a step",
    "ours, little memory": "16,384 tokens a step, a quarter at a time, every layer computed again on the way back",
    "Unsloth": "train.sft.sft through Unsloth, 16 rows a step",
    "Unsloth, large steps": f"the same, {LARGE} rows a step and four times the tokens, so that there are steps to time",
    "plain TRL": "SFTTrainer by its defaults, LoRA, loss on the completion",
    "public recipe": "SFTTrainer, one row at a time, 8 of them a step, bfloat16 weights, LoRA, loss on the full text",
}
# The same rows, order, schedule and initial adapter through both backends: only the losses count.
CHECKS = {"check ours": "train.sft.sft on packed rows", "check TRL": "train.sft.sft on padded rows, by TRL alone"}


def watch(check: bool, profiled: bool):
    """A callback that times the steps after the warm-up and counts their tokens.

    It waits for the GPU only where its clock starts and stops. Checkpoints are not written: they are no training.
    """
    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Watch(TrainerCallback):
        def __init__(self):
            self.batches, self.ends, self.losses, self.seconds, self.profiler = [], [], [], None, None

        def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **_):
            each_batch(train_dataloader, lambda batch: self.batches.append(
                (real_tokens(batch), batch["input_ids"].numel(), int((batch["labels"] != -100).sum()))))  # fmt: skip
            self.args, self.last = args, state.max_steps - (PROFILED if profiled else 0)
            # all weights but the adapter and the tables of words, in and out
            tables = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
            self.weights = sum(
                p.numel() for n, p in model.named_parameters() if "lora_" not in n and id(p) not in tables
            )
            if check:
                same_adapter(model)

        def on_step_end(self, args, state, control, **_):
            step = state.global_step
            self.ends.append(time.perf_counter())
            if step == WARM_UP:
                self.begun = now()
            if step == self.last and step > WARM_UP:
                self.seconds = now() - self.begun
                if profiled:
                    self.profiler = torch.profiler.profile()
                    self.profiler.start()
                    self.begun = now()
            if step == state.max_steps and self.profiler:
                self.profiled = now() - self.begun
                self.profiler.stop()
            control.should_save = False
            control.should_log |= check or step == 1
            return control

        def on_log(self, args, state, control, logs=None, **_):
            self.losses += [logs["loss"]] if "loss" in (logs or {}) else []

        def counts(self, first: int, last: int) -> tuple[int, int, int]:
            """(tokens, tokens with padding, tokens with a loss) of steps first + 1 to last."""
            parts = self.args.gradient_accumulation_steps
            return tuple(map(sum, zip(*self.batches[first * parts : last * parts], strict=True)))

    return Watch()


def same_adapter(model) -> None:
    """LoRA's random half drawn from the weight's own name, so that every backend starts from the same adapter."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_A" in name:
                draw = torch.Generator().manual_seed(zlib.crc32(name[name.index("layers.") :].encode()))
                weight.copy_((torch.rand(weight.shape, generator=draw) * 2 - 1) / weight.shape[1] ** 0.5)


def train(name: str, rows: list[TrainingRow], student: str, *, callback, tokens: int, out: Path) -> None:
    if name in CHECKS:  # which sorts the rows for TRL alone
        examples.by_length = lambda rows, *_: list(rows)
    if name == "ours, little memory":
        sft_trainers.plan_packed = lambda *args, **more: replace(
            plan_packed(*args, **more), parts=4, gradient_checkpointing=True
        )
    if name.startswith(("ours", "Unsloth", "check")):
        batch = CHECK_ROWS if name in CHECKS else LARGE if name == "Unsloth, large steps" else 0
        sft.sft(rows, [], student, out, train_tokens=tokens, learning_rate=LEARNING_RATE, max_length=MAX_LENGTH,
                     method="lora", seed=SEED, batch_size=batch, tokens_a_step=TOKENS_A_STEP.get(name, 0),
                     callbacks=[callback])  # fmt: skip
        return
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(resolve(student))
    encoded, _ = examples.encode_rows(rows, tokenizer, MAX_LENGTH)
    chosen = examples.fill_budget(encoded, tokens, SEED)
    special = {"completion_only_loss": True}
    if name == "public recipe":
        chosen = [{"input_ids": row["input_ids"]} for row in chosen]
        special = {"completion_only_loss": False, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
                   "model_init_kwargs": {"dtype": "bfloat16"}, "bf16": True}  # fmt: skip
    config = SFTConfig(
        output_dir=str(out),
        learning_rate=LEARNING_RATE,
        seed=SEED,
        num_train_epochs=1,  # the rows are repeated already
        train_sampling_strategy="sequential",  # and in random order
        max_length=MAX_LENGTH,
        report_to="none",
        disable_tqdm=quiet(),
        use_cpu=not torch.cuda.is_available(),
        **special,
    )
    trainer = SFTTrainer(
        model=resolve(student),
        args=config,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(chosen),
        peft_config=LoraConfig(target_modules=model.TARGETS, task_type="CAUSAL_LM", **model.LORA),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def matrix_rate() -> float:
    """FLOP/s of a large product of random matrices: what this machine gives at best, whatever its data sheet says."""
    import torch

    gpu, dtype = torch.cuda.is_available(), choose_dtype()[0]
    n, times = (8192, 50) if gpu else (1024, 5)
    a, b = (torch.randn(n, n, device="cuda" if gpu else "cpu", dtype=dtype) for _ in range(2))
    for _turn in range(2):  # the first turn warms up
        if gpu:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(times):
            a @ b
        if gpu:
            torch.cuda.synchronize()
    return times * 2 * n**3 / (time.perf_counter() - begun)


def once(rows: list[TrainingRow], student: str, name: str, tokens: int, *, profiled: bool = False):
    """One variant in this process, which must be a fresh one: (what the callback saw, seconds with loading)."""
    os.environ["DISTIL_BACKEND"] = "unsloth" if name.startswith("Unsloth") else "trl" if name == "check TRL" else ""
    if name.startswith("Unsloth"):
        model.prepare_backend(compiler=True)  # before transformers, which the callback imports
    if name in TOKENS_A_STEP:
        tokens = max(tokens, LARGE_TOKENS)
    elif name == "Unsloth, large steps":
        tokens *= 4
    elif name in CHECKS:
        tokens //= 2
    seen = watch(name in CHECKS, profiled)
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        train(name, rows, student, callback=seen, tokens=2 * tokens if profiled else tokens, out=Path(out))
        seconds = time.perf_counter() - begun
    if seen.seconds is None:
        raise StageError(f"{tokens} tokens are too few steps of {name!r} to time any: set --tokens higher")
    return seen, seconds

"""What every training shares: loading a student, with Unsloth on a GPU and plain elsewhere, training it, saving it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import util
from pathlib import Path

from distil.models.student import base_of
from distil.models.weights import resolve
from distil.train.errors import explained, last_checkpoint
from distil.train.log import watch, write_log
from distil.workspace.environment import choose_dtype, give_memory_back, quiet
from distil.workspace.errors import StageError
from distil.workspace.files import write_text

LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
METHODS = ("full", "lora", "qlora")


def processes() -> int:
    """How many processes train together: what `accelerate launch` says, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1))


def sharded() -> bool:
    """Do the processes share the weights between them (FSDP), by what `accelerate launch` says?"""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def backend() -> str:
    """`unsloth` where one process trains on a GPU and it is installed, else `trl`."""
    import torch

    return "unsloth" if processes() == 1 and torch.cuda.is_available() and util.find_spec("unsloth") else "trl"


def prepare_backend(compiler: bool) -> str:
    """The `backend`'s name; Unsloth is imported, before transformers and trl, which it patches.

    Its `compiler` pays in long trainings only.
    """
    chosen = backend()
    if chosen == "unsloth":
        if not compiler:
            os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "1")
        # it would start a pool of processes for each map over each set, seconds each; ours are small
        os.environ.setdefault("UNSLOTH_DATASET_NUM_PROC", "0")
        import unsloth  # noqa: F401
    return chosen


def load_for_training(model: str, method: str, max_length: int, seed: int, checkpointing: bool = False):
    """A model to train: with a fresh LoRA adapter (`lora`, `qlora`), or whole but for its embeddings (`full`).

    `checkpointing` has Unsloth compute each layer again on the way back; elsewhere the trainer's arguments say so.
    """
    import torch

    if method not in METHODS:
        raise StageError(f"method {method!r}: use one of {', '.join(METHODS)}")
    give_memory_back()
    folder = resolve(model)
    if backend() == "unsloth":
        from unsloth import FastLanguageModel

        again = "unsloth" if checkpointing else False  # its own kind, by default always on
        student, _ = FastLanguageModel.from_pretrained(
            folder,
            max_seq_length=max_length,
            load_in_4bit=method == "qlora",
            full_finetuning=method == "full",
            dtype=choose_dtype()[0],
            use_gradient_checkpointing=again,
        )
        if method != "full":
            student = FastLanguageModel.get_peft_model(
                student, target_modules=TARGETS, random_state=seed, use_gradient_checkpointing=again, **LORA
            )
        return student
    from transformers import AutoModelForCausalLM

    if method == "qlora":
        raise StageError("method 'qlora' needs one GPU, unsloth and bitsandbytes: use 'lora' or 'full' here")
    frozen = method == "lora" and torch.cuda.is_available()  # then half the memory will do; the adapter is float32
    student = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype()[0] if frozen else torch.float32)
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        return get_peft_model(student, LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **LORA))
    student.get_input_embeddings().weight.requires_grad_(False)  # a fifth of the model, and these words are known
    return student


def load_student_for_training(folder: str, max_length: int | None = None):
    """A student of stage 04, to be trained further: its adapter if it has one, else the whole model.

    With `max_length`, an adapter is loaded through Unsloth where that is the backend. TRL keeps a copy of a given
    adapter as the reference, so the adapter saved afterwards still fits the same base.
    """
    import torch

    give_memory_back()
    base = base_of(folder)
    if base and max_length and backend() == "unsloth":
        return load_adapter_with_unsloth(folder, base, max_length)
    from transformers import AutoModelForCausalLM

    if base is None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.get_input_embeddings().weight.requires_grad_(False)
        return model
    from peft import PeftModel

    whole = AutoModelForCausalLM.from_pretrained(resolve(base), dtype=torch.float32)
    model = PeftModel.from_pretrained(whole, folder, is_trainable=True)
    model.peft_config["default"].base_model_name_or_path = resolve(base)  # else each checkpoint asks the Hub about it
    return model


def load_adapter_with_unsloth(folder: str, base: str, max_length: int):
    """The adapter in `folder` on its base. Unsloth finds the base through the adapter's own file, so it is given a copy
    of the adapter that names the base where it lies here."""
    from unsloth import FastLanguageModel

    with tempfile.TemporaryDirectory() as scratch:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(Path(folder) / name, scratch)
        config = Path(scratch) / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": resolve(base)}))
        model, _ = FastLanguageModel.from_pretrained(
            scratch, max_seq_length=max_length, load_in_4bit=False, dtype=choose_dtype()[0]
        )
    return model


def save_student(trainer, out: Path, base: str | None) -> None:
    """Save the trained weights or adapter. An adapter names its base by `base`, never by a path of this machine."""
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PeftModel) or trainer.is_fsdp_enabled:
        trainer.save_model(str(out))  # gathers what lies on several GPUs
        name_base(out, base)
        return
    if not trainer.is_world_process_zero():
        return
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    # the embeddings are the base's own; "auto" would ask the Hub whether they are
    model.save_pretrained(str(out), selected_adapters=["default"], save_embedding_layers=False)


def name_base(out: Path, base: str | None) -> None:
    """Write `base` into the adapter in `out`, if there is one."""
    config = out / "adapter_config.json"
    if config.exists():
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}, indent=1))


def trainer_arguments(out: Path, steps: int, learning_rate: float, seed: int) -> dict:
    """What every trainer here is told alike: precision, schedule, checkpoints, and no logger that asks questions."""
    import torch

    dtype, _ = choose_dtype()
    return {
        "output_dir": str(out / "checkpoints"),
        "learning_rate": learning_rate,
        "seed": seed,
        "data_seed": seed,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "optim": "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",  # not Unsloth's 8-bit one
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": max(1, steps // 40),
        "save_strategy": "steps",
        "save_steps": max(1, -(-steps // 4)),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": quiet(),
        "gradient_checkpointing": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def on_one_gpu(config):
    """The trainer's arguments, for a process that trains on one GPU though it sees several.

    The trainer would split every batch over all of them, in threads (DataParallel), and multiply the rows of a step.
    Several GPUs take a process each, by `accelerate launch`.
    """
    config._n_gpu = min(config.n_gpu, 1)  # as transformers does itself where a model lies on several GPUs
    return config


def train(trainer, out: Path, request: dict, base: str | None, done: Path) -> list[dict]:
    """Train, from the last complete checkpoint of the same `request` if there is one; returns the log.

    The student, its tokenizer and the log (`log.csv`) go to `out`. Checkpoints of another request (other settings,
    other rows) are removed first, all of them when it is done. `done` is the file by which a finished student is known:
    it is removed before the student in `out` is written over. Raises StageError if memory or disk do not suffice.
    """
    from transformers import PrinterCallback

    if quiet():
        trainer.remove_callback(PrinterCallback)  # it would print a line a step; log.csv has them
    trainer.add_callback(watch())
    checkpoints = Path(trainer.args.output_dir)
    asked = checkpoints / "request.json"
    if trainer.is_world_process_zero() and not (asked.exists() and json.loads(asked.read_text()) == request):
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoints.mkdir(parents=True)
        write_text(asked, json.dumps(request))
    trainer.accelerator.wait_for_everyone()
    with explained(checkpoints):
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
        log = trainer.state.log_history
        done.unlink(missing_ok=True)
        save_student(trainer, out, base)
        if trainer.is_world_process_zero():
            trainer.processing_class.save_pretrained(out)
            write_log(log, out / "log.csv")
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return log

"""The model that is trained: its backend (Unsloth on a GPU, plain TRL elsewhere), how it is loaded and saved."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import util
from pathlib import Path

from distil.models.student import base_of
from distil.models.templates import stop_ids
from distil.models.weights import resolve
from distil.train import attention
from distil.workspace.environment import choose_dtype, give_memory_back
from distil.workspace.errors import StageError
from distil.workspace.files import write_text

LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0}  # where nothing is said
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
METHODS = ("full", "lora", "qlora")
BACKENDS = ("packed", "unsloth", "trl")
# families whose output is the last hidden state times the output matrix, and nothing else
PACKED_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def world_size() -> int:
    """How many processes train together: what `accelerate launch` says, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1))


def uses_fsdp() -> bool:
    """Do the processes share the weights between them (FSDP), by what `accelerate launch` says?"""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def backend(student: str | None = None, method: str = "") -> str:
    """What trains: `packed`, `unsloth` or `trl`.

    `packed` (`distil.train.packed_trainer`) fine-tunes a `student` by `method` where `why_not_packed` has nothing
    against it. Else `unsloth` where one process trains on a GPU and it is installed, else `trl`. $DISTIL_BACKEND may
    name `unsloth` or `trl` to go past the first. Raises StageError for another value of it.
    """
    import torch

    wanted = os.environ.get("DISTIL_BACKEND", "")
    if wanted not in ("", *BACKENDS):
        raise StageError(f"DISTIL_BACKEND={wanted!r}: use one of {', '.join(BACKENDS)}, or none")
    if student and wanted in ("", "packed") and why_not_packed(student, method) is None:
        return "packed"
    alone = world_size() == 1 and torch.cuda.is_available()
    return "unsloth" if wanted != "trl" and alone and util.find_spec("unsloth") else "trl"


def why_not_packed(student: str, method: str) -> str | None:
    """Why `packed` cannot fine-tune a student here; None if it can."""
    if why := attention.missing():
        return why
    if world_size() > 1:
        return "several processes train together"
    if method == "qlora":
        return "weights of 4 bits are Unsloth's"
    kind = model_type(student)
    return None if kind in PACKED_FAMILIES else f"models of type {kind} are not known to it"


def model_type(student: str) -> str:
    """The architecture's name, from the model's config.json; transformers is not imported for it."""
    folder = resolve(base_of(student) or student)
    file = Path(folder) / "config.json"
    if not file.exists():
        from huggingface_hub import hf_hub_download

        file = Path(hf_hub_download(folder, "config.json"))
    return json.loads(file.read_text(encoding="utf-8"))["model_type"]


def prepare_backend(compiler: bool, student: str | None = None, method: str = "") -> str:
    """Import Unsloth if it is the backend, and return the `backend`'s name.

    Call this before transformers and trl are imported: Unsloth patches both. Its `compiler` pays off in long trainings
    only.
    """
    chosen = backend(student, method)
    if chosen == "unsloth":
        if not compiler:
            os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "1")
        # it would start a pool of processes for each map over each set, seconds each; ours are small
        os.environ.setdefault("UNSLOTH_DATASET_NUM_PROC", "0")
        import unsloth  # noqa: F401
    return chosen


def load_for_training(
    model: str,
    method: str,
    *,
    max_length: int,
    seed: int,
    gradient_checkpointing: bool = False,
    lora_rank: int = LORA["r"],
    lora_alpha: int = LORA["lora_alpha"],
):
    """A model to train: with a fresh LoRA adapter (`lora`, `qlora`), or whole but for its embeddings (`full`).

    What is trained is the same with every backend. `gradient_checkpointing` is for Unsloth alone; plain TRL takes it
    from the trainer's arguments. Raises StageError for an unknown method, or for `qlora` without Unsloth.
    """
    import torch

    if method not in METHODS:
        raise StageError(f"method {method!r}: use one of {', '.join(METHODS)}")
    give_memory_back()
    folder, adapter = resolve(model), LORA | {"r": lora_rank, "lora_alpha": lora_alpha}
    chosen = backend(model, method)
    if chosen == "unsloth":
        from unsloth import FastLanguageModel

        recompute = "unsloth" if gradient_checkpointing else False  # its own kind, by default always on
        student, _ = FastLanguageModel.from_pretrained(
            folder,
            max_seq_length=max_length,
            load_in_4bit=method == "qlora",
            full_finetuning=method == "full",
            dtype=choose_dtype()[0],
            use_gradient_checkpointing=recompute,
        )
        if method != "full":
            return FastLanguageModel.get_peft_model(
                student, target_modules=TARGETS, random_state=seed, use_gradient_checkpointing=recompute, **adapter
            )
        freeze_embeddings(student)
        student.enable_input_require_grads()  # its checkpointing passes on no gradient where none comes in
        return student
    from transformers import AutoModelForCausalLM

    if method == "qlora":
        raise StageError("method 'qlora' needs one GPU, unsloth and bitsandbytes: use 'lora' or 'full' here")
    if chosen == "packed":
        attention.register()
    frozen = method == "lora" and torch.cuda.is_available()  # then half the memory will do; the adapter is float32
    student = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=choose_dtype()[0] if frozen else torch.float32,
        attn_implementation=attention.NAME if chosen == "packed" else None,
    )
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        return get_peft_model(student, LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **adapter))
    freeze_embeddings(student)
    return student


def freeze_embeddings(model) -> None:
    """Leave the table of token embeddings as it is, and an output layer that shares it: these words are known.

    Of a small model it is a fifth of the weights or more, of one with 7 billion a fourteenth.
    """
    model.get_input_embeddings().weight.requires_grad_(False)


def trained_weights(model) -> int:
    """How many weights a training changes."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def load_student_for_training(folder: str, max_length: int | None = None, packed: bool = False):
    """A student of stage 04, to be trained further: its adapter if it has one, else the whole model.

    With `max_length`, an adapter is loaded through Unsloth where that is the backend; if `packed`, it attends to packed
    rows. TRL copies a given adapter as the reference of preference training; the adapter saved afterwards still fits
    the same base.
    """
    import torch

    give_memory_back()
    base = base_of(folder)
    if base and max_length and backend() == "unsloth":
        return load_adapter_with_unsloth(folder, base, max_length)
    from transformers import AutoModelForCausalLM

    if packed:
        attention.register()
    how = {"dtype": torch.float32, "attn_implementation": attention.NAME if packed else None}
    if base is None:
        model = AutoModelForCausalLM.from_pretrained(folder, **how)
        freeze_embeddings(model)
        return model
    from peft import PeftModel

    whole = AutoModelForCausalLM.from_pretrained(resolve(base), **how)  # an adapter is merged, and unmerged, exactly
    model = PeftModel.from_pretrained(whole, folder, is_trainable=True)
    model.peft_config["default"].base_model_name_or_path = resolve(base)  # else each checkpoint asks the Hub about it
    return model


def load_adapter_with_unsloth(folder: str, base: str, max_length: int):
    """The adapter in `folder` on its base.

    Unsloth finds the base through the adapter's own file. So it gets a copy that names the base's folder here.
    """
    from unsloth import FastLanguageModel

    with tempfile.TemporaryDirectory() as scratch:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(Path(folder) / name, scratch)
        name_base(Path(scratch), resolve(base))
        model, _ = FastLanguageModel.from_pretrained(
            scratch, max_seq_length=max_length, load_in_4bit=False, dtype=choose_dtype()[0]
        )
    return model


def save_student(trainer, out: Path, base: str | None) -> None:
    """Save the trained weights or adapter. An adapter names its base by `base`, never by a path of this machine."""
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if base and trainer.is_world_process_zero():
        save_ends(model, trainer.processing_class, base, out)
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


def save_ends(model, tokenizer, base: str, out: Path) -> None:
    """Write the tokens that end an adapter's answers beside it, where the tokenizer of its base names another one.

    Whole models have them in their generation_config.json anyway.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer, GenerationConfig

    (out / "generation_config.json").unlink(missing_ok=True)  # of another request, perhaps
    if isinstance(model, PeftModel) and AutoTokenizer.from_pretrained(resolve(base)).eos_token != tokenizer.eos_token:
        ends = {"eos_token_id": stop_ids(model, tokenizer), "pad_token_id": tokenizer.pad_token_id}
        GenerationConfig(**ends).save_pretrained(out)


def name_base(out: Path, base: str | None) -> None:
    """Write `base` into the adapter in `out`, if there is one."""
    config = out / "adapter_config.json"
    if config.exists():
        settings = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
        write_text(config, json.dumps(settings, indent=1))

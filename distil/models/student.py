"""Student models: how they are loaded, and how they answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.models import formats
from distil.models.grouped_heads import grouped_heads
from distil.models.templates import prompt_text, settle_special_tokens, stop_ids
from distil.models.weights import resolve
from distil.workspace.environment import choose_dtype
from distil.workspace.files import digest, local, sha256

TOP_P = 0.95  # of every sampled answer, as in `distil.llm.cache.request`
BLOCK = 24  # tokens written between two looks at which answers of a batch are finished


@dataclass(frozen=True)
class Generated:
    """One answer of a student."""

    text: str
    n_tokens: int  # with the end token
    finish_reason: str  # stop, or length where it was cut off
    seconds: float | None  # wall time of its batch over the answers in it; None where it is not known


def load_tokenizer(folder: str, student_format: str = ""):
    """The tokenizer of a student, padding on the left as batched generation needs.

    Its chat template is pinned to `student_format`, by default the one that the student in the folder was taught. Its
    end token is the one that ends an answer there.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    formats.pin(tokenizer, student_format or formats.format_in(folder))
    tokenizer.padding_side = "left"
    tokenizer.clean_up_tokenization_spaces = False  # an answer is decoded as it was written
    settle_special_tokens(tokenizer)
    return tokenizer


def base_of(folder: str) -> str | None:
    """The model that the adapter in `folder` belongs to, by its Hub id; None if the folder holds a whole model."""
    adapter = Path(folder) / "adapter_config.json"
    return json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.exists() else None


def identity(model: str) -> str:
    """Which weights these are: of a folder a digest of what it holds, and of its base if that is one; else the name.

    Files are read whole, once in a process: a copy of a folder is the same model, and new weights are another one.
    """
    folder = local(model)
    if folder is None or not folder.is_dir():
        return model
    base, found = base_of(str(folder)), sha256(folder)
    return digest(found, identity(base)) if base and identity(base) != base else found


def load(folder: str):
    """A model ready to answer, on the GPU if there is one. An adapter folder is loaded on top of its base, merged."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype, _ = choose_dtype()
    base = base_of(folder)
    model = AutoModelForCausalLM.from_pretrained(resolve(base) if base else folder, dtype=dtype)
    if base:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def encode_prompt(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of a chat up to where the student begins to write: the same in training and in every measurement.

    An assistant turn at the end is left open: the student goes on from its last word.
    """
    begun = ""
    if messages[-1]["role"] == "assistant":
        *messages, last = messages
        begun = last["content"].removeprefix(formats.opened(tokenizer))
    ids = tokenizer(prompt_text(tokenizer, messages), add_special_tokens=False)["input_ids"]
    return ids + tokenizer(begun, add_special_tokens=False)["input_ids"]


def stream(model, tokenizer, messages: list[dict], max_new_tokens: int) -> None:
    """Print a student's greedy answer to chat messages word by word, as it is written."""
    from transformers import TextStreamer

    inputs = tokenizer.pad({"input_ids": [encode_prompt(tokenizer, messages)]}, return_tensors="pt")
    model.generate(
        **inputs.to(model.device),
        **sampling(0.0),
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )


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

        def batch_select_indices(self, indices):
            self.room = tuple(room[indices] for room in self.room)
            self.keys, self.values = (room[:, :, : self.length] for room in self.room)

    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache


def sampling(temperature: float) -> dict:
    """All settings of sampling, so that none is taken from the model's own generation_config.json."""
    if temperature > 0:
        return {"do_sample": True, "temperature": temperature, "top_p": TOP_P, "top_k": 0, "repetition_penalty": 1.0}
    return {"do_sample": False, "repetition_penalty": 1.0}


def generate(
    model,
    tokenizer,
    prompts: Sequence[list[dict]],
    max_new_tokens: int,
    batch_size: int,
    *,
    temperature: float = 0.0,
    until: Callable[[str], bool] | None = None,
) -> Iterator[list[Generated]]:
    """Answer chat prompts, batch by batch, in order.

    An answer stops at its end token, or has the finish reason `length` where `max_new_tokens` was reached first.
    `until` is told what an answer says so far, now and then, and may end it; that counts as `length`.
    """
    settings, opened, ends = sampling(temperature), formats.opened(tokenizer), stop_ids(model, tokenizer)
    settings |= {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}

    def ended(answers: list[list[int]]) -> list[bool]:
        return [bool(until and until(text)) for text in tokenizer.batch_decode(answers)]

    for start in range(0, len(prompts), batch_size):
        ids = [encode_prompt(tokenizer, p) for p in prompts[start : start + batch_size]]
        batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        begun = time.perf_counter()
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        written = write(model, tokens, mask, ends, max_new_tokens, settings, ended if until else None)
        seconds = (time.perf_counter() - begun) / len(ids)
        rows = []
        for answer in written:
            text = formats.whole(opened, tokenizer.decode(answer, skip_special_tokens=True).strip())
            reason = "stop" if answer and answer[-1] in ends else "length"
            rows.append(Generated(text, len(answer), reason, round(seconds, 6)))
        yield rows


def write(
    model,
    tokens,
    mask,
    ends: Sequence[int],
    max_new_tokens: int,
    settings: dict,
    ended: Callable[[list[list[int]]], list[bool]] | None = None,
) -> list[list[int]]:
    """The ids that a model writes after each row of `tokens`, with its end token (`ends`) if it came to one.

    `tokens` and `mask` are (rows, columns), padded on the left. `settings` are those of transformers' `generate`.
    `ended` is shown all rows that go on, every `BLOCK` tokens, and may end some.
    """
    import torch

    width, of_ends = tokens.shape[1], torch.tensor(ends, device=tokens.device)
    active, cache, written = torch.arange(len(tokens)), growing_cache(), [[] for _ in tokens]
    with torch.inference_mode(), grouped_heads(model):
        while len(active) and tokens.shape[1] - width < max_new_tokens:
            tokens = model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=min(BLOCK, max_new_tokens - (tokens.shape[1] - width)),
                past_key_values=cache,
                **settings,
            )
            answers = tokens[:, width:].tolist()
            for row, answer in zip(active.tolist(), answers, strict=True):
                written[row] = answer
            writing = ~torch.isin(tokens[:, width:], of_ends).any(dim=1)
            if ended:
                writing &= ~torch.tensor(ended(answers), device=writing.device)
            going = writing.nonzero()[:, 0]
            if len(going) < len(active):  # finished answers leave the batch, so that they cost nothing more
                cache.batch_select_indices(going)
            active, tokens, mask = active[going.cpu()], tokens[going], mask[going]
            mask = torch.nn.functional.pad(mask, (0, tokens.shape[1] - mask.shape[1]), value=1)
    places = [next((place for place, token in enumerate(answer) if token in ends), len(answer)) for answer in written]
    return [answer[: place + 1] for answer, place in zip(written, places, strict=True)]

"""What trainers share whose student writes answers while it learns: what writes them, in what memory and time."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import util
from typing import Any

from distil.models.student import write
from distil.train import memory
from distil.workspace.environment import choose_dtype, quiet

VLLM_GIB, VLLM_SHARE = 6, 1 / 3  # what vLLM gets beside the weights; and of a GPU's free memory at most


def engine() -> str:
    """What writes the answers: `vllm`, in this process, if there is a GPU and it is installed; else `transformers`."""
    import torch

    return "vllm" if torch.cuda.is_available() and util.find_spec("vllm") else "transformers"


def vllm_gib(student: str) -> float:
    """GiB that vLLM may take: its copy of the weights and what writing needs, but at most a third of what is free.

    It must be told: it takes all that it is given, whatever the size of the GPU.
    """
    weights = memory.weights_gib(*memory.base_and_method(student))
    return min(VLLM_SHARE * memory.this_machine().gib, weights + VLLM_GIB)


def engine_settings(student: str, longest: int, end: int) -> tuple[dict[str, Any], float]:
    """(what a config of TRL's is told of `engine`, GiB that writing takes: of a GPU, or on a CPU for `merged_copy`).

    Prompt and answer have `longest` tokens at most; `end` is the token that ends an answer, which vLLM's own reading of
    the base may not know.
    """
    import torch

    if not torch.cuda.is_available():
        return {}, memory.weights_gib(*memory.base_and_method(student))
    if engine() != "vllm":
        return {}, 0.0
    gib = vllm_gib(student)
    settings = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": longest,
                "vllm_gpu_memory_utilization": gib / memory.gpu_gib(),
                "generation_kwargs": {"stop_token_ids": [end]}}  # fmt: skip
    return settings, gib


def write_with_a_copy(model) -> None:
    """Let a model that is to be trained on a CPU write with a `merged_copy` of itself, made anew each time.

    A trainer would write with an adapter beside the weights, all in float32, and finished answers would go on costing
    time.
    """
    import torch

    if torch.cuda.is_available():  # it lies on the CPU still, and will be moved
        return

    def generate(input_ids, attention_mask, generation_config, **_):
        ends, most = generation_config.eos_token_id, generation_config.max_new_tokens
        settings = {"generation_config": generation_config}
        written = write(merged_copy(model), input_ids, attention_mask, ends, most, settings)
        answers = [torch.tensor(ids) for ids in written]
        padded = torch.nn.utils.rnn.pad_sequence(answers, True, generation_config.pad_token_id)
        return torch.cat([input_ids, padded], dim=1)

    model.generate = generate


def merged_copy(model):
    """The model with its LoRA adapter merged, to write with, in the dtype that this machine computes in.

    No weight is copied in another dtype first. Buffers stay as they are: those of positions are not to be rounded.
    """
    import torch

    dtype, made = choose_dtype()[0], {}
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "get_delta_weight"):
                weight = layer.get_base_layer().weight
                whole = weight + sum(layer.get_delta_weight(name) for name in layer.active_adapters)
                made[id(weight)] = torch.nn.Parameter(whole.to(dtype), requires_grad=False)
        for weight in model.parameters():
            if id(weight) not in made:
                made[id(weight)] = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    copied = copy.deepcopy(model, made)
    copied.__dict__.pop("generate", None)
    return (copied.unload() if hasattr(copied, "unload") else copied).eval()


class TimedWriting:
    """A trainer of TRL's, named after this class among the bases, counts the tokens it writes, and the seconds."""

    written, writing_s = 0, 0.0

    def _generate_single_turn(self, *args, **kwargs):
        begun = time.perf_counter()
        found = super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]
        self.writing_s += time.perf_counter() - begun
        ids = found[0] if isinstance(found, tuple) else found  # GRPO's has log probabilities beside the ids
        self.written += sum(map(len, ids))
        return found


@contextmanager
def without_bars() -> Iterator[None]:
    """In a batch run, discard what goes to stderr: vLLM always draws its bars. Exceptions come through."""
    if not quiet():
        yield
        return
    nowhere = open(os.devnull, "w", encoding="utf-8")  # left open: a logger made meanwhile may keep it
    with redirect_stderr(nowhere):
        yield

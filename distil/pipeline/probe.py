"""How fast this machine trains, writes and reads with a model of a given shape, by some seconds of each.

python -m distil.pipeline.probe '{"model_type": "llama", ...}'
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from distil.models.grouped_heads import grouped_heads
from distil.workspace.environment import choose_dtype

SECONDS = 1.5  # of each kind of work; less than the whole answer of a slow machine
ROWS, LENGTH = 2, 160  # of a step, tokens: about what rows of the profile `cpu` have
WRITING, TOKENS = 32, 4  # answers at once, tokens of each
PATIENCE = 60  # seconds until a machine counts as too slow to be measured


def speeds(config: dict) -> dict[str, float]:
    """Tokens a second that are trained on, written and read: {train, write, read}; empty on a GPU.

    A process of its own measures, which gives its memory back before the run needs it. Empty, too, where it fails: an
    estimate is no reason not to run.
    """
    command = [sys.executable, "-m", "distil.pipeline.probe", json.dumps(config)]
    environment = {**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}  # as the kernels have
    try:
        told = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=True
        )
        return json.loads(told.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}


def rate(work: Callable[[], int]) -> float:
    """Tokens a second of `work`, which returns its tokens. The first time, slower, counts only if it is the last."""
    begun = time.perf_counter()
    tokens = work()
    if (spent := time.perf_counter() - begun) > SECONDS:
        return round(tokens / spent, 2)
    begun, tokens = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < SECONDS:
        tokens += work()
    return round(tokens / spent, 2)


def work_of(config: dict) -> dict[str, Callable[[], int]]:
    """{train, write, read}: a piece of each kind of work, which returns its tokens. Random weights take as long."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.cache_utils import DynamicCache

    dtype = choose_dtype()[0]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    model.requires_grad_(False)  # an adapter's own gradients are few
    writer, cache = copy.deepcopy(model).to(dtype), DynamicCache()
    ids = torch.ones((ROWS, LENGTH), dtype=torch.long)

    def train() -> int:
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            model(inputs_embeds=embedded, labels=ids).loss.backward()
        return ids.numel()

    @torch.inference_mode()
    def write() -> int:
        with grouped_heads(writer):
            for _ in range(TOKENS):
                writer(input_ids=ids[:1, :1].expand(WRITING, 1), past_key_values=cache)
        cache.crop(LENGTH)
        return WRITING * TOKENS

    @torch.inference_mode()
    def read() -> int:
        model.model(input_ids=ids)
        return ids.numel()

    with torch.inference_mode():
        writer(input_ids=ids[:1].expand(WRITING, LENGTH), past_key_values=cache, logits_to_keep=1)
    return {"train": train, "write": write, "read": read}


def measured(config: dict) -> dict[str, float]:
    """What `speeds` returns, measured in this process."""
    import torch

    if torch.cuda.is_available():
        return {}
    return {kind: rate(work) for kind, work in work_of(config).items()}


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))

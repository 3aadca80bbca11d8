"""What a training will take of memory: an estimate by its parts, and how a step is cut up so that it fits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distil.models.student import base_of
from distil.models.weights import resolve
from distil.train.model import LORA, TARGETS, backend, uses_fsdp, world_size
from distil.train.packing import CHUNK, divided, tokens_of
from distil.workspace.errors import StageError

GIB = 2**30
ADAM = 4 + 8  # bytes a trained weight: its gradient, and Adam's two moments, in float32
SAVED = 16, 8  # bytes a token that a layer keeps for its way back: a hidden unit, and one of the wider middle
ENOUGH_TOKENS = 4096  # in a micro batch, by our choice: with fewer, layers are computed again to make room for more
# with TRL a logit's copy in float32 and the gradient of that, too. TRL's distillation on the student's own answers has
# both models' logits (2 and 2), in float32 (4 and 4), their logarithms (4 and 4), the loss and the entropy (12), and
# the gradients of the student's (14): counted in its code, not yet held against a measured peak
BYTES_PER_LOGIT = {"unsloth": 2, "trl": 10, "packed": 10, "distillation": 46}
AT_A_TIME = {"packed": CHUNK, "distillation": 256}  # tokens whose logits lie in memory at a time; else all
MARGIN = 0.9  # of a GPU's memory; the rest is for what no estimate sees
FLOORS = {"cpu": 1.0, "cuda": 0.0}  # GiB that the process takes with nothing loaded; a GPU's context is not counted


@dataclass(frozen=True)
class Machine:
    """Where a training runs."""

    device: str  # cpu or cuda
    backend: str  # packed, unsloth, trl or distillation
    gib: float = 0.0  # that the training may take of one GPU
    shards: int = 1  # GPUs that share the weights between them (FSDP)


def this_machine(student: str | None = None, method: str = "") -> Machine:
    """This machine, with what others leave of its GPU: a teacher may be served on it; at most what torch may take.

    Several processes must cut a step up alike. So they go by the whole size of a GPU, which is the same for all. The
    backend is the one that fine-tunes `student` by `method`, if they are named.
    """
    import torch

    if not torch.cuda.is_available():
        return Machine("cpu", "trl")
    gib = gpu_gib()
    if world_size() == 1:
        ours = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # kept by torch, and free to be used again
        allowed = torch.cuda.get_per_process_memory_fraction() * gib  # all of it, unless it was limited
        gib = min((torch.cuda.mem_get_info()[0] + ours) / GIB, allowed)
    return Machine("cuda", backend(student, method), gib, world_size() if uses_fsdp() else 1)


def limit_memory(share: float) -> None:
    """Let torch take so much of the GPU at most, for which trainings are then planned. Raises StageError."""
    import torch

    if not 0 < share <= 1:
        raise StageError(f"memory share {share}: give a part of the GPU, above 0 and at most 1")
    if share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def gpu_gib() -> float:
    """GiB of the GPU, free or not."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB


@dataclass(frozen=True)
class Plan:
    """How a step goes through a GPU: a micro batch after the other, their gradients added up."""

    micro_batch_size: int  # rows, a divisor of those of the step
    gradient_checkpointing: bool  # are a layer's activations computed again on the way back?
    parts: dict[str, float]  # GiB, of `estimate`


def plan(
    student: str,
    method: str,
    *,
    batch_size: int,
    longest: int,
    machine: Machine | None = None,
    bytes_per_logit: int | None = None,
    lora_rank: int = LORA["r"],
) -> Plan:
    """The largest micro batch that `estimate` fits into a GPU, of a step of rows of at most `longest` tokens.

    Without checkpointing if `ENOUGH_TOKENS`, or all rows, fit so. A CPU takes all rows at once. Raises StageError if
    not even one row fits.
    """
    machine = machine or this_machine()

    def parts_of(size: int, gradient_checkpointing: bool) -> dict[str, float]:
        return estimate(
            student,
            method,
            micro_batch_size=size,
            max_length=longest,
            machine=machine,
            gradient_checkpointing=gradient_checkpointing,
            bytes_per_logit=bytes_per_logit,
            lora_rank=lora_rank,
        )

    if machine.device == "cpu":
        return Plan(batch_size, False, parts_of(batch_size, False))
    room = MARGIN * machine.gib
    divisors = sorted((n for n in range(1, batch_size + 1) if batch_size % n == 0), reverse=True)
    for gradient_checkpointing in (False, True):
        for size in divisors:
            parts = parts_of(size, gradient_checkpointing)
            enough = size * longest >= min(ENOUGH_TOKENS, batch_size * longest)
            if parts["total"] <= room and (gradient_checkpointing or enough):
                return Plan(size, gradient_checkpointing, parts)
    raise StageError(no_room(student, method, longest, parts["total"], room))


@dataclass(frozen=True)
class PackedPlan:
    """How packed steps go through a GPU."""

    parts: int  # micro batches a step
    gradient_checkpointing: bool
    memory: dict[str, float]  # GiB, of `estimate`


def plan_packed(
    student: str,
    method: str,
    steps: Sequence[Sequence[dict]],
    *,
    longest: int,
    lora_rank: int,
    machine: Machine | None = None,
) -> PackedPlan:
    """The fewest micro batches a step that fit into a GPU, of steps of encoded rows.

    A micro batch has room for a row of `longest` tokens, which may be one that is only looked at.

    Without checkpointing if micro batches of `ENOUGH_TOKENS`, or a row each, fit so. Raises StageError if not even a
    row at a time fits.
    """
    machine = machine or this_machine(student, method)
    room = MARGIN * machine.gib if machine.device == "cuda" else math.inf
    most_rows = max(len(rows) for rows in steps)
    for gradient_checkpointing in (False, True):
        parts = 1
        while True:
            tokens = max(longest, *(tokens_of(part) for rows in steps for part in divided(rows, parts)))
            memory = estimate(
                student,
                method,
                micro_batch_size=1,
                max_length=tokens,
                machine=machine,
                gradient_checkpointing=gradient_checkpointing,
                lora_rank=lora_rank,
            )
            if memory["total"] <= room:
                return PackedPlan(parts, gradient_checkpointing, memory)
            if parts >= most_rows or (tokens <= ENOUGH_TOKENS and not gradient_checkpointing):
                break
            parts = min(parts + max(1, parts // 4), most_rows)
    raise StageError(no_room(student, method, tokens, memory["total"], room))


def no_room(student: str, method: str, tokens: int, needed: float, room: float) -> str:
    """What to say of a training that does not fit."""
    return (
        f"training {student} by {method} with a row of {tokens} tokens takes about {needed} GiB, and this GPU has room "
        f"for {room:.1f}: take shorter rows (max_length, max_completion), or choose "
        + ("a smaller student" if method == "qlora" else "method='qlora' or a smaller student")
    )


def plan_further(
    student: str,
    *,
    batch_size: int,
    longest: int,
    taken: float = 0.0,
    bytes_per_logit: int | None = None,
    backend: str = "trl",
) -> Plan:
    """The `plan` of training the student in a folder further, where `taken` GiB of a GPU are not for it.

    `backend` is `trl`, `packed` or `distillation`. Raises StageError as `plan` does.
    """
    machine, (model, method) = replace(this_machine(), backend=backend), base_and_method(student)
    if machine.device == "cuda":
        # the base of an adapter lies in float32 then, twice of what the estimate takes it for
        doubled = weights_gib(model, method) if method == "lora" else 0.0
        machine = replace(machine, gib=machine.gib - taken - doubled)
    return plan(
        model,
        method,
        batch_size=batch_size,
        longest=longest,
        machine=machine,
        bytes_per_logit=bytes_per_logit,
        lora_rank=rank_of(student),
    )


def base_and_method(student: str) -> tuple[str, str]:
    """(the model, lora or full) of the student in a folder, as `estimate` asks for them."""
    base = base_of(student)
    return (base, "lora") if base else (student, "full")


def rank_of(folder: str) -> int:
    """The rank of the adapter in a folder; the usual one for a whole model, which has none."""
    file = Path(folder) / "adapter_config.json"
    return json.loads(file.read_text(encoding="utf-8"))["r"] if file.exists() else LORA["r"]


def weights_gib(model: str, method: str = "lora") -> float:
    """GiB of a model's weights on this machine, as `estimate` counts them for a method."""
    return estimate(model, method, micro_batch_size=1, max_length=1, machine=this_machine())["weights"]


def estimate(
    student: str,
    method: str,
    *,
    micro_batch_size: int,
    max_length: int,
    machine: Machine,
    gradient_checkpointing: bool = False,
    bytes_per_logit: int | None = None,
    lora_rank: int = LORA["r"],
) -> dict[str, float]:
    """GiB that `sft` takes at its peak, by part: weights, training, activations, logits, process, total.

    A micro batch has rows of at most `max_length` tokens. Activations are what Korthikanti et al. 2022 (arXiv
    2205.05198, section 4.1) count for a layer at 16 bits, with two changes. Dropout and the attention matrix are left
    out: no kernel here keeps them. Four products of the middle's width are counted, since these models gate it. With
    checkpointing only each layer's input is kept, and one layer at a time is computed again. Logits take
    `bytes_per_logit` a token and word of the vocabulary, by default those of `BYTES_PER_LOGIT`.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(resolve(student))
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    linear = [m for name, m in model.named_modules() if name.rpartition(".")[2] in TARGETS]
    all_weights = sum(p.numel() for p in model.parameters())
    in_linear = sum(m.weight.numel() for m in linear)
    adapter = sum(lora_rank * sum(m.weight.shape) for m in linear)
    embedded = model.get_input_embeddings().weight.numel()
    if method == "full":
        weights, trained = 4 * all_weights, all_weights - embedded
    elif method == "qlora":
        # 4 bits a weight, and for each 64 of them a scale of 32 bits
        weights, trained = 0.5625 * in_linear + 2 * (all_weights - in_linear) + 4 * adapter, adapter
    else:
        weights, trained = (2 if machine.device == "cuda" else 4) * all_weights + 4 * adapter, adapter
    tokens, layers = micro_batch_size * max_length, config.num_hidden_layers
    at_a_time = min(tokens, AT_A_TIME.get(machine.backend, tokens))  # that have logits
    one = SAVED[0] * config.hidden_size + SAVED[1] * config.intermediate_size
    kept = 2 * config.hidden_size * layers + one if gradient_checkpointing else one * layers
    parts = {
        "weights": weights / machine.shards / GIB,
        "training": ADAM * trained / machine.shards / GIB,
        "activations": tokens * kept / GIB,
        "logits": at_a_time * config.vocab_size * (bytes_per_logit or BYTES_PER_LOGIT[machine.backend]) / GIB,
        "process": FLOORS[machine.device],
    }
    return {name: round(value, 2) for name, value in (parts | {"total": sum(parts.values())}).items()}

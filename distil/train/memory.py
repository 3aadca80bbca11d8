"""What a training will take of memory: an estimate by its parts, and how a step is cut up so that it fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distil.models.student import base_of
from distil.models.weights import resolve
from distil.train.common import LORA, TARGETS, backend, processes, sharded
from distil.workspace.errors import StageError

GIB = 2**30
ADAM = 4 + 8  # bytes a trained weight: its gradient, and Adam's two moments, in float32
SAVED = 16, 8  # bytes a token that a layer keeps for its way back: a hidden unit, and one of the wider middle
ENOUGH = 4096  # tokens at once, by our choice: with fewer, layers are computed again to make room for more
# bytes a token's score of one word takes: with TRL its copy in float32 and the gradient of that, too
SCORES = {"unsloth": 2, "trl": 10}
MARGIN = 0.9  # of a GPU's memory; the rest is for what no estimate sees
FLOORS = {"cpu": 1.0, "cuda": 0.0}  # GiB that the process takes with nothing loaded; a GPU's context is not counted


@dataclass(frozen=True)
class Machine:
    """Where a training runs: `place` (cpu or cuda), `backend` (unsloth or trl), GiB that it may take of one GPU, and
    how many GPUs share the weights between them."""

    place: str
    backend: str
    gib: float = 0.0
    sharers: int = 1


def here() -> Machine:
    """This machine, with what others leave of its GPU: a teacher may be served on it.

    Several processes must cut a step up alike, so that they go by the size of a GPU, which all see alike.
    """
    import torch

    if not torch.cuda.is_available():
        return Machine("cpu", "trl")
    gib = whole_gpu()
    if processes() == 1:
        ours = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # kept by torch, and free to be used again
        gib = (torch.cuda.mem_get_info()[0] + ours) / GIB
    return Machine("cuda", backend(), gib, processes() if sharded() else 1)


def whole_gpu() -> float:
    """GiB of the GPU, free or not."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB


@dataclass(frozen=True)
class Plan:
    """How a step goes through a GPU: `at_once` rows together, a divisor of its rows; the others follow, and their
    gradients are added up. With `checkpointing` a layer's insides are computed again on the way back. `parts`: GiB."""

    at_once: int
    checkpointing: bool
    parts: dict[str, float]


def plan(
    student: str, method: str, rows: int, longest: int, machine: Machine | None = None, scores: int | None = None
) -> Plan:
    """As many of a step's `rows`, the longest of `longest` tokens, at once as a GPU's memory allows by `estimate`.

    Without checkpointing if `ENOUGH` tokens, or all rows, fit so. On a CPU all rows. Raises StageError if there is no
    way.
    """
    machine = machine or here()
    if machine.place == "cpu":
        return Plan(rows, False, estimate(student, method, rows, longest, machine, scores=scores))
    room, parts_of_step = MARGIN * machine.gib, sorted((n for n in range(1, rows + 1) if rows % n == 0), reverse=True)
    for checkpointing in (False, True):
        for at_once in parts_of_step:
            parts = estimate(student, method, at_once, longest, machine, checkpointing, scores)
            if parts["total"] <= room and (checkpointing or at_once * longest >= min(ENOUGH, rows * longest)):
                return Plan(at_once, checkpointing, parts)
    raise StageError(
        f"training {student} by {method} with a row of {longest} tokens takes about {parts['total']} GiB, and this GPU "
        f"has room for {room:.1f}: take shorter rows (max_length, max_completion), or choose "
        + ("a smaller student" if method == "qlora" else "method='qlora' or a smaller student")
    )


def plan_further(student: str, rows: int, longest: int, taken: float = 0.0, scores: int | None = None) -> Plan:
    """The `plan` of training the student in a folder further, through TRL, where `taken` GiB of a GPU are not for it.

    Raises StageError as `plan` does.
    """
    machine, (model, method) = replace(here(), backend="trl"), trained_how(student)
    if machine.place == "cuda":
        # the base of an adapter lies in float32 then, twice of what the estimate takes it for
        doubled = estimate(model, method, 1, 1, machine)["weights"] if method == "lora" else 0.0
        machine = replace(machine, gib=machine.gib - taken - doubled)
    return plan(model, method, rows, longest, machine, scores)


def trained_how(student: str) -> tuple[str, str]:
    """(the model, lora or full) of the student in a folder, as `estimate` asks for them."""
    base = base_of(student)
    return (base, "lora") if base else (student, "full")


def estimate(
    student: str,
    method: str,
    rows: int,
    max_length: int,
    machine: Machine,
    checkpointing: bool = False,
    scores: int | None = None,
) -> dict[str, float]:
    """GiB that `finetune.sft` takes at its peak, by part: weights, training, activations, logits, process, total.

    `rows` at once of at most `max_length` tokens each. Activations: what Korthikanti et al. 2022 (arXiv 2205.05198,
    section 4.1) count for a layer at 16 bits, without dropout and the attention matrix, which no kernel here keeps, and
    with four products of the middle's width, since these models gate it; with checkpointing only each layer's input,
    and one layer at a time is computed again. Logits: `scores` bytes a token and word, by default those of `SCORES`.
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
    adapter = sum(LORA["r"] * sum(m.weight.shape) for m in linear)
    embedded = model.get_input_embeddings().weight.numel()
    if method == "full":
        weights, trained = 4 * all_weights, all_weights - embedded
    elif method == "qlora":
        # 4 bits a weight, and for each 64 of them a scale of 32 bits
        weights, trained = 0.5625 * in_linear + 2 * (all_weights - in_linear) + 4 * adapter, adapter
    else:
        weights, trained = (2 if machine.place == "cuda" else 4) * all_weights + 4 * adapter, adapter
    tokens, layers = rows * max_length, config.num_hidden_layers
    one = SAVED[0] * config.hidden_size + SAVED[1] * config.intermediate_size
    kept = 2 * config.hidden_size * layers + one if checkpointing else one * layers
    parts = {
        "weights": weights / machine.sharers / GIB,
        "training": ADAM * trained / machine.sharers / GIB,
        "activations": tokens * kept / GIB,
        "logits": tokens * config.vocab_size * (scores or SCORES[machine.backend]) / GIB,
        "process": FLOORS[machine.place],
    }
    return {name: round(value, 2) for name, value in (parts | {"total": sum(parts.values())}).items()}

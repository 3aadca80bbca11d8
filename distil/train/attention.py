"""Attention within the rows of a packed batch: PyTorch's kernel for rows of varying length, no package beside it."""

from __future__ import annotations

NAME = "packed_rows"  # under which transformers knows it
OLDEST = (8, 0)  # compute capability: FlashAttention wants Ampere or newer


def missing() -> str | None:
    """Why the kernel cannot be used on this machine; None if it can."""
    import torch

    if not torch.cuda.is_available():
        return "there is no GPU"
    if torch.cuda.get_device_capability() < OLDEST:
        return f"{torch.cuda.get_device_name()} is older than Ampere"
    return None if importable() else f"torch {torch.__version__} has no torch.nn.attention.varlen"


def importable() -> bool:
    """Does this torch have the kernel?"""
    from importlib import util

    return util.find_spec("torch.nn.attention.varlen") is not None


def in_use(backend: str, why_not: str | None) -> str:
    """Which kernel the rows of a training are attended to with, in a line; `why_not` says why they are not packed."""
    from importlib import util

    if backend == "packed":
        return "rows are packed; attention by PyTorch's own kernel for rows of varying length"
    if backend == "unsloth":
        found = next((name for name in ("flash_attn", "xformers") if util.find_spec(name)), None)
        return f"rows are not packed here ({why_not}); Unsloth attends with {found or 'what torch has'}"
    return f"rows are padded ({why_not}); attention as transformers has it"


def register() -> None:
    """Make the function known to transformers as `NAME`; such a model builds no mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)


def no_mask(*_, **__) -> None:
    """The boundaries of rows say what a mask would."""


def attend(module, query, key, value, attention_mask, *, starts, longest, scaling=None, sliding_window=None, **_):
    """Causal attention within each row, in the form that transformers calls.

    query is (1, heads, tokens, size), key and value have as many heads or fewer; `starts` (rows + 1, int32) says where
    each row begins, `longest` how many tokens a row has at most. Returns ((1, tokens, heads, size), None).
    """
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if q.is_cuda:
        return on_gpu(q, k, v, starts, longest, scaling, sliding_window)[None], None
    return row_by_row(q, k, v, starts, scaling, sliding_window)[None], None


def on_gpu(q, k, v, starts, longest, scaling, sliding_window):
    """The kernel itself; all are (tokens, heads, size).

    It takes 16 bits only. With weights in float32, autocast leaves queries and keys in float32 and values in 16 bits.
    """
    import torch
    from torch.nn.attention.varlen import varlen_attn

    dtype = v.dtype if v.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    q, k, v = (states.to(dtype) for states in (q, k, v))
    k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
    window = (sliding_window - 1 if sliding_window else -1, 0)
    return varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=window)


def row_by_row(q, k, v, starts, scaling, sliding_window):
    """The same without the kernel, a row after the other: slow, for a CPU."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
    rows = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if begin == end:
            continue
        of_row = [states[begin:end].transpose(0, 1) for states in (q, k, v)]
        mask = torch.ones(end - begin, end - begin, dtype=torch.bool, device=q.device).tril()
        if sliding_window:
            mask = mask.triu(1 - sliding_window)
        rows.append(scaled_dot_product_attention(*of_row, attn_mask=mask, scale=scaling).transpose(0, 1))
    return torch.cat(rows)

"""Attention of the token that is being written, on a CPU, where several heads share their keys.

transformers copies the keys and values of all that was written before, once for each of the heads that share them, for
every token. Here these heads ask as if they were positions of one head: nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NAME = "grouped_heads"  # under which transformers knows it


@contextmanager
def grouped_heads(model) -> Iterator[None]:
    """Let a model write this way meanwhile, if it is on a CPU and would use PyTorch's own attention."""
    changeable = getattr(model, "_can_set_attn_implementation", lambda: True)
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa" or not changeable():
        yield
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def mask(*args, dtype, **how):
    """The mask of PyTorch's attention; that of a single position as what is added, else each layer would make it so."""
    import torch
    from transformers.masking_utils import sdpa_mask

    seen = sdpa_mask(*args, dtype=dtype, **how)
    if seen is None or seen.shape[-2] > 1:
        return seen
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **how):
    """Attention in the form that transformers calls; returns ((rows, positions, heads, size), None).

    query is (rows, heads, positions, size), key and value (rows, groups, past, size), attention_mask (rows or 1, 1,
    positions, past) or None. More positions than one are read as transformers does it: there the copy costs little. So
    is what has a mask or a bias for each head.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, positions, size = query.shape
    groups = key.shape[1]
    by_head = how.get("position_bias") is not None or (attention_mask is not None and attention_mask.shape[1] > 1)
    if positions > 1 or groups == heads or dropout or by_head:
        how |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **how)
    asked = query.view(rows, groups, heads // groups, size)
    found = scaled_dot_product_attention(asked, key, value, attn_mask=attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, -1), None

"""Rotary positions: queries and keys rotated at any positions, also at different ones in each row."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Rotary", "rotary_of"]


class Rotary(NamedTuple):
    """The rotation at each position.

    Attributes:
        cos: `[position, rotary_dim]`.
        sin: the same.
        adjacent: whether a pair is two neighbouring dimensions (GPT-J); otherwise one of each half.
    """

    cos: Tensor
    sin: Tensor
    adjacent: bool

    def rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """`x [..., head, d_head]`, its first dimensions rotated by `positions`, which broadcasts to `x.shape[:-2]`."""
        width = self.cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        if self.adjacent:
            across = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
        else:
            first, second = turned.chunk(2, -1)
            across = torch.cat([-second, first], -1)
        cos, sin = (table[positions][..., None, :] for table in (self.cos, self.sin))
        return torch.cat([turned * cos + across * sin, rest], -1)


def rotary_of(attention: Any, length: int) -> Rotary:
    """The rotation of a HookedTransformer's attention, for prompts of this length."""
    if len(attention.rotary_cos) < length:  # TransformerLens makes the tables longer when it needs to
        like = attention.rotary_cos
        attention.apply_rotary(like.new_zeros(1, 1, 1, attention.cfg.d_head), length - 1)
    return Rotary(attention.rotary_cos, attention.rotary_sin, attention.cfg.rotary_adjacent_pairs)


def rotary_of_bridge(model: Any, layer: int, length: int) -> Rotary:
    """The rotation in a layer of a Bridge, for prompts of this length.

    From the model's rotary module, or from the tables of GPT-J's attention or of TransformerLens' own layers.
    """
    attention: Any = model.blocks[layer].attn
    like = attention.q.original_component.weight
    shared, inner = getattr(model, "rotary_emb", None), attention.original_component
    if shared is not None:
        cos, sin = shared.original_component(like, torch.arange(length, device=like.device)[None])
        return Rotary(cos[0], sin[0], False)
    if hasattr(inner, "embed_positions"):
        both = inner.embed_positions[:length].to(like)
        sin, cos = (each.repeat_interleave(2, -1) for each in both.chunk(2, -1))
        return Rotary(cos, sin, True)
    return Rotary(inner.rotary.cos_cached[:length].to(like), inner.rotary.sin_cached[:length].to(like), True)

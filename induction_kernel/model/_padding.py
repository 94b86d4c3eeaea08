"""Padding hidden from attention: prompts are padded on the right, and attention that is not causal gets a mask.

Causal attention never sees padding on the right. How a mask is applied depends on the class: a `TransformerBridge`
takes one as an argument; in a `HookedTransformer` or `HookedEncoder` a hook masks the attention scores.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import Refused
from ._anatomy import (
    Hook,
    Model,
    describe,
    device_of,
    forward,
    full_precision,
    hook_name,
    is_bridge,
    no_left_padding,
    sizes,
)
from ._self_check import foreign_hooks, is_causal, loose, made_of

__all__ = ["hidden_padding"]

_HIDES: WeakKeyDictionary[Any, tuple[int, bool]] = WeakKeyDictionary()


def hidden_padding(model: Model, tokens: Tensor, lengths: Tensor | None) -> tuple[dict[str, Any], list[Hook]]:
    """The arguments and hooks of a forward pass over these tokens that keep padding from being attended to.

    Args:
        model: the model to run.
        tokens: `[prompt, position]`, padded on the right.
        lengths: `[prompt]`; None if nothing is padded.

    Raises:
        Refused: prompts of unequal lengths, for a model from which padding cannot be hidden.
    """
    padded = lengths is not None and bool((lengths < tokens.shape[1]).any())
    if lengths is None or not padded or is_causal(model):
        return no_left_padding(model, tokens), []
    if not _hides(model):
        said = describe(model)
        raise Refused(
            f"{said['model_class']} {said['model']} attends to later tokens and ignores masks, so it would attend to "
            f"padding: wanted prompts of one length, got {sorted(set(lengths.tolist()))}; run those of each length "
            "separately"
        )
    return _masked(model, tokens, lengths)


def _masked(model: Model, tokens: Tensor, lengths: Tensor) -> tuple[dict[str, Any], list[Hook]]:
    """The arguments and hooks that mask padding in this model."""
    real = torch.arange(tokens.shape[1]) < lengths.cpu()[:, None]
    if is_bridge(model):
        return {"attention_mask": real.long().to(device_of(model))}, []

    def hide(scores: Tensor, hook: Any) -> Tensor:
        cells = scores.unflatten(0, (-1, len(real)))  # blocks may be run on several copies of the prompts
        return cells.masked_fill(~real[:, None, None].to(scores.device), -torch.inf).flatten(0, 1)

    hooks = [(hook_name("attn_scores", layer), hide) for layer in range(sizes(model).n_layers)]
    return no_left_padding(model, tokens), hooks


def _hides(model: Model) -> bool:
    """Whether a masked prompt gives the same logits as unpadded; not tested while the user's hooks are on the model."""
    parts = made_of(model)
    known, hides = _HIDES.get(model, (None, True))
    if known == parts or foreign_hooks(model):
        return hides
    size = sizes(model)
    tokens = torch.linspace(0, size.d_vocab - 1, min(6, size.n_ctx)).long().repeat(2, 1)
    length = len(tokens[0]) // 2
    arguments, hooks = _masked(model, tokens, torch.tensor([length, len(tokens[0])]))
    alone = full_precision(forward(model, tokens[:1, :length]))
    padded = full_precision(forward(model, tokens, hooks, arguments=arguments))[:1, :length]
    _HIDES[model] = parts, not bool(((alone - padded).abs() > loose(model) * (1 + alone.abs().max())).any())
    return _HIDES[model][1]

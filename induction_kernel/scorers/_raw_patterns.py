"""Whole attention patterns of chosen heads, and the norms of what their values write."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..heads._names import Head, HeadLike, some_heads
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._runs import stream
from ..model._self_check import foreign_hooks
from ..model._weights import value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ._pattern_entries import attends, check_sound

__all__ = ["patterns"]


def patterns(model: Model, prompts: Any, heads: HeadLike | Iterable[HeadLike]) -> xr.Dataset:
    """The attention patterns of chosen heads on every prompt, whole.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes.
        heads: the heads, at least one.

    Returns:
        Dataset with `pattern[prompt, choice, query, key]` (probability; 0 in padding) and `value_norm[prompt, choice,
        key]`, the norm of v W_O without the bias (and without its mean where LayerNorms read the stream), with
        coordinates `name`, `layer` and `head` of each choice, `token[prompt, query]` (text) and `length[prompt]`.

    Raises:
        Refused: no heads, or heads the model does not have; attention that is not finite.
    """
    size, ready = sizes(model), as_prompts(model, prompts)
    chosen = some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    n, length = ready.tokens.shape
    pattern = np.zeros((n, len(chosen), length, length), dtype=np.float32)
    norms = np.zeros((n, len(chosen), length), dtype=np.float32)
    broken, edited = set[int](), bool(foreign_hooks(model))

    def read(site: str, layer: int, activation: Tensor) -> None:
        at = [i for i, head in enumerate(chosen) if head.layer == layer]
        index = [chosen[i].head for i in at]
        if site == "pattern":
            pattern[:, at] = activation[:, index].float().cpu().numpy()
            if not attends(activation, ready.lengths, edited=edited):
                broken.add(layer)
            return
        _, b_v, w_o = value_weights(model, layer)
        values = full_precision(per_query_head(activation, size.n_heads, 2)[:, :, index])
        written = torch.einsum("bphd,hdm->bhpm", values - b_v[index].to(values), w_o[index].to(values))
        norms[:, at] = written.norm(dim=-1).cpu().numpy()

    needed = {head.layer for head in chosen}
    stream(model, ready.tokens, read, {"pattern": needed, "v": needed}, lengths=ready.lengths)
    check_sound(broken)
    return _labelled(model, ready, chosen, pattern, norms)


def _labelled(
    model: Model, ready: Prompts, chosen: list[Head], pattern: np.ndarray, norms: np.ndarray
) -> xr.Dataset:
    """Patterns `[prompt, choice, query, key]` and norms `[prompt, choice, key]` as a Dataset, 0 in padding."""
    length = ready.tokens.shape[1]
    real = (torch.arange(length) < ready.lengths[:, None]).numpy()
    strings = [row + [""] * (length - len(row)) for row in ready.strings(model)]
    return xr.Dataset(
        {
            "pattern": (
                ("prompt", "choice", "query", "key"),
                pattern * (real[:, None, :, None] & real[:, None, None, :]),
            ),
            "value_norm": (("prompt", "choice", "key"), norms * real[:, None]),
        },
        coords={
            "name": ("choice", [str(head) for head in chosen]),
            "layer": ("choice", [head.layer for head in chosen]),
            "head": ("choice", [head.head for head in chosen]),
            "token": (("prompt", "query"), np.array(strings)),
            "length": ("prompt", ready.lengths.numpy()),
        },
        attrs={"method": "patterns", "unit": "probability", **measured_on(model, ready)},
    )

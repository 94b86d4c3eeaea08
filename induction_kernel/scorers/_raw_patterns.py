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

__all__ = ["patterns", "value_norms"]


def patterns(model: Model, prompts: Any, heads: HeadLike | Iterable[HeadLike] | None = None) -> xr.Dataset:
    """The attention patterns of chosen heads on every prompt, whole.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes.
        heads: the heads, at least one; None for all. All patterns are held in memory, 4 bytes for each pair of tokens,
            prompt and head: `explore` shows all heads of long prompts in less.

    Returns:
        Dataset with `pattern[prompt, choice, query, key]` (probability; 0 in padding) and `value_norm[prompt, choice,
        key]`, the norm of v W_O without the bias (and without its mean where LayerNorms read the stream), with
        coordinates `name`, `layer` and `head` of each choice, `token[prompt, query]` (text) and `length[prompt]`.

    Raises:
        Refused: no heads, or heads the model does not have; attention that is not finite.
    """
    size, ready = sizes(model), as_prompts(model, prompts)
    grid = {"n_layers": size.n_layers, "n_heads": size.n_heads}
    every = (Head(layer, head) for layer in range(size.n_layers) for head in range(size.n_heads))
    chosen = list(every) if heads is None else some_heads(heads, **grid)
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
        norms[:, at] = value_norms(model, layer, activation, index)

    needed = {head.layer for head in chosen}
    stream(model, ready.tokens, read, {"pattern": needed, "v": needed}, lengths=ready.lengths)
    check_sound(broken)
    return _labelled(model, ready, chosen, pattern, norms)


def value_norms(model: Model, layer: int, v: Tensor, heads: list[int] | None = None) -> np.ndarray:
    """Norms of what values write, |v W_O| without the bias, `[prompt, head, position]`.

    Args:
        model: whose values they are.
        layer: of these values.
        v: `[prompt, position, head, d_head]`, of query heads or of key-value heads.
        heads: only these; None for all.
    """
    _, b_v, w_o = value_weights(model, layer)
    chosen = list(range(len(w_o))) if heads is None else heads
    values = full_precision(per_query_head(v.detach(), sizes(model).n_heads, 2)[:, :, chosen])
    written = torch.einsum("bphd,hdm->bhpm", values - b_v[chosen].to(values), w_o[chosen].to(values))
    return written.norm(dim=-1).float().cpu().numpy()


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

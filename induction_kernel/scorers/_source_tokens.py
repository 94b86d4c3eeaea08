"""Direct effects of heads at every position that is read, and by source token: what each writes about each key.

A head's output at a query is the sum over keys of A[q, k] v_k W_O (Elhage et al. 2021), so its direct effect is a sum
over the tokens that it reads: the view of an induction head as one that copies. One layer's pattern is in memory at a
time. `_direct_effect` describes the measure, `_components` the parts that are not heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..heads._names import names_of
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._runs import progress_bar, stream
from ..model._weights import value_weights
from ..prompts._prompts import Prompts
from ._directions import (
    Pass,
    attributes,
    gathered,
    head_effects,
    not_finite,
    passes,
    prepared,
    texts,
    token_coordinates,
)

__all__ = ["by_token"]

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


def by_token(
    model: Model,
    ready: Prompts,
    on: str | None,
    *,
    dim: Literal["position", "key"],
    layers: Iterable[int] | None,
    batch_size: int | None,
    progress: bool,
) -> xr.Dataset:
    """`direct_effect` of heads at each position read, or by source token ("key"), averaged over the positions read.

    By source token there are two passes over the prompts: the first gives the final norm's scale, the second the
    patterns and values.

    Raises:
        As `direct_effect`.
    """
    on, wanted = prepared(model, ready, on, layers)
    split, times = (_at_keys, 2) if dim == "key" else (_at_positions, 1)
    cost = max(times * ready.tokens.shape[1] * sizes(model).n_heads, 8 * sizes(model).d_model)
    runs = times * (1 + (ready.control is not None))
    found: Variables = {}
    with progress_bar(len(ready) * runs, progress=progress, unit="run") as bar:
        for one in passes(model, ready, on, batch_size=batch_size, cost=cost):
            for name, (dims, values) in split(model, one, wanted, bar.update).items():
                if name not in found:
                    found[name] = dims, np.full((len(ready), *values.shape[1:]), np.nan)
                found[name][1][one.rows] = values
    return _dataset(model, ready, wanted, on, dim, found)


def _at_positions(model: Model, one: Pass, layers: list[int], done: Any) -> Variables:
    """What heads write at each position of the prompts of one pass."""
    scaled = head_effects(model, one, layers, done)[0].numpy()
    here = gathered(scaled, one.targets.prompt.numpy(), one.targets.position.numpy(), one.tokens.shape)
    not_finite([scaled])
    return {one.name: (("prompt", "layer", "head", "position"), here)}


def _at_keys(model: Model, one: Pass, layers: list[int], done: Any) -> Variables:
    """What heads write about each key, NaN at padding; beside the score what the keys' sum lacks of the effect."""
    scaled, scale, _ = head_effects(model, one, layers, done)
    keys = _sources(model, one, scale, layers, done)
    not_finite([keys])
    found: Variables = {}
    if one.name == "score":
        effect = gathered(scaled.double().numpy(), one.targets.prompt.numpy(), None, one.tokens.shape)
        found["missing"] = ("prompt", "layer", "head"), effect - keys.sum(-1)
    padding = (torch.arange(one.tokens.shape[1]) >= one.lengths[:, None]).numpy()
    keys = np.where(padding[:, None, None], np.nan, keys)
    return found | {one.name: (("prompt", "layer", "head", "key"), keys)}


def _sources(model: Model, one: Pass, scale: Tensor, layers: list[int], done: Any) -> np.ndarray:
    """`[prompt, layer, head, key]`: what heads write about each key, averaged over the entries of each prompt."""
    targets, n_heads = one.targets, sizes(model).n_heads
    weight = targets.weight[targets.prompt] / scale.double()
    values: dict[int, Tensor] = {}
    patterns: dict[int, Tensor] = {}
    parts: dict[int, Tensor] = {}

    def read(site: str, layer: int, activation: Tensor) -> None:
        (values if site == "v" else patterns)[layer] = activation.detach()
        if layer not in values or layer not in patterns:
            return
        pattern, v = patterns.pop(layer), values.pop(layer)
        _, b_v, w_o = value_weights(model, layer)
        w_o = full_precision(w_o)
        direction = targets.direction.to(w_o) * weight.to(w_o.dtype).to(w_o.device)[:, None]
        toward = torch.einsum("em,hdm->ehd", direction, w_o)
        moved = full_precision(per_query_head(v, n_heads, 2)) - b_v.to(full_precision(v))
        entries = [(targets.prompt == row).nonzero()[:, 0] for row in range(len(one.tokens))]
        found = [
            about_keys(
                pattern[row][:, targets.position[at].to(pattern.device)],
                moved[row],
                toward[at.to(toward.device)],
            )
            for row, at in enumerate(entries)
        ]
        parts[layer] = torch.stack(found)
        done(len(one.tokens) / len(layers))

    stream(model, one.tokens, read, {"v": set(layers), "pattern": set(layers)}, lengths=one.lengths)
    return torch.stack([parts[layer] for layer in layers], 1).numpy()


def about_keys(
    rows: Float[Tensor, "head entry key"],
    values: Float[Tensor, "key head d_head"],
    toward: Float[Tensor, "entry head d_head"],
) -> Float[Tensor, "head key"]:
    """What heads write about each key, along the entries' directions, summed over entries: one prompt, in float64.

    Args:
        rows: of the patterns, at the entries' positions.
        values: without their bias.
        toward: the direction of each entry, as each head's values reach it: W_O u.
    """
    written = torch.einsum("khd,ehd->hek", values, toward.to(values))
    return (full_precision(rows).to(written) * written).cpu().double().sum(1)


def _dataset(
    model: Model, ready: Prompts, layers: list[int], on: str, dim: str, found: Variables
) -> xr.Dataset:
    """The result, labelled."""
    heads = range(sizes(model).n_heads)
    return xr.Dataset(
        {**found, "chance": ("prompt", np.zeros(len(ready)))},
        coords={
            **token_coordinates(model, ready, on, dim),
            "layer": layers,
            "head": list(heads),
            "name": (("layer", "head"), names_of(layers, heads)),
            "text": ("prompt", texts(model, ready)),
        },
        attrs=attributes(model, ready, on, f"head, {dim}"),
    )

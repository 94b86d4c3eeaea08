"""Representations read inside a few-shot prompt: the residual stream, or every head's query and keys.

They are read at the last token and at the demonstrations. A head's kernel is exp<q, k> (Han et al. 2025, section 3):
the last token's query, divided by the head's scale, and a demonstration's key, both rotated if positions are rotary.
Every pass checks against the attention pattern that <q, k> is the attention score: log a_j - <q, k_j> must be the same
for all keys. Position biases, soft caps and windows violate this, and are refused. `representations` (in
`_representations`) is the public function; vectors of texts outside prompts are made there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import Refused
from ..heads._names import names_of
from ..model._anatomy import Model, full_precision, hook_name, per_query_head, sizes
from ..model._runs import batches, progress_bar, stream
from ..prompts._prompts import FewShotPrompts
from ..replay._layers import looseness
from ..scorers._labels import tokens_of
from ..scorers._streaming import chosen_layers

__all__ = ["POOLINGS", "heads_inside", "stream_inside"]

POOLINGS = ("max", "label")
Take = Callable[[int, Mapping[str, Tensor], FewShotPrompts], tuple[Tensor, Tensor]]


def stream_inside(
    model: Model,
    prompts: FewShotPrompts,
    *,
    layers: Iterable[int] | None,
    batch_size: int | None,
    progress: bool,
) -> xr.Dataset:
    """The residual stream that enters each layer, at the last token and at the labels; as in `representations`.

    Returns:
        Dataset with `queries[prompt, layer, feature]` and `demonstrations[prompt, layer, demonstration, feature]`.
    """

    def take(_: int, seen: Mapping[str, Tensor], batch: FewShotPrompts) -> tuple[Tensor, Tensor]:
        n, resid = torch.arange(len(batch)), seen["resid_pre"]
        labels = batch.demonstrations.label_positions
        return full_precision(resid[n, batch.lengths - 1].cpu()), full_precision(
            resid[n[:, None], labels].cpu()
        )

    wanted = chosen_layers(model, layers)
    q, k = _read(model, prompts, ("resid_pre",), take, wanted, batch_size, progress)
    return xr.Dataset(
        {
            "queries": (("prompt", "layer", "feature"), q),
            "demonstrations": (("prompt", "layer", "demonstration", "feature"), k),
        },
        coords={"layer": wanted},
    )


def heads_inside(
    model: Model,
    prompts: FewShotPrompts,
    pooling: str,
    span: str,
    *,
    layers: Iterable[int] | None,
    batch_size: int | None,
    progress: bool,
) -> xr.Dataset:
    """Every head's query at the last token and its keys in the demonstrations; arguments as in `representations`.

    Returns:
        Dataset with `queries[prompt, layer, head, feature]` and `demonstrations[prompt, layer, head, demonstration,
        feature]`, whose products <q, k> are attention scores.

    Raises:
        Refused: a layer whose attention scores are not <q, k>.
    """
    wanted = chosen_layers(model, layers)
    sites = _sites(model, prompts, wanted[0])

    def take(layer: int, seen: Mapping[str, Tensor], batch: FewShotPrompts) -> tuple[Tensor, Tensor]:
        last = torch.arange(len(batch)), batch.lengths - 1
        q, k, pattern = (full_precision(seen[site].cpu()) for site in (*sites, "pattern"))
        q, k, scores = _as_attended(model, layer, q, k, pattern.transpose(1, 2)[last], batch.lengths)
        places = _places(scores, batch, pooling, span)
        return q, k.transpose(1, 2).gather(2, places[..., None].expand(-1, -1, -1, k.shape[-1]))

    q, k = _read(model, prompts, (*sites, "pattern"), take, wanted, batch_size, progress)
    names = names_of(wanted, range(q.shape[2]))
    dims = ("prompt", "layer", "head")
    return xr.Dataset(
        {"queries": ((*dims, "feature"), q), "demonstrations": ((*dims, "demonstration", "feature"), k)},
        coords={"layer": wanted, "head": np.arange(q.shape[2]), "name": (("layer", "head"), names)},
    )


def _read(
    model: Model,
    prompts: FewShotPrompts,
    sites: tuple[str, ...],
    take: Take,
    wanted: list[int],
    batch_size: int | None,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Queries `[prompt, layer, ..., feature]` and demonstrations that `take` picks from each layer's activations.

    Demonstrations are `[prompt, layer, ..., demonstration, feature]`, NaN where a prompt has fewer.
    """
    size, length = sizes(model), prompts.tokens.shape[1]
    cost = max(8 * size.d_model, length * size.n_heads if "pattern" in sites else 0)
    parts = batches(len(prompts), length, batch_size=batch_size, cost=cost)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with progress_bar(len(prompts), progress=progress, unit="prompt") as bar:
        for rows in parts:
            seen: dict[str, Tensor] = {}
            taken: dict[int, tuple[Tensor, Tensor]] = {}

            def read(
                site: str,
                layer: int,
                values: Tensor,
                batch: FewShotPrompts = prompts[rows],
                seen: Any = seen,
                taken: Any = taken,
            ) -> None:
                seen[site] = values.detach()
                if len(seen) == len(sites):  # all activations of this layer are there
                    q, k = take(layer, seen, batch)
                    missing = ~batch.demonstrations.mask
                    missing = missing.reshape(len(missing), *[1] * (k.ndim - 3), -1, 1)
                    taken[layer] = q, k.masked_fill(missing, torch.nan)
                    seen.clear()
                    bar.update(len(batch) / len(wanted))

            of_sites = {site: set(wanted) for site in sites}
            stream(model, prompts.tokens[rows], read, of_sites, lengths=prompts.lengths[rows])
            q, k = (torch.stack([taken[layer][i] for layer in wanted], 1).numpy() for i in (0, 1))
            found.append((q, k))
    return np.concatenate([q for q, _ in found]), np.concatenate([k for _, k in found])


def _places(
    scores: Float[Tensor, "prompt head key"], batch: FewShotPrompts, pooling: str, span: str
) -> Int[Tensor, "prompt head demonstration"]:
    """The position of each demonstration's key: its label, or its token with the largest score; 0 where missing."""
    found = batch.demonstrations
    if pooling == "label":
        return found.label_positions[:, None].expand(-1, scores.shape[1], -1)
    inside = tokens_of(found, pooling, span, scores.shape[2])
    return scores[:, :, None].masked_fill(~inside[:, None], -torch.inf).argmax(-1)


def _sites(model: Model, prompts: FewShotPrompts, layer: int) -> tuple[str, str]:
    """The hooks of queries and keys: those after rotation, if the model has them."""
    if hook_name("rot_q", layer) in getattr(model, "hook_dict", {}):
        with suppress(RuntimeError):  # on some Bridges these hooks exist but never fire
            piece = prompts.tokens[:1, : int(prompts.lengths[0])]
            wanted = {"rot_q": {layer}, "rot_k": {layer}}
            stream(model, piece, lambda site, layer, values: None, wanted, lengths=None)
            return "rot_q", "rot_k"
    return "q", "k"


def _as_attended(
    model: Model, layer: int, q: Tensor, k: Tensor, pattern: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[prompt, head, feature]` and keys `[prompt, position, head, feature]` whose products are the scores.

    They are as the hooks give them or, if these are before rotation, rotated here.

    Args:
        model: gives heads and rotary parameters.
        layer: for error messages.
        q: `[prompt, position, head, feature]`.
        k: likewise, with fewer heads under grouped-query attention.
        pattern: `[prompt, head, key]`, the last token's attention.
        lengths: `[prompt]`.

    Returns:
        Queries, keys, and the scores `[prompt, head, key]`.

    Raises:
        Refused: no rotation makes the products the scores.
    """
    k, last = per_query_head(k, sizes(model).n_heads, 2), (torch.arange(len(q)), lengths - 1)
    allowed = (torch.arange(k.shape[1]) < lengths[:, None])[:, None]
    for turn in _turns(model, q.shape[1]):
        of_query, keys = turn(q)[last], turn(k)
        products = torch.einsum("phd,pkhd->phk", of_query, keys)
        slope = _slope(products, pattern, allowed, looseness(model))
        if slope is not None:
            return of_query * slope, keys, products * slope
    raise Refused(
        f"attention in layer {layer} is not exp<q, k> of the queries and keys this model shows: position biases, soft "
        "caps, windows shorter than the prompt, or rotated ones that are not shown: use another representation"
    )


def _slope(products: Tensor, pattern: Tensor, allowed: Tensor, loose: float) -> float | None:
    """The factor, one for all heads, by which the products are the scores that gave the pattern; None if there is none.

    Scores are known up to a constant for each query, as log attention. `loose` is the relative error allowed.
    """
    seen = allowed & (pattern > 0)
    logs = torch.where(seen, pattern, 1).log().double()
    x, y = (_less_mean(each.double(), seen) for each in (products, logs))
    square = float((x * x).sum())
    slope = float((x * y).sum()) / square if square > 0 else 1.0
    offset = (logs - slope * products).masked_fill(~seen, 0).sum(-1, keepdim=True) / seen.sum(
        -1, keepdim=True
    )
    expected = slope * products.double() + offset
    size = 1 + expected.abs().masked_fill(~seen, 0).max()
    right = bool(((logs - expected).abs() <= loose * size)[seen].all())
    lost = 0.9 * math.log(torch.finfo(pattern.dtype).tiny)  # below this, attention may be rounded to 0
    return slope if right and bool((expected < lost)[allowed & ~seen].all()) else None


def _less_mean(values: Tensor, seen: Tensor) -> Tensor:
    """Values less their mean over the keys that are `seen`; 0 at the others."""
    kept = values.masked_fill(~seen, 0)
    return (kept - kept.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)).masked_fill(~seen, 0)


def _turns(model: Model, length: int) -> list[Callable[[Tensor], Tensor]]:
    """Rotations to try on queries and keys: none and, if positions are rotary, both layouts of the rotated pairs."""
    cfg: Any = model.cfg
    if getattr(cfg, "positional_embedding_type", None) != "rotary":
        return [lambda each: each]
    given: Any = getattr(cfg, "rope_parameters", None) or {}
    dim = getattr(cfg, "rotary_dim", None) or int(
        sizes(model).d_head * given.get("partial_rotary_factor", 1.0)
    )
    base = given.get("rope_theta", getattr(cfg, "rotary_base", 10000))
    angle = torch.arange(length).double()[:, None] * base ** (-torch.arange(0, dim, 2).double() / dim)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]  # [position, 1, pair]

    def turned(each: Tensor, adjacent: bool) -> Tensor:
        pairs = each[..., :dim]
        a, b = (pairs[..., ::2], pairs[..., 1::2]) if adjacent else pairs.chunk(2, -1)
        c, s = cos.to(each), sin.to(each)
        return torch.cat([a * c - b * s, a * s + b * c, each[..., dim:]], -1)

    return [lambda each: each, lambda each: turned(each, True), lambda each: turned(each, False)]

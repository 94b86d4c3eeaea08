"""Composition scores: how much of what earlier heads write later heads read, by weights alone.

Elhage et al. 2021: |W_OV M| / (|W_OV| |M|) in Frobenius norms, where M is what the later head reads with: W_K W_Q^T
for its keys (K-composition), W_Q W_K^T for its queries, W_V W_O for its values. TransformerLens'
`all_composition_scores` is the same on processed weights, but holds every pair's product of d_model rows at once
(hundreds of GiB for 270 heads) and ignores the norms of raw weights; a test checks that the two agree. The scores do
not say what is passed on: see `_qk_trace`.
"""

from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import NotDefined, Refused
from ..heads._names import Head, names_of
from ..model._anatomy import Model, describe, sizes
from ..model._runs import progress_bar
from ..model._weights import check_weights, check_writing, query_key_weights, read_dimensions, value_weights

__all__ = ["composition"]

KINDS = {"k": "keys", "q": "queries", "v": "values"}


def composition(model: Model, *, by: Literal["k", "q", "v"] = "k", progress: bool = True) -> xr.Dataset:
    """How much of what each head writes is read by each later head: 0 if nothing, 1 at most.

    `head_map` draws it, senders by receivers; `summarise` and `top_heads` take each sender's largest score or, after
    `.sel(receiver="L1H0")`, its score with that receiver.

    Chance is exact: over random rotations of the residual stream between the two heads the mean of the squared score
    is 1 / d, where d is d_model (d_model - 1 if a LayerNorm removes the mean).

    Args:
        model: any TransformerLens model of at least two layers, whose attention writes to the residual stream with no
            norm in between.
        by: what the later head reads with: "k" for its keys, "q" for its queries, "v" for its values.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `score[layer, head, receiver]` in [0, 1], NaN where the receiver is not later; `chance`, the root
        of the mean square over rotations, and `spread[layer, head, receiver]`, the standard deviation over them (exact
        for the squared score, to first order for the score). `receiver` has names ("L1H7"), with
        `receiver_layer[receiver]` and `receiver_head[receiver]`; heads of layer 0 are none, as no head comes before
        them. Attribute `rotary`: with rotary positions, keys and
        queries are compared as they are before rotation.

    Raises:
        Refused: an unknown `by`. NotDefined: a model of one layer; a model that normalises what attention writes, or
            its queries and keys (not for "v").

    Source: Elhage et al. 2021, "Three kinds of composition".
    """
    if by not in KINDS:
        raise Refused(f'wanted by="k", "q" or "v", got {by!r}')
    size = sizes(model)
    layers = list(range(size.n_layers))
    if len(layers) < 2:
        raise NotDefined("wanted a model of at least two layers, got one: no head reads what another wrote")
    check_writing(model, layers)
    check_weights(model, layers)
    shape = (size.n_layers, size.n_heads, size.n_layers, size.n_heads)
    score, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    dimensions = read_dimensions(model, layers[1])
    pairs = len(layers) * (len(layers) - 1) // 2
    with progress_bar(pairs, progress=progress, unit="pair of layers") as bar:
        for receiver in layers[1:]:
            reads = _reads(model, receiver, by)
            for sender in layers[:receiver]:
                squared, deviation = _composed(_writes(model, sender), reads, dimensions)
                score[sender, :, receiver] = squared.sqrt().numpy()
                spread[sender, :, receiver] = deviation.numpy() * dimensions**0.5 / 2
                bar.update()
    return _labelled(model, by, score[:, :, 1:], spread[:, :, 1:], dimensions)


def _writes(model: Model, layer: int) -> Tensor:
    """`[head, d_head, d_model]` whose products have the same norms as those of W_V W_O: R of W_V = QR replaces W_V."""
    w_v, _, w_o = (weights.cpu().double() for weights in value_weights(model, layer))
    return _triangle(w_v) @ w_o


def _reads(model: Model, layer: int, by: str) -> Tensor:
    """`[head, d_model, d_head]` whose products from the left have the same norms as those of the reading matrix M."""
    if by == "v":
        w_v, _, w_o = (weights.cpu().double() for weights in value_weights(model, layer))
        return w_v @ _triangle(w_o.mT).mT
    w_q, w_k = (weights.cpu().double() for weights in query_key_weights(model, layer))
    read, other = (w_k, w_q) if by == "k" else (w_q, w_k)
    return read @ _triangle(other).mT


def _triangle(tall: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "head d_head d_head"]:
    """R of the QR decomposition: Q has orthonormal columns, which keep norms as they are."""
    return torch.linalg.qr(tall, mode="r")[1]


def _composed(
    writes: Float[Tensor, "sender d_head d_model"], reads: Float[Tensor, "receiver d_model d_head"], d: int
) -> tuple[Float[Tensor, "sender receiver"], Float[Tensor, "sender receiver"]]:
    """The squared score of every pair, and its standard deviation over random rotations between the two.

    With squared singular values a_i and b_j that sum to 1 it is sum_ij a_i b_j R_ij^2 for a rotation R: E[R_ij^4] =
    3 / (d (d + 2)), E[R_ij^2 R_il^2] = 1 / (d (d + 2)), E[R_ij^2 R_kl^2] = (d + 1) / (d (d - 1) (d + 2)).
    """
    writes = writes / writes.norm(dim=(1, 2), keepdim=True)
    reads = reads / reads.norm(dim=(1, 2), keepdim=True)
    squared = torch.stack([(each @ reads).square().sum((1, 2)) for each in writes])
    a = (writes @ writes.mT).square().sum((1, 2))[:, None]
    b = (reads.mT @ reads).square().sum((1, 2))[None]
    one_line, no_line = 1 / (d * (d + 2)), (d + 1) / (d * (d - 1) * (d + 2))
    second = 3 * one_line * a * b + one_line * (a + b - 2 * a * b) + no_line * (1 - a) * (1 - b)
    return squared, (second - 1 / d**2).clamp(min=0).sqrt()


def _labelled(model: Model, by: str, score: np.ndarray, spread: np.ndarray, dimensions: int) -> xr.Dataset:
    n_layers, n_heads = score.shape[:2]
    later = [Head(layer, head) for layer in range(1, n_layers) for head in range(n_heads)]
    names = names_of(range(n_layers), range(n_heads))
    rotary = getattr(model.cfg, "positional_embedding_type", None) == "rotary"
    dims = ("layer", "head", "receiver")
    return xr.Dataset(
        {
            "score": (dims, score.reshape(n_layers, n_heads, -1)),
            "spread": (dims, spread.reshape(n_layers, n_heads, -1)),
            "chance": dimensions**-0.5,
        },
        coords={
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
            "name": (("layer", "head"), names),
            "scorer": f"{by}_composition",
            "receiver": np.array([str(each) for each in later]),
            "receiver_layer": ("receiver", np.array([each.layer for each in later])),
            "receiver_head": ("receiver", np.array([each.head for each in later])),
        },
        attrs={
            "method": f"{by}_composition",
            "title": f"{by.upper()}-composition: what a head writes, read by the {KINDS[by]} of a later one",
            "unit": "ratio of norms, in [0, 1]",
            "paper": "Elhage et al. 2021",
            "norms": "folded",
            "rotary": "before rotation" if rotary and by != "v" else "none",
            **describe(model),
        },
    )

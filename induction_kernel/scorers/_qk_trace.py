"""The QK-trace: by its weights, whether a head looks for its own token among what previous-token heads wrote.

Olsson et al. 2022, argument 5: an induction head attends where the token *before* is its own. For a head h of a later
layer, W_h = sum_k p_k W_E W_Q^h W_K^hT (W_V^k W_O^k)^T W_E^T over the earlier heads k, each weighted with its
previous-token score p_k, is how much the token of the query raises attention to a key by the token before the key; its
trace is over pairs of the same token. Norms are folded in, so raw and processed weights agree. It does not cover other
routes to the key (smeared keys, several heads in a row) or what a head writes (`_ov`).
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed
from ..errors import NotDefined, Refused
from ..heads._names import names_of
from ..model._anatomy import Model, describe, hook_name, sizes
from ..model._runs import progress_bar
from ..model._weights import check_weights, check_writing, query_key_weights, token_embedding, value_weights
from ._attention import previous_token_on_text
from ._ov import rotations

__all__ = ["qk_trace"]


def qk_trace(
    model: Model, prompts: Any = None, *, draws: int | None = None, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Trace of the QK circuit through previous-token heads: above chance if a head looks for its own token.

    The trace of W_h (module docstring) over the vocabulary is that of the small matrices W_V^T W_E^T W_E W_Q W_K^T
    W_O^T (d_head x d_head). It is not normalised: compare heads of one model only.

    Args:
        model: any TransformerLens model of at least two layers, without rotary positions, whose attention writes to
            the residual stream with no norm in between.
        prompts: what the previous-token scores are measured on, anything `as_prompts` takes; None for the
            shipped prose (`ordinary_text`), or for random tokens if the model's tokenizer does not read English. The
            attribute `previous_token` says which.
        draws: random rotations of the earlier heads' circuits, for the null; None for 4,000 over all heads, but at
            least 50.
        seed: of the rotations; a local generator.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over the layers from 1: `score[layer, head]` (products of weights, any number),
        `null[draw, layer, head]` with a random rotation between W_V and W_O of every earlier head, which keeps the
        subspaces it reads from and writes to but not the map between them, and `chance[layer, head]`, the mean over all
        rotations: 0.

    Raises:
        Refused: draws below 1. NotDefined: a model of one layer; rotary positions, where what a key says depends on
            its distance; a model that normalises what attention writes, or its queries and keys.

    Source: Olsson et al. 2022, argument 5 (QK circuit of induction heads).
    """
    seed, size = checked_seed(seed), sizes(model)
    draws = max(50, 4000 // (size.n_layers * size.n_heads)) if draws is None else draws
    if draws < 1:
        raise Refused(f"wanted draws >= 1, got {draws}")
    check_positions(model)
    layers = list(range(size.n_layers))
    if len(layers) < 2:
        raise NotDefined("wanted a model of at least two layers, got one: no head reads what another wrote")
    check_writing(model, layers)
    check_weights(model, layers)
    previous = previous_token_on_text(model, prompts, progress=False)
    weight = previous["score"].mean("prompt").values
    score = np.zeros((size.n_layers, size.n_heads))
    null = np.zeros((draws, *score.shape))
    gram, generator = _gram(model), torch.Generator().manual_seed(seed)
    pairs = len(layers) * (len(layers) - 1) // 2
    with progress_bar(pairs, progress=progress, unit="pair of layers") as bar:
        for sender in layers[:-1]:
            w_v, _, w_o = (weights.cpu().double() for weights in value_weights(model, sender))
            shape = (draws * size.n_heads, size.d_head, size.d_head)
            turned = rotations(torch.randn(shape, generator=generator, dtype=torch.float64))
            turned = turned.unflatten(0, (draws, size.n_heads))
            p = torch.from_numpy(weight[sender]).double()
            for layer in layers[sender + 1 :]:
                w_q, w_k = (weights.cpu().double() for weights in query_key_weights(model, layer))
                inner = torch.einsum("kmi,mn,hnj->hkij", w_v, gram, w_q)
                inner = inner @ torch.einsum("kim,hmj->hkji", w_o, w_k)
                score[layer] += torch.einsum("k,hkii->h", p, inner).numpy()
                null[:, layer] += torch.einsum("k,dkij,hkij->dh", p, turned, inner).numpy()
                bar.update()
    out = _labelled(model, score[1:], null[:, 1:])
    return out.assign_attrs(previous_token=f"on {previous.attrs['text']}", seed=seed)


def check_positions(model: Model) -> None:
    """NotDefined where queries and keys are rotated by their positions."""
    rotary = getattr(model.cfg, "positional_embedding_type", None) == "rotary"
    if rotary or hook_name("rot_q", 0) in getattr(model, "hook_dict", {}):
        raise NotDefined(
            "queries and keys are rotated by their positions (rotary) in this model, so no single matrix says what a "
            "head looks for: score attention instead, e.g. with prefix_matching"
        )


def _gram(model: Model) -> Tensor:
    """W_E^T W_E `[d_model, d_model]` in float64, in blocks, so that the copies stay small."""
    embedded = token_embedding(model).detach()
    total = torch.zeros(embedded.shape[1], embedded.shape[1], dtype=torch.float64)
    for rows in embedded.split(4096):
        block = rows.cpu().double()
        total += block.T @ block
    return total


def _labelled(model: Model, score: np.ndarray, null: np.ndarray) -> xr.Dataset:
    layers, heads = range(1, len(score) + 1), range(score.shape[1])
    names = names_of(layers, heads)
    dims = ("layer", "head")
    return xr.Dataset(
        {"score": (dims, score), "chance": (dims, np.zeros_like(score)), "null": (("draw", *dims), null)},
        coords={
            "layer": list(layers),
            "head": list(heads),
            "draw": np.arange(len(null)),
            "name": (dims, names),
        },
        attrs={
            "method": "qk_trace",
            "title": "trace of the QK circuit by way of previous-token heads",
            "unit": "product of weights, of this model only",
            "paper": "Olsson et al. 2022, argument 5",
            "norms": "folded",
            **describe(model),
        },
    )

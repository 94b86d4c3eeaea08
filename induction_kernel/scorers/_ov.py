"""OV eigenvalues: copying by a head's weights alone, from the eigenvalues of W_E W_V W_O W_U.

Elhage et al. 2021 and Olsson et al. 2022: a circuit with positive eigenvalues raises the logits of the tokens it reads.
Norms are folded in, so raw and processed weights agree. Where a head attends is scored in `_attention`, copying in a
prompt in `_copying`.
"""

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from .._given import checked_seed
from ..errors import NotDefined, Refused
from ..heads._names import names_of
from ..model._anatomy import Model, describe, hook_name, sizes
from ..model._outputs import check_words
from ..model._runs import progress_bar, stream
from ..model._weights import check_weights, check_writing, token_embedding, unembedding, value_weights
from ._streaming import chosen_layers

__all__ = ["draws_of", "ov_eigenvalues", "rotations"]


def ov_eigenvalues(
    model: Model,
    *,
    embedding: str = "tokens",
    layers: Iterable[int] | None = None,
    draws: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Sum of the OV circuit's eigenvalues over the sum of their absolute values: 1 if all are positive.

    The nonzero eigenvalues of W_E W_V W_O W_U (vocabulary x vocabulary) are those of the small W_O W_U W_E W_V (d_head
    x d_head). The norms before attention and at the end are folded in, however the weights were processed. A value near
    1 is not specific to induction heads: 41% of SmolLM2-135M's 270 heads exceed .5, and 28% of the 57 that pass for
    prefix matching.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream with no norm in between.
        embedding: "tokens" for W_E, as it enters the residual stream (with Gemma's scale, BLOOM's norm);
            "effective" for that plus the output of block 0's MLP on it, which changes it much in models like GPT-2.
        layers: only these layers; None for all.
        draws: random rotations of each head's circuit, for chance and threshold; None for 4,000 over all heads, but at
            least 50 per head.
        seed: of the rotations; a local generator.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `score[layer, head]` in [-1, 1], `null[draw, layer, head]` (a random rotation between W_V
        and W_O) and `chance[layer, head]`, its mean.

    Raises:
        Refused: an unknown embedding, or draws below 1.
        NotDefined: "effective" without an MLP in block 0; a model that normalises what attention writes (Gemma 2 and
            3, OLMo 2 and 3) or has no final norm (OPT-350m), or whose outputs are not its tokens.

    Source: Elhage et al. 2021 and Olsson et al. 2022 (copying by eigenvalues).
    """
    wanted, size = chosen_layers(model, layers), sizes(model)
    draws = draws_of(len(wanted) * size.n_heads) if draws is None else draws
    if draws < 1:
        raise Refused(f"wanted draws >= 1, got {draws}")
    check_words(model, "ov_eigenvalues")
    check_writing(model, wanted)
    check_weights(model, wanted)
    generator = torch.Generator().manual_seed(checked_seed(seed))
    through = _through_vocabulary(model, embedding)
    score = np.zeros((len(wanted), size.n_heads))
    null = np.zeros((draws, *score.shape))
    with progress_bar(len(wanted), progress=progress) as bar:
        for i, layer in enumerate(wanted):
            w_v, _, w_o = (weights.cpu().double() for weights in value_weights(model, layer))
            circuit = w_o @ through @ w_v
            score[i] = _positive_share(circuit)
            for draw in range(draws):
                normal = torch.randn(
                    size.n_heads, size.d_head, size.d_head, generator=generator, dtype=torch.float64
                )
                null[draw, i] = _positive_share(circuit @ rotations(normal))
                bar.update(1 / draws)
    attrs = {"embedding": embedding, "norms": "folded", "seed": checked_seed(seed), **describe(model)}
    return _labelled(wanted, score, null).assign_attrs(attrs)


def draws_of(n_heads: int) -> int:
    """Random rotations of each of so many heads: 4,000 over all of them, but at least 50 for each."""
    return max(50, 4000 // n_heads)


def _labelled(layers: list[int], score: np.ndarray, null: np.ndarray) -> xr.Dataset:
    """Scores `[layer, head]` and their null `[draw, layer, head]` as a Dataset."""
    heads = range(score.shape[1])
    dims = ("layer", "head")
    return xr.Dataset(
        {"score": (dims, score), "chance": (dims, null.mean(0)), "null": (("draw", *dims), null)},
        coords={
            "layer": layers,
            "head": list(heads),
            "draw": np.arange(len(null)),
            "name": (dims, names_of(layers, heads)),
        },
        attrs={
            "method": "ov_eigenvalues",
            "title": "share of positive eigenvalues of the OV circuit",
            "unit": "ratio, in [-1, 1]",
            "paper": "Elhage et al. 2021; Olsson et al. 2022",
        },
    )


def rotations(normal: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, "head d_head d_head"]:
    """Uniformly distributed rotations from normal numbers; QR alone is not uniform (Mezzadri 2007)."""
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def _positive_share(circuit: Float[Tensor, "head d_head d_head"]) -> np.ndarray:
    """Sum of the eigenvalues' real parts over the sum of their absolute values, `[head]`."""
    values = torch.linalg.eigvals(circuit)
    return (values.real.sum(-1) / values.abs().sum(-1)).numpy()


def _through_vocabulary(model: Model, embedding: str) -> Tensor:
    """W_U W_E `[d_model, d_model]` in float64: from what a head writes, through the vocabulary, to what it reads."""
    embedded = token_embedding(model)
    if embedding == "effective":
        embedded = _effective_embedding(model, embedded)
    elif embedding != "tokens":
        raise Refused(f'wanted embedding "tokens" or "effective", got {embedding!r}')
    w_u = unembedding(model)
    n = min(len(embedded), w_u.shape[1])
    total = torch.zeros(w_u.shape[0], embedded.shape[1], dtype=torch.float64)
    for start in range(0, n, 4096):  # blocks, so that the float64 copies stay small
        rows = slice(start, min(start + 4096, n))
        total += w_u[:, rows].cpu().double() @ embedded[rows].cpu().double()
    return total


def _effective_embedding(model: Model, embedded: Tensor) -> Tensor:
    """The embedding plus the output of block 0's MLP on it, with attention's output set to zero."""
    if getattr(model.cfg, "attn_only", False):
        raise NotDefined(
            'wanted an MLP in block 0 for embedding="effective", this model has none: use "tokens"'
        )
    parts: list[Tensor] = []
    for ids in torch.arange(len(embedded)).split(4096):
        rows = embedded[ids.to(embedded.device)][:, None]
        hooks = [
            (hook_name("resid_pre", 0), lambda resid, hook, rows=rows: rows.to(resid)),
            (hook_name("attn_out", 0), lambda written, hook: torch.zeros_like(written)),
        ]
        stream(
            model,
            ids[:, None],
            lambda _, __, added: parts.append(added[:, 0].detach()),
            {"mlp_out": {0}},
            hooks,
            lengths=None,
        )
    return embedded + torch.cat(parts).to(embedded)

"""Does a head write what it attends to, in context? Copying scores, from the values of a prompt.

Two definitions are in use and never mixed: Olsson et al. 2022 and Bansal et al. 2022. Norms are folded in, so raw and
processed weights agree. A head that attends well need not copy well; neither shows an effect on the output. Copying
read off the weights alone is `ov`'s.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import Refused
from ..model import (
    Model,
    batches,
    check_weights,
    check_words,
    check_writing,
    foreign_hooks,
    full_precision,
    is_causal,
    per_query_head,
    progress_bar,
    sizes,
    stream,
    unembedding,
    value_weights,
)
from ..prompts import Prompts, as_prompts, random_tokens
from ..prompts.repeats import allowed_tokens
from ..prompts.text import start_token
from .reading import attends, check_sound
from .streaming import chosen_layers, labelled

__all__ = ["copying"]


def copying(
    model: Model,
    prompts: Any = None,
    *,
    method: str = "OLS",
    centre: str = "vocabulary",
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How far a head raises the logit of the token it attends to, against the other tokens of the prompt.

    "OLS" (Olsson et al. 2022): for source j, the direct contribution c_j = v_j W_O to the logits, less its
    mean, rectified; the share of it on the token of j, against the sum over all tokens of the sample and
    itself, 0 to 0.5 rescaled to -1 to 1, averaged over sources. On 25 random tokens without BOS. "BAN"
    (Bansal et al. 2022): for each query, the source attended most; softmax of its contribution over the
    vocabulary, restricted to the tokens at or before the query (to all of the prompt in a bidirectional model), less
    their mean, rectified; the share on the attended token, 0 to 1, averaged over queries. With BOS.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream without a norm between.
        prompts: anything `as_prompts` takes; None for the definition's own.
        method: "OLS" or "BAN".
        centre: what the mean of "OLS" is over: "vocabulary" or "sample" (the paper does not say).
        layers: only these.
        batch_size: prompts a forward pass; None to fit the memory.
        progress: a bar where it takes longer than two seconds.

    Returns:
        Dataset with `score[prompt, layer, head]`, `chance[prompt]` (4 / (tokens + 1) - 1 for OLS; the mean of
        1 / attendable tokens for BAN) and `undefined[prompt, layer, head]`, the number of sources or queries
        where nothing was raised (0 / 0), which are left out of the mean; the score is NaN where that is all.

    Raises:
        Refused: an unknown method or centre; a model that is not finite. NotDefined: one that norms what attention
            writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm (OPT-350m); one whose outputs are not its tokens.
    """
    if method not in ("OLS", "BAN") or centre not in ("vocabulary", "sample"):
        raise Refused(
            f'wanted method "OLS" or "BAN" and centre "vocabulary" or "sample", got {method!r} and {centre!r}'
        )
    if method == "BAN" and centre == "sample":
        raise Refused('centre="sample" goes with method="OLS": the mean of "BAN" is over attendable tokens')
    ready, wanted, size = _ready(model, prompts, method), chosen_layers(model, layers), sizes(model)
    check_words(model, "copying")
    check_writing(model, wanted)
    check_weights(model, wanted)
    w_u, causal = unembedding(model), is_causal(model)
    values = {
        key: np.full((1, len(ready), len(wanted), size.n_heads), np.nan) for key in ("score", "undefined")
    }
    parts = batches(len(ready), ready.tokens.shape[1], batch_size=batch_size, cost=16 * size.d_model)
    broken, edited = set[int](), bool(foreign_hooks(model))
    with progress_bar(len(parts) * len(wanted), progress=progress) as bar:
        for rows in parts:
            batch, pattern = ready[rows], {}

            def read(
                site: str,
                layer: int,
                activation: Tensor,
                rows: slice = rows,
                batch: Prompts = batch,
                pattern: dict = pattern,
            ) -> None:
                if site == "v":
                    pattern["logits"] = _contributions(model, layer, activation, batch, w_u)
                elif site == "pattern":
                    pattern["sources"] = activation.argmax(-1).cpu()
                    if not attends(activation, batch.lengths, edited=edited):
                        broken.add(layer)
                if len(pattern) < (2 if method == "BAN" else 1):
                    return
                logits = pattern.pop("logits")
                shares = (
                    _bansal(logits, pattern.pop("sources"), batch, causal)
                    if method == "BAN"
                    else _olsson(logits, batch, centre)
                )
                at = (0, rows, wanted.index(layer))
                values["score"][at] = shares.nanmean(-1).double().numpy()
                values["undefined"][at] = _undefined(shares, batch).numpy()
                bar.update()

            needed = {"v": set(wanted)} | ({"pattern": set(wanted)} if method == "BAN" else {})
            stream(model, batch.tokens, read, needed, lengths=batch.lengths)
    check_sound(broken)
    out = labelled(
        model, ready, wanted, values, _chance(ready, method, causal)[None], [_Copying(method)]
    ).isel(scorer=0)
    unit = "4 x share - 1, in [-1, 1]" if method == "OLS" else "share, in [0, 1]"
    return out.assign_attrs(unit=unit, centre=centre if method == "OLS" else "attendable tokens")


class _Copying:
    """What `labelled` says of a copying score."""

    def __init__(self, method: str) -> None:
        paper = {"OLS": "Olsson et al. 2022, copying score", "BAN": "Bansal et al. 2022, copying score"}
        self.name, self.paper = f"copying ({method})", paper[method]
        self.tested = True
        self.title = "share of the direct contribution that raises the attended token"


def _ready(model: Model, prompts: Any, method: str) -> Prompts:
    if prompts is not None:
        return as_prompts(model, prompts)
    size = sizes(model)
    bos = None if method == "BAN" else False
    start = start_token(model, bos)
    room = len(allowed_tokens(model, exclude=0.04, bos=start))
    return random_tokens(model, length=min(25, size.n_ctx - len(start), room), prompts=16, bos=bos)


def _contributions(model: Model, layer: int, values: Tensor, prompts: Prompts, w_u: Tensor) -> Tensor:
    """Logits `[prompt, head, source, token]` that each source's value writes for each token of its prompt."""
    n_heads = sizes(model).n_heads
    _, b_v, w_o = value_weights(model, layer)
    moved = full_precision(per_query_head(values, n_heads, 2)) - b_v.to(values.device)
    columns = w_u.T[prompts.tokens.to(w_u.device)]
    read_by = torch.einsum("hdm,bpm->bhdp", full_precision(w_o), columns.to(w_o.device))
    return torch.einsum("bshd,bhdt->bhst", moved.to(read_by.device), read_by).cpu()


def _real(prompts: Prompts) -> Tensor:
    return torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]


def _olsson(
    logits: Float[Tensor, "prompt head source token"], prompts: Prompts, centre: str
) -> Float[Tensor, "prompt head source"]:
    """`[prompt, head, source]`; NaN for padding and where nothing is raised. W_U is centred already."""
    real = _real(prompts)[:, None, None, :]
    if centre == "sample":
        logits = logits - logits.masked_fill(~real, torch.nan).nanmean(-1, keepdim=True)
    raised = logits.relu().masked_fill(~real, 0.0)
    own = raised.diagonal(dim1=-2, dim2=-1)
    share = own / (own + raised.sum(-1))
    return (4 * share - 1).masked_fill(~_real(prompts)[:, None], torch.nan)


def _bansal(
    logits: Float[Tensor, "prompt head source token"],
    sources: Int[Tensor, "prompt head query"],
    prompts: Prompts,
    causal: bool,
) -> Float[Tensor, "prompt head query"]:
    """`[prompt, head, query]`; NaN for padding and where nothing is raised.

    The softmax's normaliser over the vocabulary cancels in the share, so only the prompt's own tokens are
    needed.
    """
    n, length = prompts.tokens.shape
    chosen = logits.gather(2, sources[..., None].expand(*sources.shape, length))
    past = torch.ones(length, length, dtype=torch.bool).tril() if causal else _real(prompts)[:, None]
    new = (prompts.tokens[:, :, None] == prompts.tokens[:, None, :]).tril(-1).sum(-1) == 0  # each token once
    attendable = (past & new[:, None, :])[:, None]
    top = chosen.masked_fill(~attendable, -torch.inf).amax(-1, keepdim=True)
    weight = (chosen - top).exp().masked_fill(~attendable, 0.0)
    raised = (
        (weight - weight.sum(-1, keepdim=True) / attendable.sum(-1, keepdim=True))
        .relu()
        .masked_fill(~attendable, 0.0)
    )
    token = prompts.tokens[torch.arange(n)[:, None, None], sources]
    same = prompts.tokens[:, None, None, :] == token[..., None]
    share = (raised * same).sum(-1) / raised.sum(-1)
    return share.masked_fill(~_real(prompts)[:, None], torch.nan)


def _undefined(shares: Tensor, prompts: Prompts) -> Tensor:
    return (shares.isnan() & _real(prompts)[:, None]).sum(-1).double()


def _chance(prompts: Prompts, method: str, causal: bool) -> np.ndarray:
    lengths = prompts.lengths.double()
    if method == "OLS":
        return (4 / (lengths + 1) - 1).numpy()
    if not causal:
        return (1 / lengths).numpy()
    return np.array([float((1 / torch.arange(1, n + 1).double()).mean()) for n in prompts.lengths.tolist()])

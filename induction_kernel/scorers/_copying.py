"""Copying scores from the values of a prompt: Olsson et al. 2022, Bansal et al. 2022 and a variant of the latter.

The definitions differ in scale and chance and are never mixed. Norms are folded in, so raw and processed weights agree.
A head that attends to a token need not copy it, and neither proves an effect on the output. `_ov` scores copying by the
weights alone.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._outputs import check_words
from ..model._runs import batches, progress_bar, stream
from ..model._self_check import foreign_hooks, is_causal
from ..model._weights import check_weights, check_writing, unembedding, value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import allowed_tokens, random_tokens
from ..prompts._text import start_token
from ._pattern_entries import attends, check_sound
from ._streaming import chosen_layers, labelled

__all__ = ["copying"]

PAPERS = {
    "OLS": "Olsson et al. 2022, copying score",
    "BAN": "Bansal et al. 2022, copying score",
    "BAN-source": "after Bansal et al. 2022, copying score, with the value at the source",
}
"""Method -> the paper, as results cite it."""


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
    """How much a head raises the logit of the token it attends to, compared with the other tokens of the prompt.

    Every method reads what a position's value writes directly to the logits, v W_O W_U.

    - "OLS" (Olsson et al. 2022): the logits of source j, less their mean, rectified; the share of the token of j in
      the sum over all tokens of the prompt and itself, 0 to 0.5 rescaled to -1 to 1; the mean over sources. On 25
      random tokens without BOS. A source that raises nothing (0 / 0) is left out.
    - "BAN" (Bansal et al. 2022, as in their released code): for query j, attending most to s, the logits of the value
      *at j*; softmax over the vocabulary, restricted to the tokens at or before j (all of the prompt in a
      bidirectional model), less their mean, rectified; the share of the token of s, 0 to 1; the mean over all
      queries. 0 / 0 counts as 0, as it always is at the first query. On BOS and 25 random tokens.
    - "BAN-source": the same with the value at the source s, which is what the head moves.

    Args:
        model: any TransformerLens model whose attention writes to the residual stream with no norm in between.
        prompts: anything `as_prompts` takes; None for the definition's own.
        method: "OLS", "BAN" or "BAN-source".
        centre: what "OLS" takes its mean over: "vocabulary" or "sample" (the paper does not say).
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `score[prompt, layer, head]`; `chance[prompt]`, the score if all tokens are raised alike: 4 /
        (tokens + 1) - 1 for OLS (-.85 at 25 tokens), for the others the mean over queries of 1 / (different tokens at
        or before the query), 0 for a query with one such token (.113 at 25 tokens); and `undefined[prompt, layer,
        head]`, the number of sources or queries of 0 / 0. An OLS score is NaN if all its sources are 0 / 0.

    Raises:
        Refused: an unknown method or centre; attention or weights that are not finite.
        NotDefined: a model that normalises what attention writes (Gemma 2 and 3, OLMo 2 and 3) or has no final norm
            (OPT-350m), or whose outputs are not its tokens.
    """
    _check_options(method, centre)
    ready, wanted = _ready(model, prompts, method), chosen_layers(model, layers)
    check_words(model, "copying")
    check_writing(model, wanted)
    check_weights(model, wanted)
    causal = is_causal(model)
    values = _scores(model, ready, wanted, (method, centre, causal), batch_size, progress)
    chance = _chance(ready, method, causal)[None]
    out = labelled(model, ready, wanted, values, chance, [_Copying(method)]).isel(scorer=0)
    unit = "4 x share - 1, in [-1, 1]" if method == "OLS" else "share, in [0, 1]"
    return out.assign_attrs(unit=unit, centre=centre if method == "OLS" else "attendable tokens")


def _check_options(method: str, centre: str) -> None:
    if method not in PAPERS or centre not in ("vocabulary", "sample"):
        raise Refused(
            f'wanted method {", ".join(map(repr, PAPERS))} and centre "vocabulary" or "sample", got {method!r} and '
            f"{centre!r}"
        )
    if method != "OLS" and centre == "sample":
        raise Refused(
            f'wanted centre="sample" with method="OLS" only, got method={method!r}, which takes the mean over the '
            "attendable tokens: leave centre out"
        )


def _scores(
    model: Model,
    ready: Prompts,
    layers: list[int],
    how: tuple[str, str, bool],
    batch_size: int | None,
    progress: bool,
) -> dict[str, np.ndarray]:
    """`score` and `undefined`, `[1, prompt, layer, head]`; `how` is method, centre and whether the model is causal."""
    size, w_u, method = sizes(model), unembedding(model), how[0]
    values = {
        key: np.full((1, len(ready), len(layers), size.n_heads), np.nan) for key in ("score", "undefined")
    }
    sites = {"v": set(layers)} if method == "OLS" else {"v": set(layers), "pattern": set(layers)}
    parts = batches(len(ready), ready.tokens.shape[1], batch_size=batch_size, cost=16 * size.d_model)
    broken, edited = set[int](), bool(foreign_hooks(model))
    with progress_bar(len(ready), progress=progress, unit="prompt") as bar:
        for rows in parts:
            batch, seen = ready[rows], dict[str, Tensor]()

            def read(
                site: str, layer: int, activation: Tensor, rows: slice = rows, batch: Prompts = batch,
                seen: dict[str, Tensor] = seen,
            ) -> None:  # fmt: skip
                if site == "v":
                    seen[site] = _contributions(model, layer, activation, batch, w_u)
                else:
                    seen[site] = activation.argmax(-1).cpu()
                    if not attends(activation, batch.lengths, edited=edited):
                        broken.add(layer)
                if len(seen) == len(sites):
                    at = (0, rows, layers.index(layer))
                    values["score"][at], values["undefined"][at] = _of_layer(seen, batch, *how)
                    seen.clear()
                    bar.update(len(batch) / len(layers))

            stream(model, batch.tokens, read, sites, lengths=batch.lengths)
    check_sound(broken)
    return values


def _of_layer(
    seen: dict[str, Tensor], batch: Prompts, method: str, centre: str, causal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean share `[prompt, head]` of one layer's contributions ("v") and sources ("pattern"); the count of 0 / 0."""
    if method == "OLS":
        shares = _olsson(seen["v"], batch, centre)
    else:
        shares = _bansal(seen["v"], seen["pattern"], batch, causal, method == "BAN-source")
    undefined = _undefined(shares, batch).numpy()
    if method != "OLS":  # 0 / 0 counts as 0
        shares = shares.nan_to_num(0.0).masked_fill(~_real(batch)[:, None], torch.nan)
    return shares.nanmean(-1).double().numpy(), undefined


class _Copying:
    """A copying score's name, paper and title, for `labelled`."""

    def __init__(self, method: str) -> None:
        self.name, self.paper = f"copying ({method})", PAPERS[method]
        self.tested = True
        where = " of the query's own value" if method == "BAN" else ""
        self.title = f"share of the direct contribution{where} that raises the attended token"


def _ready(model: Model, prompts: Any, method: str) -> Prompts:
    return own_prompts(model, method) if prompts is None else as_prompts(model, prompts)


def own_prompts(model: Model, method: str = "OLS", *, prompts: int = 16, seed: int = 0) -> Prompts:
    """The random tokens of a definition: without BOS in OLS, with it in the others."""
    bos = False if method == "OLS" else None
    start = start_token(model, bos)
    room = len(allowed_tokens(model, exclude=0.04, bos=start))
    length = min(25, sizes(model).n_ctx - len(start), room)
    return random_tokens(model, length=length, prompts=prompts, seed=seed, bos=bos)


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
    at_source: bool,
) -> Float[Tensor, "prompt head query"]:
    """`[prompt, head, query]`; NaN for padding and where nothing is raised.

    The softmax's normaliser over the vocabulary cancels in the share, so only the prompt's own tokens are
    needed.
    """
    n, length = prompts.tokens.shape
    chosen = logits.gather(2, sources[..., None].expand(*sources.shape, length)) if at_source else logits
    attendable = _attendable(prompts, causal)[:, None]
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


def _attendable(prompts: Prompts, causal: bool) -> Bool[Tensor, "prompt query token"]:
    """The tokens that each query may attend to, bool; of a repeated token only its first position."""
    length = prompts.tokens.shape[1]
    past = torch.ones(length, length, dtype=torch.bool).tril() if causal else _real(prompts)[:, None]
    new = (prompts.tokens[:, :, None] == prompts.tokens[:, None, :]).tril(-1).sum(-1) == 0
    return past & new[:, None, :]


def _undefined(shares: Tensor, prompts: Prompts) -> Tensor:
    return (shares.isnan() & _real(prompts)[:, None]).sum(-1).double()


def _chance(prompts: Prompts, method: str, causal: bool) -> np.ndarray:
    if method == "OLS":
        return (4 / (prompts.lengths.double() + 1) - 1).numpy()
    tokens = _attendable(prompts, causal).sum(-1).double()
    of_query = torch.where(tokens > 1, 1 / tokens, 0.0) * _real(prompts)
    return (of_query.sum(-1) / prompts.lengths).numpy()

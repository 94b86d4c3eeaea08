"""QK attribution: an attention score split by what the head's query and its key read, component by component.

A score is q.k / scale, where query and key are sums over what the residual stream is made of (`_qk_parts`), so that it
is a sum over pairs: what one component adds to the query, times what another adds to the key (Elhage et al. 2021,
"QK circuit" and K-composition; Kamath et al. 2025, "QK attributions", with features in place of components). It says of
what a score is made in the run as it is, not what would happen without a component: `path_patch` tests that.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .._given import is_whole
from ..errors import NotDefined, Refused
from ..heads._names import Head, HeadLike, as_head, names_of
from ..model._anatomy import Model, sizes
from ..model._runs import batches, progress_bar
from ..model._self_check import is_causal
from ..model._weights import check_weights
from ..prompts._prompts import Prompts, measured_on
from ..stats._means import mean_interval
from ._attention import induction
from ._attention_scorer import AttentionScorer
from ._qk_parts import Components, components_of, embedded_tokens, read_run
from ._qk_scores import scores_of, turned_by

__all__ = ["qk_attribution", "qk_senders", "qk_table"]

SIDES = ("query", "key")


def qk_attribution(
    model: Model,
    prompts: Any,
    head: HeadLike,
    *,
    scorer: AttentionScorer = induction,
    contrast: bool = True,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Why a head looks where it looks: its attention scores as a sum over pairs of components.

    A component is the embedding, the learned positions, an earlier head, an earlier MLP, the biases of earlier
    attention layers, or the head's own bias of queries and keys (with the norm's). Components pass the norms with each
    norm's scale as it was in the run, and are rotated to their positions, so that the pairs add up to the score. Soft
    caps and ALiBi's slopes come after the product and are left out. Heads are without their share of the value bias,
    which is with the biases, as in `direct_effect`.

    With `contrast`, each entry's score is taken less the mean score of the query's other keys (those it can see and
    that are not entries): softmax does not see what raises all keys alike. Entries of one query are averaged, then
    queries, then (by you) prompts.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; None for the scorer's own.
        head: one head, as Head, (layer, head) or "L5H1".
        scorer: the attention scorer whose entries are read; `AttentionScorer("mine", mask)` for others.
        contrast: whether scores are taken less the mean of the query's other keys; without it, as they are.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `score[prompt, query_component, key_component]`, in units of attention scores (a difference of 1
        makes attention e times as large), `chance[prompt]`, 0, and `total[prompt]`, the run's own score, which the
        pairs add up to. If the prompts have a matched control, `control` and `control_total` likewise, from a run on
        the control, read at the same entries. Coordinates `query_layer`, `query_head`, `key_layer`, `key_head`: of the
        components that are heads, else -1.

    Raises:
        TypeError: a scorer of another kind.
        Refused: a head the model does not have; a prompt without an entry, or without another key to compare with.
        NotDefined: queries and keys that are no such sum (norms after attention as in OLMo 2, smeared keys, a norm over
            all heads), or attention that is not a softmax of their products.

    Source: Elhage et al. 2021, "QK circuit", "Three kinds of composition"; Kamath et al. 2025, "Tracing attention
        computation through feature interactions" (the bilinear form, and biases as terms of their own).
    """
    size = sizes(model)
    chosen = as_head(head, n_layers=size.n_layers, n_heads=size.n_heads)
    if not isinstance(scorer, AttentionScorer):
        raise TypeError(f"wanted an attention scorer, such as ik.induction, got {type(scorer).__name__}")
    ready, causal = scorer.ready(model, prompts), is_causal(model)
    check_weights(model, range(chosen.layer + 1))
    components, embedded = components_of(model, chosen.layer), embedded_tokens(model)
    runs = {"score": ready.tokens}
    if ready.control is not None and scorer.matched:
        runs["control"] = ready.control
    n, length = len(ready), ready.tokens.shape[1]
    values = {name: np.full((n, len(components.names), len(components.names)), np.nan) for name in runs}
    totals = {name: np.full(n, np.nan) for name in runs}
    cost = max(4 * size.d_head * len(components.names), 8 * size.d_model, length * size.n_heads)
    with progress_bar(n * len(runs), progress=progress, unit="run") as bar:
        for rows in batches(n, length, batch_size=batch_size, cost=cost):
            batch = ready[rows]
            mask = _mask(scorer, batch, causal)
            for name, tokens in runs.items():
                values[name][rows], totals[name][rows] = _of_batch(
                    model, chosen, batch, tokens[rows], mask, embedded, contrast, causal
                )
                bar.update(len(batch))
    return _labelled(model, ready, chosen, scorer, contrast, components, values, totals)


def _mask(scorer: AttentionScorer, prompts: Prompts, causal: bool) -> Tensor:
    """The scorer's entries, bool `[prompt, query, key]`."""
    entries = scorer.entries(prompts, causal=causal)
    mask = torch.zeros(*prompts.tokens.shape, prompts.tokens.shape[1], dtype=torch.bool)
    mask[entries.prompt, entries.query, entries.key] = True
    return mask


def _of_batch(
    model: Model, head: Head, prompts: Prompts, tokens: Tensor, mask: Tensor, embedded: Tensor | None,
    contrast: bool, causal: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """`[prompt, query_component, key_component]` and the run's own totals `[prompt]`."""
    run = read_run(model, head, tokens, prompts.lengths, embedded)
    turn = turned_by(model, head.layer, tokens.shape[1])
    scores = scores_of(model, head, run, turn, prompts.lengths, causal=causal)
    weight, read = _weights(mask, scores.visible, contrast)
    query, key = turn(run.parts).unbind(3)
    found = []
    for prompt in range(len(tokens)):
        at = read[prompt].nonzero()[:, 0]
        if not len(at):
            raise Refused(
                f"no entry of a prompt can be read in {head}: the head cannot see it (a sliding window), or the query "
                "sees no other key to compare it with; pass other prompts, or contrast=False"
            )
        keys = torch.einsum("rk,kcd->rcd", weight[prompt, at], key[prompt])
        found.append(torch.einsum("rad,rbd->ab", query[prompt, at], keys) / (scores.scale * len(at)))
    total = (weight * scores.products).sum((1, 2)) / read.sum(1)
    return torch.stack(found).numpy(), total.numpy()


def _weights(mask: Tensor, visible: Tensor, contrast: bool) -> tuple[Tensor, Tensor]:
    """What each key of a query counts, `[prompt, query, key]`, and which queries are read, bool `[prompt, query]`."""
    wanted, others = mask & visible, visible & ~mask
    read = wanted.any(-1) & (others.any(-1) if contrast else True)
    weight = wanted.double() / wanted.sum(-1, keepdim=True).clamp(min=1)
    if contrast:
        weight = weight - others.double() / others.sum(-1, keepdim=True).clamp(min=1)
    return weight * read[..., None], read


def _labelled(
    model: Model, prompts: Prompts, head: Head, scorer: AttentionScorer, contrast: bool, components: Components,
    values: dict[str, np.ndarray], totals: dict[str, np.ndarray],
) -> xr.Dataset:  # fmt: skip
    pairs = ("prompt", "query_component", "key_component")
    of_runs = {"score": "total", "control": "control_total"}
    coords: dict[str, Any] = {"prompt": np.arange(len(prompts))}
    for side in SIDES:
        dim = f"{side}_component"
        coords[dim] = np.array(components.names)
        coords[f"{side}_layer"] = dim, np.array(components.layers)
        coords[f"{side}_head"] = dim, np.array(components.heads)
    return xr.Dataset(
        {name: (pairs, value) for name, value in values.items()}
        | {of_runs[name]: ("prompt", total) for name, total in totals.items()}
        | {"chance": ("prompt", np.zeros(len(prompts)))},
        coords=coords,
        attrs={
            "method": "qk_attribution",
            "title": f"attention scores of {head}, by what its query and its key read",
            "paper": "Elhage et al. 2021; Kamath et al. 2025",
            "unit": "nats (attention score)",
            "of_head": str(head),
            "entries": scorer.name,
            "contrast": "less the mean of the query's other keys" if contrast else "none",
            "norm": "each norm with its scale as in the run",
            **measured_on(model, prompts),
        },
    )


def qk_table(
    found: xr.Dataset, k: int | None = 10, *, by: Literal["pair", "query", "key"] = "pair"
) -> pd.DataFrame:
    """The components, or pairs of them, that matter most in a `qk_attribution`, rounded for reading.

    Rows are chosen on every other prompt and their numbers are of the prompts in between, where they do not look larger
    than they are. All rows have those of all prompts; so do chosen ones of fewer than four, with too narrow intervals.

    Args:
        found: what `qk_attribution` returns.
        k: how many rows, largest size first (of the excess over the control, if there is one); None for all.
        by: "pair", or one side alone, with the other summed over.

    Returns:
        One row each, indexed by its name (by `query` and `key`, for pairs): mean over prompts, low and high (its 95%
        interval), control, excess, and share of the total score, NaN if that is 0.

    Raises:
        TypeError: another result. Refused: an unknown `by`, or a k that is no whole number or below 1.
    """
    score, control = _by(found, "score", by), _by(found, "control", by) if "control" in found else None
    if k is not None and (not is_whole(k) or k < 1):
        raise Refused(f"wanted k as a whole number of rows, 1 or more, or None for all, got {k!r}")
    size = (score if control is None else score - control).values
    chosen = k is not None and k < size.shape[1] and len(size) >= 4
    order = np.argsort(-np.abs(size[:: 2 if chosen else 1].mean(0)), kind="stable")
    shown = slice(1, None, 2) if chosen else slice(None)
    score = score[shown]
    low, high = mean_interval(score.values)
    frame = pd.DataFrame({"mean": score.mean("prompt").values, "low": low, "high": high}, _index(score, by))
    if control is not None:
        frame["control"] = control[shown].mean("prompt").values
        frame["excess"] = frame["mean"] - frame["control"]
    total = float(found["total"][shown].mean())
    frame["share"] = frame["mean"] / total if total else np.nan
    return frame.iloc[order[:k]].round(3)


def _by(found: xr.Dataset, name: str, by: str) -> xr.DataArray:
    """`[prompt, row]`: the variable by pair, or by one side."""
    check_attribution(found)
    if by not in ("pair", *SIDES):
        raise Refused(f'wanted by="pair", "query" or "key", got {by!r}')
    if by == "pair":
        return found[name].stack(row=[f"{side}_component" for side in SIDES])
    other = "key" if by == "query" else "query"
    return found[name].sum(f"{other}_component").rename({f"{by}_component": "row"})


def check_attribution(found: Any) -> None:
    """Raise TypeError unless this is a result of `qk_attribution`."""
    if not isinstance(found, xr.Dataset) or not {"score", "total"} <= set(found.data_vars):
        raise TypeError(f"wanted the Dataset of qk_attribution, got {type(found).__name__}")


def _index(score: xr.DataArray, by: str) -> pd.Index:
    if by == "pair":
        return pd.MultiIndex.from_tuples(score["row"].values.tolist(), names=list(SIDES))
    return pd.Index(score["row"].values, name=by)


def qk_senders(found: xr.Dataset, *, side: Literal["query", "key"] = "key") -> xr.Dataset:
    """How much of a head's attention score each earlier head brings to its key (or query), as a score of heads.

    `summarise`, `head_table`, `top_heads` and `head_map` take it.

    Args:
        found: what `qk_attribution` returns.
        side: through "key" or "query"; the other side is summed over.

    Returns:
        Dataset with `score[prompt, layer, head]` over the earlier layers, `chance[prompt]`, 0, and `control` if the
        attribution has one.

    Raises:
        TypeError: another result. Refused: an unknown side. NotDefined: a head of the first layer.
    """
    check_attribution(found)
    if side not in SIDES:
        raise Refused(f'wanted side="query" or "key", got {side!r}')
    layers = found[f"{side}_layer"].values
    there, n = layers >= 0, int(layers.max()) + 1
    if not n:
        raise NotDefined(
            f"no head comes before {found.attrs['of_head']}: it reads embeddings and biases alone"
        )
    variables = {}
    for name in ("score", "control"):
        if name in found:
            values = _by(found, name, side).values[:, there]
            variables[name] = (("prompt", "layer", "head"), values.reshape(len(values), n, -1))
    heads = np.arange(int(found[f"{side}_head"].values.max()) + 1)
    coords = {"prompt": found["prompt"], "layer": np.arange(n), "head": heads}
    coords |= {"name": (("layer", "head"), names_of(range(n), heads.tolist()))}
    attrs = found.attrs | {"title": f"what each head adds to attention scores of {found.attrs['of_head']}"}
    attrs |= {"method": f"qk_attribution, by {side}"}
    return xr.Dataset(variables | {"chance": found["chance"]}, coords, attrs)

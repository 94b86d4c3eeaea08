"""Choosing heads: the strongest by any number, as a list or a table, and random others as their control.

Choose on some prompts and report on others: the best of many heads looks too good on the prompts it was chosen on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import combinations, product
from math import comb, prod
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ._averages import VARIABLES, by_rank
from ._names import Head, HeadLike, as_heads
from ._results import check_result, is_measured, one_result, over_heads
from ._summary import means_of, summarise

__all__ = ["head_table", "random_heads", "random_sets", "top_heads"]


def top_heads(
    scores: xr.Dataset,
    k: int | None = 5,
    *,
    by: str | None = None,
    min_score: float | None = None,
    layers: Iterable[int] | int | None = None,
    largest: bool = True,
    exclude: Iterable[HeadLike] = (),
    passing: bool = False,
) -> list[Head]:
    """The `k` heads of the first ranks, or with the largest of another number, largest first.

    Choose on some prompts and report on others: the best of many heads looks too good on the prompts it was chosen on.

    Args:
        scores: any result that `summarise` takes, or a summary; with `by`, any Dataset with that variable over layers
            and heads, such as that of `compare`.
        k: how many heads; fewer come back if fewer qualify. None for all that qualify.
        by: None for the rank of `summarise`: by excess over control (or chance), effects by how much worse they make
            the metric. Or a variable of the summary ("excess" for signed effects, "size" for those of either sign), or
            one of the result itself ("normalised" of `patch`, "difference" of `compare`; its mean over prompts). Heads
            where it is NaN are left out.
        min_score: leave out heads whose mean score is below it (above it with `largest=False`); with a variable of the
            result as `by`, heads whose value is. For effects without `by`: whose effect in the ranked direction is.
        layers: only this layer, or these.
        largest: False for the smallest instead, smallest first (the last ranks without `by`).
        exclude: heads to leave out.
        passing: only heads that pass the threshold of `summarise`.

    Raises:
        TypeError: not a Dataset of heads.
        Refused: `k` below 1, several scorers or models at once, a layer the scores do not have; a `by` that does not
            exist, or is not one number per head; `passing` for scores that cannot be tested.
    """
    _check_count(k)
    of_one = one_result(scores)
    value, score = _ranked_by(of_one, by)
    qualify = _passing(of_one) if passing else xr.ones_like(value, dtype=bool)
    if min_score is not None:
        qualify = qualify & (score >= min_score if largest else score <= min_score)
    wanted, left_out = _layers_of(value, layers), set(as_heads(exclude))
    heads, ranked = value["head"].values.tolist(), value.sel(layer=wanted).transpose("layer", "head").values
    kept = qualify.sel(layer=wanted).transpose("layer", "head").values & ~np.isnan(ranked)
    ordered = np.argsort(-ranked if largest else ranked, axis=None, kind="stable")
    found = [
        Head(wanted[at // len(heads)], heads[at % len(heads)])
        for at in ordered[kept.ravel()[ordered]].tolist()
    ]
    return [head for head in found if head not in left_out][:k]


def _ranked_by(result: xr.Dataset, by: str | None) -> tuple[xr.DataArray, xr.DataArray]:
    """`[layer, head]`: what heads are ranked by, and the score that `min_score` is compared with."""
    if by is None:
        means = means_of(result)
        first = str(means.attrs.get("ranked_first", "largest"))
        score = by_rank(means, "mean", first)
        return (-means["rank"].astype(np.float64)).where(means["excess"].notnull()), score
    known = isinstance(result, xr.Dataset) and is_measured(result)
    if by in VARIABLES and known:
        means = means_of(result)
        means = means if by in means else summarise(result)
        if by in means:
            return means[by].astype(np.float64), means["mean"]
    own = result.get(by) if isinstance(result, xr.Dataset) else None
    if own is None:
        check_result(result)
        summary = summarise(result)
        names = [name for name in VARIABLES if name in summary]
        names += [str(key) for key, value in result.data_vars.items() if {"layer", "head"} <= set(value.dims)]
        near = get_close_matches(str(by), names, n=1)
        hint = f'; by="{near[0]}"?' if near else ""
        raise Refused(f"wanted by as one of {sorted(set(names))}, got {by!r}{hint}")
    value = over_heads(own.astype(np.float64), result)
    value = value.mean("prompt") if "prompt" in value.dims else value
    return value, value


def _passing(result: xr.Dataset) -> xr.DataArray:
    """Which heads pass; Refused if none is tested."""
    summary = summarise(result)
    if not bool(summary["tested"].any()):
        raise Refused(
            f"wanted heads that pass, got scores that cannot be tested: {summary['untested'].item()}"
        )
    return summary["passes"] == 1


def _layers_of(means: xr.DataArray, layers: Iterable[int] | int | None) -> list[int]:
    """The layers asked for, in order; Refused if the scores lack one of them."""
    there = means["layer"].values.tolist()
    if layers is None:
        return sorted(there)
    wanted = list(layers) if isinstance(layers, Iterable) else [layers]
    if not set(wanted) <= set(there):
        raise Refused(f"wanted layers among {there}, got {wanted}")
    return sorted({int(layer) for layer in wanted})


def _check_count(k: int | None) -> None:
    if k is not None and (not is_whole(k) or k < 1):
        raise Refused(f"wanted k >= 1 heads, or None for all, got {k!r}")


def head_table(scores: xr.Dataset, k: int | None = 10) -> pd.DataFrame:
    """The `k` strongest heads as a data frame by name, strongest first, rounded to three digits for reading.

    Args:
        scores: any result of one scorer and model that `summarise` takes, or a summary.
        k: how many rows; None for all heads that have a value.

    Returns:
        As in `summarise`: rank, mean, low, high, control (else chance), excess, threshold if there is one, and passes:
        "yes", "no" or "untested" (the reason is in the `untested` of `summarise`). For composition with all later heads
        also receiver, the one that reads most.

    Raises:
        TypeError: not a Dataset of heads.
        Refused: several scorers or models at once; what `summarise` refuses.
    """
    _check_count(k)
    summary = summarise(one_result(scores))
    null = "control" if "control" in summary and bool(summary["control"].notnull().any()) else "chance"
    columns = ["rank", "receiver", "mean", "low", "high", null, "excess", "threshold", "passes"]
    known = summary[[key for key in columns if key in summary.variables]].reset_coords("name")
    frame = known.to_dataframe().set_index("name").filter(items=columns)
    frame = frame.dropna(subset=["mean"])
    frame["passes"] = np.select([frame["passes"] == 1, frame["passes"] == 0], ["yes", "no"], "untested")
    frame["threshold"] = frame["threshold"].where(np.isfinite(frame["threshold"]))
    shown = frame.sort_values("rank").dropna(axis="columns", how="all").round(3)
    return shown.head(len(shown) if k is None else k)


def random_heads(
    model: Any,
    like: HeadLike | Iterable[HeadLike],
    *,
    exclude: Iterable[HeadLike] = (),
    seed: int = 0,
    control: str = "same layer",
) -> list[Head]:
    """As many other heads in each layer as `like` has: the matched control for ablating `like`.

    Args:
        model: anything with `cfg.n_layers` and `cfg.n_heads`.
        like: the heads to match, as Head, (layer, head) or "L5H1"; never among those returned.
        exclude: further heads never to return.
        seed: of the draw; the global random state is untouched.
        control: "same layer" for as many in each layer, "any layer" for as many in the whole model.

    Returns:
        The heads, by layer and index.

    Raises:
        TypeError: heads in no known form, or their number.
        Refused: an unknown `control`. NotDefined: the layers have too few other heads.
    """
    (found,) = random_sets(model, like=like, n=1, exclude=exclude, seed=seed, control=control)
    return found


def random_sets(
    model: Any,
    like: HeadLike | Iterable[HeadLike],
    *,
    n: int = 20,
    exclude: Iterable[HeadLike] = (),
    seed: int = 0,
    control: str = "same layer",
) -> list[list[Head]]:
    """Different sets of random heads, each drawn as by `random_heads`; all possible sets if there are fewer than n.

    Layers with few heads have few sets: there are six of two heads out of four others in one layer.

    Args:
        model: as in `random_heads`.
        like: likewise.
        n: how many sets, at least 1.
        exclude: as in `random_heads`.
        seed: likewise.
        control: likewise.

    Raises:
        TypeError, Refused, NotDefined: as `random_heads`.
    """
    if is_whole(like):
        raise TypeError(
            f'wanted like as the heads to match, such as random_heads(model, like=["L1H0"]), got {like!r}: as many '
            "heads are drawn as like has"
        )
    if not is_whole(n) or n < 1:
        raise Refused(f"wanted n >= 1 random sets, got {n!r}")
    groups = _pools(model, like, exclude, control)
    rng = np.random.default_rng(checked_seed(seed))
    if prod(comb(len(pool), wanted) for pool, wanted in groups) <= n:
        every = product(*(combinations(pool, wanted) for pool, wanted in groups))
        return [sorted(head for part in parts for head in part) for parts in every]
    found: dict[tuple[Head, ...], None] = {}
    while len(found) < n:
        drawn = [
            pool[i] for pool, wanted in groups for i in rng.choice(len(pool), size=wanted, replace=False)
        ]
        found[tuple(sorted(drawn))] = None
    return [list(heads) for heads in found]


def _pools(
    model: Any, like: HeadLike | Iterable[HeadLike], exclude: Iterable[HeadLike], control: str
) -> list[tuple[list[Head], int]]:
    """The heads to draw from, by layer or all together, and how many to draw."""
    if not hasattr(getattr(model, "cfg", None), "n_heads"):
        raise TypeError(f"wanted a TransformerLens model, got {type(model).__name__}")
    n_layers, n_heads = int(model.cfg.n_layers), int(model.cfg.n_heads)
    bounds = {"n_layers": n_layers, "n_heads": n_heads}
    chosen = as_heads(like, **bounds)
    taken = set(chosen) | set(as_heads(exclude, **bounds))
    every = [Head(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    free = [head for head in every if head not in taken]
    if control == "any layer":
        groups = [(free, len(chosen))] if chosen else []
    elif control == "same layer":
        wanted_of = Counter(head.layer for head in chosen)
        groups = [([head for head in free if head.layer == at], n) for at, n in sorted(wanted_of.items())]
    else:
        raise Refused(f'wanted control="same layer" or "any layer", got {control!r}')
    for at, (pool, wanted) in enumerate(groups):
        if len(pool) < wanted:
            layers = sorted({head.layer for head in chosen})
            where = "the model" if control == "any layer" else f"layer {layers[at]}"
            remedies = ["choose fewer heads"] * (wanted > 1 or len(taken) > len(chosen))
            if control == "same layer" and len(free) >= len(chosen):
                remedies.append('pass control="any layer"')
            raise NotDefined(
                f"{where} has {len(pool)} other heads, {wanted} are needed: "
                + (" or ".join(remedies) or "this model has none to compare these with, ablate them alone")
            )
    return groups

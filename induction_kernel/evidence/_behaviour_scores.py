"""Scores of several behaviours (copying, prefix matching, patterns, translation) on the same heads, side by side.

For each behaviour: every head's mean score and excess over its control; the means of the chosen heads and of all
others; and the rank correlation of the heads' excess with prefix matching. Used by `generality`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..heads._names import Head
from ..heads._summary import summarise
from ..stats._correlations import correlation, correlation_interval
from ..stats._means import mean_interval
from ..training._merged import with_names

__all__ = ["by_behaviour", "summaries"]


def by_behaviour(scores: dict[str, xr.Dataset], chosen: list[Head], seed: int) -> xr.Dataset:
    """Dataset over `behaviour`, layer and head, as `generality` documents it: scores, excess, correlation."""
    parts: list[xr.Dataset] = []
    first = scores["prefix_matching"]
    is_chosen = xr.zeros_like(first["score"].isel(prompt=0).reset_coords(drop=True), dtype=bool)
    for head in chosen:
        is_chosen.loc[{"layer": head.layer, "head": head.head}] = True
    for name, each in scores.items():
        null = each["control"] if "control" in each else each["chance"]
        both = xr.Dataset({"score": each["score"], "control": null.broadcast_like(each["score"])})
        both = both.assign(chance=both["control"]).reset_coords(drop=True)
        parts.append(_of_behaviour(both, is_chosen, seed).expand_dims(behaviour=[name]))
    out = xr.concat(parts, "behaviour", join="outer")
    out["score"], out["control"] = (out[key].astype(np.float32) for key in ("score", "control"))
    out = with_names(out).assign(chosen=is_chosen)
    return xr.merge([out, _correlated(out["excess"], seed)])


def _of_behaviour(scores: xr.Dataset, chosen: xr.DataArray, seed: int) -> xr.Dataset:
    names = {"mean": "attention", "low": "attention_low", "high": "attention_high", "threshold": "needed"}
    kept = [*names.values(), "excess", "excess_low", "excess_high", "passes"]
    found = summarise(scores, seed=seed).rename(names)[kept].drop_vars(["null", "untested"])
    few = summarise(scores.where(chosen), seed=seed)["passes"].drop_vars(["null", "untested"])
    gained = scores["score"] - scores["control"]
    of_chosen = gained.where(chosen).mean(("layer", "head")).to_numpy()
    of_others = gained.where(~chosen).mean(("layer", "head")).to_numpy()
    by_behaviour: dict[str, Any] = {"n_passing": int((few == 1).sum())}
    for name, values in (("chosen_excess", of_chosen), ("contrast", of_chosen - of_others)):
        low, high = mean_interval(values, seed=seed)
        by_behaviour |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    coords = {"prompt": np.arange(scores.sizes["prompt"])}
    by_behaviour |= {"chosen_passes": few, "score": scores["score"], "control": scores["control"]}
    return found.assign(by_behaviour).assign_coords(coords)


def _correlated(excess: xr.DataArray, seed: int) -> xr.Dataset:
    """Spearman's correlation of each behaviour with prefix matching over heads, with a bootstrap interval."""
    by_head = excess.stack(cell=("layer", "head"))
    first = by_head.sel(behaviour="prefix_matching").values
    rows = []
    for other in by_head.transpose("behaviour", "cell").values:
        there = np.isfinite(first + other)
        x, y = first[there], other[there]
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            rows.append([np.nan] * 3)  # too few heads, or heads that do not differ
            continue
        ends = correlation_interval(x, y, "spearman", seed=seed)
        rows.append([correlation(x, y, "spearman"), *ends])
    keys = ("correlation", "correlation_low", "correlation_high")
    return xr.Dataset({key: ("behaviour", row) for key, row in zip(keys, np.array(rows).T, strict=True)})


def summaries(result: xr.Dataset) -> xr.Dataset:
    """Head summaries of the behaviours in a result of `generality`, over `scorer`, as `head_map` draws them."""
    parts: list[xr.Dataset] = []
    for name in result["behaviour"].values:
        one = result.sel(behaviour=name)[["score", "control"]].dropna("prompt", how="all")
        scores = one.assign(chance=one["control"]).drop_vars("behaviour")
        parts.append(summarise(scores).assign_coords(scorer=str(name)))
    return xr.concat(parts, "scorer", coords=["null", "untested"], compat="override")

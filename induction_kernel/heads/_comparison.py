"""Two results over the same heads compared: differences with intervals, correlations, overlap. It runs no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..stats._correlations import correlation
from ..stats._means import check_confidence, difference_interval, mean_interval
from ._choice import top_heads
from ._results import check_result, one_result, per_prompt
from ._summary import means_of

__all__ = ["compare"]


def compare(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    k: int = 5,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """How well two results agree about the heads: two scorers, two checkpoints, two models of the same shape.

    `head_map` draws it.

    Args:
        first: a result that `summarise` takes, of one scorer and model, or its summary.
        second: another, over the same layers and heads.
        k: how many of the strongest heads `overlap` looks at.
        confidence: of the interval of the difference.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Dataset: `first`, `second` (means over prompts), `difference` = second - first with `low` and `high`
        over (layer, head) (paired over prompts if both have the same number, NaN if one has no values per prompt, as
        weight-based scores and summaries); `pearson` and `spearman` over heads (in [-1, 1]; NaN where one is constant);
        `overlap`, the share of the `k` strongest heads of one that are among those of the other (in [0, 1]; by chance k
        / heads).

    Raises:
        TypeError: not two Datasets of heads.
        Refused: different layers or heads; what `summarise` refuses.
    """
    check_confidence(confidence, draws)
    for result in (first, second):
        check_result(one_result(result))
    second = _in_order_of(first, second)
    sides = [means_of(result) for result in (first, second)]
    if any(not np.array_equal(sides[0][dim], sides[1][dim]) for dim in ("layer", "head")):
        raise Refused(
            "wanted scores of the same layers and heads, got those of layers "
            f"{' and '.join(str(side['layer'].values.tolist()) for side in sides)}, heads "
            f"{' and '.join(str(side['head'].values.tolist()) for side in sides)}"
        )
    a, b = (side["mean"].transpose("layer", "head").values for side in sides)
    low, high = _difference_interval(first, second, a.size, confidence, draws, checked_seed(seed))
    strongest = [set(top_heads(result, k)) for result in (first, second)]
    dims = ("layer", "head")
    return xr.Dataset(
        {
            "first": (dims, a),
            "second": (dims, b),
            "difference": (dims, b - a),
            "low": (dims, low.reshape(a.shape)),
            "high": (dims, high.reshape(a.shape)),
            "pearson": float(correlation(a.ravel(), b.ravel())),
            "spearman": float(correlation(a.ravel(), b.ravel(), "spearman")),
            "overlap": len(strongest[0] & strongest[1]) / max(1, min(k, a.size)),
        },
        coords={key: sides[0][key].variable for key in (*dims, "name")},
        attrs={
            "method": "compare", "first": _named(first), "second": _named(second), "k": k, "confidence": confidence,
            "draws": draws, "seed": checked_seed(seed), **_in_common(first, second),
        },
    )  # fmt: skip


def _named(result: xr.Dataset) -> str:
    return str(result.attrs.get("method", ""))


def _in_common(first: xr.Dataset, second: xr.Dataset) -> dict[str, str]:
    """Model and unit if both have the same; else the two models."""
    out = {
        key: str(first.attrs[key])
        for key in ("model", "unit")
        if key in first.attrs and first.attrs[key] == second.attrs.get(key)
    }
    models = [str(result.attrs.get("model", "")) for result in (first, second)]
    return out if models[0] == models[1] else out | {"first_model": models[0], "second_model": models[1]}


def _in_order_of(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """The second with layers and heads in the order of the first, if they have the same ones."""
    for dim in ("layer", "head"):
        both = all(dim in result.coords for result in (first, second))
        if both and set(first[dim].values.tolist()) == set(second[dim].values.tolist()):
            second = second.sel({dim: first[dim].values})
    return second


def _difference_interval(
    first: xr.Dataset, second: xr.Dataset, cells: int, confidence: float, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    a, b = (per_prompt(result) for result in (first, second))
    if a is None or b is None:
        nothing = np.full(cells, np.nan)
        return nothing, nothing
    options: dict[str, Any] = {"confidence": confidence, "draws": draws, "seed": seed}
    return mean_interval(b - a, **options) if len(a) == len(b) else difference_interval(a, b, **options)

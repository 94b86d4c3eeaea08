"""Do two scores agree about the heads? It compares results; it runs no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..given import checked_seed
from ..stats import check_confidence, correlation, difference_interval, mean_interval
from .choosing import top_heads
from .summary import means_of, one_scorer

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
    """Do two scores agree about the heads? Two scorers, two checkpoints, two models of one shape.

    Args:
        first: scores of one kind.
        second: scores of the other, over the same layers and heads.
        k: how many of the strongest heads `overlap` looks at.
        confidence: of the interval of the difference.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Dataset: `first`, `second` (means over prompts), `difference` = second - first with `low` and `high`
        over (layer, head) (paired over prompts where both have the same number, NaN for weight-based scores);
        `pearson` and `spearman` over heads (in [-1, 1]; NaN where one is constant); `overlap`, the share of
        the `k` strongest heads of the one that are among those of the other (in [0, 1]; by chance k / heads).

    Raises:
        TypeError: not two Datasets of scores.
        Refused: different layers or heads.
    """
    check_confidence(confidence, draws)
    second = _in_order_of(one_scorer(first), one_scorer(second))
    sides = [means_of(one_scorer(scores)) for scores in (first, second)]
    if any(not np.array_equal(sides[0][dim], sides[1][dim]) for dim in ("layer", "head")):
        raise Refused(
            "wanted scores of the same layers and heads, got those of layers "
            f"{' and '.join(str(side['layer'].values.tolist()) for side in sides)}, heads "
            f"{' and '.join(str(side['head'].values.tolist()) for side in sides)}"
        )
    a, b = (side["mean"].transpose("layer", "head").values for side in sides)
    low, high = _difference_interval(first, second, confidence, draws, seed)
    strongest = [set(top_heads(scores, k)) for scores in (first, second)]
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
        coords={dim: sides[0][dim] for dim in dims},
        attrs={"first": str(first.attrs.get("method", "")), "second": str(second.attrs.get("method", ""))},
    )


def _in_order_of(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """The second with layers and heads in the order of the first, where they have the same."""
    for dim in ("layer", "head"):
        if set(first[dim].values.tolist()) == set(second[dim].values.tolist()):
            second = second.sel({dim: first[dim].values})
    return second


def _difference_interval(
    first: xr.Dataset, second: xr.Dataset, confidence: float, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if any("score" not in scores or "prompt" not in scores["score"].dims for scores in (first, second)):
        nothing = np.full(first.sizes["layer"] * first.sizes["head"], np.nan)
        return nothing, nothing
    a, b = (
        scores["score"].transpose("prompt", "layer", "head").values.astype(np.float64)
        for scores in (first, second)
    )
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    options: dict[str, Any] = {"confidence": confidence, "draws": draws, "seed": checked_seed(seed)}
    return mean_interval(b - a, **options) if len(a) == len(b) else difference_interval(a, b, **options)

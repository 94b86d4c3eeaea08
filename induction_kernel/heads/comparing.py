"""Do two scores agree about the heads? It compares results; it runs no model."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from ..errors import Refused
from ..given import checked_seed
from .choosing import top_heads
from .summary import bootstrap, check_options, means_of, one_scorer

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
    check_options(confidence, draws)
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
    varied = a.std() > 0 and b.std() > 0
    ranks = [stats.rankdata(values) for values in (a, b)]
    strongest = [set(top_heads(scores, k)) for scores in (first, second)]
    dims = ("layer", "head")
    return xr.Dataset(
        {
            "first": (dims, a),
            "second": (dims, b),
            "difference": (dims, b - a),
            "low": (dims, low.reshape(a.shape)),
            "high": (dims, high.reshape(a.shape)),
            "pearson": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) if varied else float("nan"),
            "spearman": float(np.corrcoef(*ranks)[0, 1]) if varied else float("nan"),
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
    rng = np.random.default_rng(checked_seed(seed))
    if len(a) == len(b):
        return bootstrap(b - a, confidence, draws, rng)
    means = [rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=draws) / len(x) @ x for x in (a, b)]
    low, high = np.quantile(means[1] - means[0], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high

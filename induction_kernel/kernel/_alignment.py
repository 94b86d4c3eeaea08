"""Kernel alignment: the correlation of heads' weights of demonstrations with similarities to the query.

Alignment (Han et al. 2025, section 5.3) is Pearson's r between the weights a_i and sim(x, x_i): within a prompt, over
its demonstrations, averaged over prompts; and pooled over all pairs of query and demonstration, as in the paper, which
lengths of prompts and places of demonstrations can bring about too. It runs no model: weights and similarities are
given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..stats._correlations import pooled_correlation
from ..stats._means import check_confidence, mean_interval
from ._paired import CONSTANT, bare, same_demonstrations, with_coordinates

__all__ = ["kernel_alignment"]

AT_ONCE = 2**24  # numbers of permuted similarities alive at a time


def kernel_alignment(
    weights: xr.Dataset,
    similarities: xr.Dataset,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    level: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    """How far heads weigh demonstrations by their similarity to the query: Pearson's r, within prompts and pooled.

    `alignment`, and its `mean` over prompts, is r over the demonstrations of one prompt: what differs between prompts
    cannot bring it about. `pooled` is r over all pairs of query and demonstration, as in the paper. It is confounded
    by length and recency: weights are larger in short prompts, and at some places, whatever is similar, and so may
    similarities be.

    Args:
        weights: `weight[prompt, ..., demonstration]`, of `demonstration_weights`, `predict` or
            `kernel_regression`.
        similarities: `similarity[prompt, ..., demonstration]` of the same prompts, from `next_token_similarity` or
            `explicit_similarity`. Dimensions of one name (layer, head) go together, others (kernel) are crossed.
        confidence: of the intervals over prompts, the units of both: demonstrations of one prompt are not independent.
        draws: of the bootstrap and of the permutations.
        level: chance that any cell at all passes where no similarity matters.
        seed: of both.

    Returns:
        Dataset with `alignment[prompt, ...]` (Pearson's r in [-1, 1], within a prompt; NaN where weights or
        similarities of a prompt are all the same, or there is one demonstration), and over the cells alone `mean` (over
        prompts where it is defined; their number is `n`), `low`, `high`, `threshold` and `passes`; `pooled`,
        `pooled_low` and `pooled_high` (NaN where either never varies; no interval from fewer than 3 prompts). 1 where
        the weights are the similarities up to a factor and a constant. The threshold is a max-statistic: the
        similarities of every prompt are permuted over its demonstrations, in all cells alike, and the largest mean over
        all cells, in units of its spread under permutation, is kept; cells pass together at the stated level. It takes
        the order of demonstrations to be random: where they were sorted by similarity, a head that reads by position
        passes too. And it is blind to the reason: longer demonstrations may have both a larger maximum of attention and
        another similarity.

    Raises:
        TypeError: not such Datasets. Refused: not of the same prompts and demonstrations; an option out of range.

    Source: Han et al. 2025, section 5.3 (pooled r; r within a prompt is ours, and so are the intervals and the
    threshold, the latter by Westfall & Young 1993).
    """
    check_confidence(confidence, draws)
    if not 0 < level < 1:
        raise Refused(f"wanted level between 0 and 1, got {level}")
    there = same_demonstrations(weights, "weight", similarities, "similarity")
    first, count = np.argsort(~there, axis=1, kind="stable"), there.sum(1)
    (a, a_varies), (b, b_varies) = (
        _standardised(each, first, count) for each in (weights["weight"], similarities["similarity"])
    )
    r = xr.dot(a, b, dim="demonstration").where(a_varies & b_varies).clip(-1, 1)
    cells = [dim for dim in r.dims if dim != "prompt"]
    r = r.transpose("prompt", *cells)
    rng = np.random.default_rng(checked_seed(seed))
    n = r.notnull().sum("prompt")
    ends = mean_interval(r.values, confidence=confidence, draws=draws, seed=checked_seed(seed))
    low, high = (r.isel(prompt=0, drop=True).copy(data=end) for end in ends)
    each = xr.DataArray(1 / np.maximum(count - 1, 1), dims="prompt")  # the variance of r under permutation
    spread = np.sqrt(each.where(r.notnull()).sum("prompt")) / n.where(n > 0)
    threshold = (
        _critical(a.where(a_varies, 0), b.where(b_varies, 0), count, spread * n, level, draws, rng) * spread
    )
    mean = r.mean("prompt")
    out = xr.Dataset(
        {
            "alignment": r, "mean": mean, "low": low, "high": high, "threshold": threshold,
            "passes": mean > threshold, "n": n,
        } | _pooled(weights["weight"], similarities["similarity"], there, cells, confidence)
    )  # fmt: skip
    return with_coordinates(out, similarities, weights).assign_attrs(
        method="kernel_alignment",
        unit="Pearson's r",
        **{key: weights.attrs[key] for key in ("model", "pooling", "span") if key in weights.attrs},
        weights=str(weights.attrs.get("method", "")),
        similarities=str(similarities.attrs.get("method", "")),
        level=level,
        seed=checked_seed(seed),
        n_prompts=len(count),
    )


def _standardised(
    values: xr.DataArray, first: np.ndarray, count: np.ndarray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Values less their mean and of length 1 over the demonstrations of a prompt; and whether they vary at all.

    Those that are there come first; the rest is 0.
    """
    values = bare(values).transpose("prompt", ..., "demonstration")
    middle = [1] * (values.ndim - 2)
    order = first.reshape(len(first), *middle, -1)
    there = np.arange(first.shape[1]) < count.reshape(-1, *middle, 1)
    x = np.where(there, np.take_along_axis(values.values, order, -1), np.nan)
    mean = np.where(there, x, 0).sum(-1, keepdims=True) / count.reshape(-1, *middle, 1)
    centred = np.where(there, x - mean, 0)
    size, length = np.where(there, np.abs(x), 0).max(-1), np.sqrt(np.square(centred).sum(-1))
    varies = (np.abs(centred).max(-1) > CONSTANT * size) & np.isfinite(length)
    unit = np.divide(centred, length[..., None], out=np.zeros_like(centred), where=varies[..., None])
    return values.copy(data=unit), values.isel(demonstration=0, drop=True).copy(data=varies)


def _pooled(
    a: xr.DataArray, b: xr.DataArray, there: np.ndarray, cells: list[Any], confidence: float
) -> dict[str, xr.DataArray]:
    """Pearson's r over all demonstrations of all prompts, by cell, and its interval with prompts as units."""
    shown = xr.DataArray(there, dims=("prompt", "demonstration"))
    (a, a_known), (b, b_known) = (_centred_over_all(bare(each), shown) for each in (a, b))
    known = a_known & b_known
    sums = [xr.dot(*each, dim="demonstration") for each in ((a, shown), (b, shown), (a, a), (b, b), (a, b))]
    of_prompt = [
        (known * each).transpose("prompt", *cells).values for each in (shown.sum("demonstration"), *sums)
    ]
    like = known.isel(prompt=0, drop=True).transpose(*cells)
    found = pooled_correlation(*of_prompt, confidence=confidence)
    return {
        key: like.copy(data=value)
        for key, value in zip(("pooled", "pooled_low", "pooled_high"), found, strict=True)
    }


def _centred_over_all(values: xr.DataArray, shown: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Values less their mean over all pairs, over their largest size, 0 where there are none; prompts all finite."""
    finite: xr.DataArray = values.notnull() & (abs(values) < np.inf)
    known = (finite | ~shown).all("demonstration")
    used = values.where(shown & known)
    centred = used - used.mean(("prompt", "demonstration"))
    size = abs(used).max(("prompt", "demonstration"))
    varies = abs(centred).max(("prompt", "demonstration")) > CONSTANT * size
    return (centred / size).where(varies, 0).fillna(0), known


def _critical(
    a: xr.DataArray,
    b: xr.DataArray,
    count: np.ndarray,
    spread: xr.DataArray,
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """The quantile over permutations of the largest sum of r over all cells, in units of its `spread`."""
    largest, size = [], max(1, AT_ONCE // b.size)
    beyond = np.arange(b.sizes["demonstration"]) >= count[:, None]
    middle = [1] * (b.ndim - 2)
    for begin in range(0, draws, size):
        keys = rng.random((min(size, draws - begin), *beyond.shape))
        order = np.argsort(np.where(beyond, np.inf, keys), axis=-1, kind="stable")
        order = order.reshape(*order.shape[:2], *middle, -1)
        permuted = xr.DataArray(np.take_along_axis(b.values[None], order, -1), b.coords, ("draw", *b.dims))
        sums = xr.dot(a, permuted, dim=("prompt", "demonstration"), optimize=True) / spread
        largest.append(sums.max([dim for dim in sums.dims if dim != "draw"]).values)
    return float(np.quantile(np.concatenate(largest), 1 - level))

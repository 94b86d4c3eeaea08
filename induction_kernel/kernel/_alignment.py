"""`kernel_alignment`: correlation between heads' weights of demonstrations and their similarity to the query.

Alignment (Han et al. 2025, section 5.3) is Pearson's r between the weights a_i and sim(x, x_i). It is computed within
prompts, over the demonstrations of one, and averaged; and pooled over all pairs of query and demonstration, as in the
paper, where lengths of prompts and places of demonstrations can also cause it. The threshold is a max-statistic like
that of `stats/_thresholds`, but its null is that similarities are permuted within prompts, so it is computed here. No
model is run: weights and similarities are given.
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

AT_ONCE = 2**24  # permuted similarities in memory at a time


def kernel_alignment(
    weights: xr.Dataset,
    similarities: xr.Dataset,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    level: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    """Correlation of weights with similarities to the query, for every head: Pearson's r within prompts, and pooled.

    `alignment` is r over the demonstrations of one prompt, and `mean` its mean over prompts: differences between
    prompts cannot cause it. `pooled` is r over all pairs of query and demonstration, as in the paper. It is confounded
    by length and recency: weights, and perhaps similarities, are larger in short prompts and at some places, whatever
    the texts.

    Args:
        weights: Dataset with `weight[prompt, ..., demonstration]`, of `demonstration_weights`, `fewshot.predict` or
            `kernel_regression`.
        similarities: Dataset with `similarity[prompt, ..., demonstration]` for the same prompts, of
            `next_token_similarity` or `explicit_similarity`. Dimensions that both have (layer, head) are matched,
            others (kernel) are crossed; each combination is a cell.
        confidence: of the intervals. Their units are prompts, as demonstrations of one prompt are not independent.
        draws: of the bootstrap and of the permutations.
        level: probability that any cell at all passes if similarities do not matter.
        seed: of the bootstrap and of the permutations.

    Returns:
        Dataset. All correlations are in [-1, 1], and 1 if weights are similarities up to a factor and a constant.

        | variable | meaning |
        |---|---|
        | `alignment[prompt, ...]` | r within the prompt; NaN if its weights or its similarities are all equal |
        | `mean`, `low`, `high` | mean over the prompts in which it is defined, and its interval |
        | `n` | number of these prompts |
        | `threshold`, `passes` | value that the mean must exceed, and whether it does |
        | `pooled`, `pooled_low`, `pooled_high` | r over all pairs, and its interval (from 3 prompts on) |

        The threshold is a max-statistic over all cells: similarities are permuted within prompts, in all cells alike,
        and the largest mean, in units of its spread under permutation, is kept from every draw. It assumes that
        demonstrations are in random order: if they are sorted by similarity, a head that reads by position passes too.
        It does not show the reason: longer demonstrations may have a larger maximum of attention, and another
        similarity.

    Raises:
        TypeError: not such Datasets.
        Refused: Datasets of different prompts or demonstrations; an option out of its range.

    Source: Han et al. 2025, section 5.3 (pooled r); Westfall & Young 1993 (max-statistic). The correlation within
    prompts, the intervals and the use of the threshold are this package's.
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
    ends = mean_interval(r.values, confidence=confidence, draws=draws, seed=checked_seed(seed))
    low, high = (r.isel(prompt=0, drop=True).copy(data=end) for end in ends)
    rng = np.random.default_rng(checked_seed(seed))
    threshold = _threshold(a.where(a_varies, 0), b.where(b_varies, 0), r, count, level, draws, rng)
    mean, n = r.mean("prompt"), r.notnull().sum("prompt")
    variables = {"alignment": r, "mean": mean, "low": low, "high": high, "threshold": threshold}
    variables |= {"passes": mean > threshold, "n": n}
    variables |= _pooled(weights["weight"], similarities["similarity"], there, cells, confidence)
    out = xr.Dataset(variables)
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
    """Values centred and scaled to length 1 over each prompt's demonstrations; and whether they vary, `[prompt, ...]`.

    Args:
        values: `[prompt, ..., demonstration]`.
        first: `[prompt, demonstration]`, an order in which demonstrations that exist come first.
        count: `[prompt]`, how many exist; the other values become 0.
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
    """Pearson's r over the demonstrations of all prompts, by cell, and its interval with prompts as units."""
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
    """Values centred over all pairs and divided by their largest absolute value; and which prompts can be used.

    Values are 0 where there is no demonstration, and a prompt `[prompt, ...]` is used if all its values are finite.
    """
    finite: xr.DataArray = values.notnull() & (abs(values) < np.inf)
    known = (finite | ~shown).all("demonstration")
    used = values.where(shown & known)
    centred = used - used.mean(("prompt", "demonstration"))
    size = abs(used).max(("prompt", "demonstration"))
    varies = abs(centred).max(("prompt", "demonstration")) > CONSTANT * size
    return (centred / size).where(varies, 0).fillna(0), known


def _threshold(
    a: xr.DataArray,
    b: xr.DataArray,
    r: xr.DataArray,
    count: np.ndarray,
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> xr.DataArray:
    """The mean of r `[...]` that each cell must exceed: the critical max-statistic times the spread of its mean.

    Args:
        a: standardised weights `[prompt, ..., demonstration]`, 0 where they do not vary.
        b: standardised similarities, likewise.
        r: `[prompt, ...]`, NaN where it is not defined.
        count: `[prompt]`, number of demonstrations.
        level: probability that any cell passes under permutation.
        draws: number of permutations.
        rng: of the permutations.
    """
    n = r.notnull().sum("prompt")
    variance = xr.DataArray(1 / np.maximum(count - 1, 1), dims="prompt")  # of r under permutation
    spread: Any = np.sqrt(variance.where(r.notnull()).sum("prompt")) / n.where(n > 0)
    return _critical(a, b, count, spread * n, level, draws, rng) * spread


def _critical(
    a: xr.DataArray,
    b: xr.DataArray,
    count: np.ndarray,
    spread: xr.DataArray,
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> float:
    """The quantile over permutations of the largest sum of r over prompts, in units of its `spread`, of all cells."""
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

"""Heads' weights of demonstrations beside similarities to the query: correlation, and the bandwidth of a kernel.

Alignment (Han et al. 2025, section 5.3) is Pearson's r between the weights a_i and sim(x, x_i): within a prompt, over
its demonstrations, averaged over prompts; and pooled over all pairs of query and demonstration, as in the paper, which
lengths of prompts and places of demonstrations can bring about too. Bandwidth: if a_i is proportional to
exp(<q, k_i> / h), log a_i is a line in <q, k_i> with the slope 1/h, and an intercept for each prompt. It runs no model:
weights and similarities are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..heads._names import Head
from ..stats._correlations import pooled_correlation
from ..stats._means import check_confidence, mean_interval
from ..stats._ratios import ratio
from ._kernels import EXPONENTIALS, as_representation, checked_kernels, scores_of, weighted

__all__ = ["fitted_bandwidth", "kernel_alignment"]

CONSTANT = 1e-9  # spread, relative to the size, below which there is nothing to correlate
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
    there = _same_demonstrations(weights, "weight", similarities, "similarity")
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
    return _with_coordinates(out, similarities, weights).assign_attrs(
        method="kernel_alignment",
        unit="Pearson's r",
        **{key: weights.attrs[key] for key in ("model", "pooling", "span") if key in weights.attrs},
        weights=str(weights.attrs.get("method", "")),
        similarities=str(similarities.attrs.get("method", "")),
        level=level,
        seed=checked_seed(seed),
        n_prompts=len(count),
    )


def _same_demonstrations(a: xr.Dataset, a_name: str, b: xr.Dataset, b_name: str) -> np.ndarray:
    """`[prompt, demonstration]`, which there are, if both Datasets are of the same ones."""
    one, other = _classes(a, a_name), _classes(b, b_name)
    if not np.array_equal(one, other):
        raise Refused(
            "wanted both of the same prompts and demonstrations in the same order, got label classes "
            f"{list(one.shape)} and {list(other.shape)} that differ: make both from the same episodes"
        )
    return one >= 0


def _classes(ds: Any, variable: str) -> np.ndarray:
    """`[prompt, demonstration]`, the classes in a Dataset of weights or similarities."""
    good = isinstance(ds, xr.Dataset) and variable in ds and "label_class" in ds.coords
    if not good or not {"prompt", "demonstration"} <= set(ds[variable].dims):
        raise TypeError(
            f"wanted a Dataset with `{variable}` over prompt and demonstration, and `label_class`, "
            f"got {list(ds.variables) if isinstance(ds, xr.Dataset) else type(ds).__name__}"
        )
    return ds["label_class"].transpose("prompt", "demonstration").values


def _with_coordinates(out: xr.Dataset, *sources: xr.Dataset) -> xr.Dataset:
    """The result with the sources' coordinates that fit, and the heads' names."""
    for ds in sources:
        kept = [
            key
            for key, value in ds.coords.items()
            if set(value.dims) <= set(out.dims) and key not in out.dims
        ]
        out = (
            out.assign_coords({key: ds[key].reset_coords(drop=True).reindex_like(out) for key in kept})
            if kept
            else out
        )
    if {"layer", "head"} <= set(out.dims):
        names = [[str(Head(layer, head)) for head in out["head"].values] for layer in out["layer"].values]
        out = out.assign_coords(name=(("layer", "head"), names))
    return out


def _bare(values: xr.DataArray) -> xr.DataArray:
    """In float64, without coordinates but those by which layers, heads and kernels find one another."""
    kept = [key for key in values.coords if key in values.dims and key not in ("prompt", "demonstration")]
    return values.drop_vars([key for key in values.coords if key not in kept]).astype(np.float64)


def _standardised(
    values: xr.DataArray, first: np.ndarray, count: np.ndarray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Values less their mean and of length 1 over the demonstrations of a prompt; and whether they vary at all.

    Those that are there come first; the rest is 0.
    """
    values = _bare(values).transpose("prompt", ..., "demonstration")
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
    (a, a_known), (b, b_known) = (_centred_over_all(_bare(each), shown) for each in (a, b))
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


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b != 0)


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


def fitted_bandwidth(
    weights: xr.Dataset,
    queries: Any,
    demonstrations: Any = None,
    *,
    kernel: str | Iterable[str] = "exponential",
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """At which bandwidth does a kernel give a head's weights, and how well?

    Log weights are fitted within prompts, by least squares: log a_i = <q, k_i> / h + c for "exponential",
    -|q - k_i|^2 / (2 h^2) + c for "gaussian", one h for all prompts and a c for each.

    Args:
        weights: as in `kernel_alignment`.
        queries: the Dataset of `representations`, of the same prompts; or an array `[prompt, feature]` and then also
        demonstrations: `[prompt, demonstration, feature]`.
        kernel: "exponential", "gaussian" or both.
        confidence: of the interval over prompts.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Dataset over the dimensions of both (layer, head), and `kernel` where several are asked: `bandwidth` with `low`
        and `high` (infinite where the slope may as well be 0, so that all weights are equal), NaN where nearer
        demonstrations weigh less; `fit`, the share of the variance within prompts that the line explains (in [0, 1]);
        and `n`, the weights used. Weights of 0, which have no logarithm, are left out.

    Raises:
        TypeError: not such Datasets. Refused: not of the same prompts and demonstrations; a kernel without a
        bandwidth; an option out of range.

    Source: Han et al. 2025, section 3 (attention as an exponential kernel); the fit is ours.
    """
    check_confidence(confidence, draws)
    names = checked_kernels(kernel)
    if not set(names) <= set(EXPONENTIALS):
        raise Refused(f"wanted kernels with a bandwidth, {list(EXPONENTIALS)}, got {kernel!r}")
    classes = _classes(weights, "weight")
    found = as_representation(queries, demonstrations, None if isinstance(queries, xr.Dataset) else classes)
    parts = [_line(weights, found, name, confidence, draws, checked_seed(seed)) for name in names]
    out = parts[0]
    if not isinstance(kernel, str):
        out = xr.concat(parts, dim="kernel", coords="minimal", compat="override").assign_coords(kernel=names)
        out = out.transpose(..., "kernel")
    return out.assign_attrs(method="fitted_bandwidth", weights=str(weights.attrs.get("method", "")))


def _line(
    weights: xr.Dataset,
    found: xr.Dataset,
    kernel: str,
    confidence: float,
    draws: int,
    seed: int,
) -> xr.Dataset:
    """The least-squares line of log weights in the kernel's scores, with an intercept for each prompt."""
    scores = weighted(found, "score", scores_of(found, kernel))
    _same_demonstrations(weights, "weight", scores, "score")
    w, x = _bare(weights["weight"]), _bare(scores["score"])
    y, x = xr.broadcast(w.where(w > 0).pipe(np.log), x)
    used = np.isfinite(x) & np.isfinite(y)
    n_used = used.sum([dim for dim in used.dims if dim in ("prompt", "demonstration")])
    x, y = _centred(x.where(used)), _centred(y.where(used))
    xy, xx, yy = (
        (one * other).sum("demonstration").transpose("prompt", ...) for one, other in ((x, y), (x, x), (y, y))
    )
    n, like = len(xy), xy.isel(prompt=0, drop=True)
    flat_xy, flat_xx, flat_yy = (each.values.reshape(n, -1) for each in (xy, xx, yy))
    _, least, most = ratio(flat_xy, flat_xx, confidence=confidence, draws=draws, seed=seed)
    slope = _ratio(flat_xy.sum(0), flat_xx.sum(0))
    values = {
        "bandwidth": _bandwidth(slope, kernel),
        "low": _bandwidth(most, kernel),
        "high": np.where(most < 0, np.nan, _bandwidth(np.maximum(least, 0), kernel)),
        "fit": _ratio(flat_xy.sum(0) ** 2, flat_xx.sum(0) * flat_yy.sum(0)),
    }
    out = xr.Dataset({key: like.copy(data=value.reshape(like.shape)) for key, value in values.items()})
    return _with_coordinates(out.assign(n=n_used), found, weights)


def _centred(values: xr.DataArray) -> xr.DataArray:
    """Values less their mean over a prompt's demonstrations; 0 where they do not vary, or are missing."""
    out = values - values.mean("demonstration")
    varies = abs(out).max("demonstration") > CONSTANT * abs(values).max("demonstration")
    return out.where(varies, 0).fillna(0)


def _bandwidth(slope: np.ndarray, kernel: str) -> np.ndarray:
    """h of 1/h, or of 1/h^2: infinite at 0, NaN below."""
    inverse = _ratio(np.ones_like(slope), np.maximum(slope, 0))
    inverse = np.where(slope == 0, np.inf, np.where(slope > 0, inverse, np.nan))
    return inverse if kernel == "exponential" else np.sqrt(inverse)

"""`fitted_bandwidth`: the bandwidth at which a kernel comes closest to a head's weights, by least squares.

If a_i is proportional to exp(<q, k_i> / h), then log a_i is a linear function of <q, k_i> with slope 1/h and an
intercept for each prompt. No model is run: weights and representations are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..stats._means import check_confidence
from ..stats._ratios import ratio
from ._kernels import EXPONENTIALS, as_representation, checked_kernels, scores_of, weighted
from ._paired import CONSTANT, bare, classes_of, same_demonstrations, with_coordinates

__all__ = ["fitted_bandwidth"]


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
    """Bandwidth of the exponential or Gaussian kernel that best fits a head's weights, and how well it fits.

    Log weights are fitted by least squares: log a_i = <q, k_i> / h + c for "exponential", -|q - k_i|^2 / (2 h^2) + c
    for "gaussian", with one h for all prompts and one c for each prompt. Weights of 0, which have no logarithm, are
    left out.

    Args:
        weights: Dataset with `weight[prompt, ..., demonstration]`, as in `kernel_alignment`.
        queries: the Dataset of `representations` for the same prompts; or an array `[prompt, feature]`.
        demonstrations: with an array, `[prompt, demonstration, feature]`; otherwise left out.
        kernel: "exponential", "gaussian", or both in a list.
        confidence: of the interval over prompts.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Dataset over the dimensions of both (layer, head), and over `kernel` if a list of them was given:
        `bandwidth`, in the unit of <q, k> or of |q - k|, with `low` and `high`: infinite if the slope may be 0, that
        is, all weights equal; NaN if nearer demonstrations weigh less. `fit`, the share of the variance within prompts
        that the fit explains, in [0, 1]. `n`, the number of weights used.

    Raises:
        TypeError: not such Datasets.
        Refused: other prompts or demonstrations than the weights'; a kernel without a bandwidth; an option out of its
            range.

    Source: Han et al. 2025, section 3 (attention as an exponential kernel); the fit is this package's.
    """
    check_confidence(confidence, draws)
    names = checked_kernels(kernel)
    if not set(names) <= set(EXPONENTIALS):
        raise Refused(f"wanted kernels with a bandwidth, {list(EXPONENTIALS)}, got {kernel!r}")
    classes = classes_of(weights, "weight")
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
    """The fit of log weights to one kernel's scores: `bandwidth`, `low`, `high`, `fit` and `n`."""
    scores = weighted(found, "score", scores_of(found, kernel))
    same_demonstrations(weights, "weight", scores, "score")
    w, x = bare(weights["weight"]), bare(scores["score"])
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
    return with_coordinates(out.assign(n=n_used), found, weights)


def _centred(values: xr.DataArray) -> xr.DataArray:
    """Values less their mean over each prompt's demonstrations; 0 where they do not vary or are missing."""
    out = values - values.mean("demonstration")
    varies = abs(out).max("demonstration") > CONSTANT * abs(values).max("demonstration")
    return out.where(varies, 0).fillna(0)


def _bandwidth(slope: np.ndarray, kernel: str) -> np.ndarray:
    """The bandwidth h from the slope 1/h (exponential) or 1/h^2 (Gaussian): infinite for slope 0, NaN below 0."""
    inverse = _ratio(np.ones_like(slope), np.maximum(slope, 0))
    inverse = np.where(slope == 0, np.inf, np.where(slope > 0, inverse, np.nan))
    return inverse if kernel == "exponential" else np.sqrt(inverse)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b != 0)

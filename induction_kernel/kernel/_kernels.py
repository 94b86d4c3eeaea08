"""Exponential, Gaussian, cosine and linear kernels between a query and demonstrations, and the weights they give.

For a query q, the vectors k_i of the demonstrations, and a bandwidth h:

    exponential  K = exp(<q, k> / h)        gaussian  K = exp(-|q - k|^2 / (2 h^2))
    cosine       K = <q, k> / (|q| |k|)     linear    K = <q, k>

Attention is kernel regression with the exponential kernel (Han et al. 2025, section 3); the others are usual choices
for the Nadaraya-Watson estimator (1964). The weight of demonstration i is K_i / sum_j K_j, computed in log space for
the exponential and Gaussian kernels, so that no bandwidth, however small, gives 0/0. A weight is a share of a vote, so
negative values of the cosine and linear kernels count as 0: a demonstration that points away from the query has no
vote, and none against its own class. If no value is positive, all weights are equal. Bandwidths are chosen in
`_regression`, and vectors are made in `_representations`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused

__all__ = [
    "EXPONENTIALS", "KERNELS", "as_representation", "checked_bandwidth", "checked_kernels", "kernel_scores",
    "kernel_shares", "scores_of", "source_dims", "weighted",
]  # fmt: skip

KERNELS = ("exponential", "gaussian", "cosine", "linear")
EXPONENTIALS = ("exponential", "gaussian")  # those with a bandwidth


def kernel_scores(queries: np.ndarray, demonstrations: np.ndarray, kernel: str) -> np.ndarray:
    """The scores that kernels are functions of: <q, k>, -|q - k|^2 / 2 or the cosine, in float64.

    Every pair is computed by itself and in the same way, so equal demonstrations have scores that are equal to the last
    bit, and ties stay ties at any bandwidth.

    Args:
        queries: `[..., feature]`.
        demonstrations: `[..., demonstration, feature]`, with leading dimensions that broadcast against the queries'.
        kernel: one of `KERNELS`.

    Returns:
        `[..., demonstration]`; NaN where a demonstration is missing (its features are NaN). The cosine with a vector of
        length 0 is 0.

    Raises:
        Refused: scores beyond the range of float64.
    """
    q = np.asarray(queries, dtype=np.float64)
    pairs = (
        _score(q, np.asarray(demonstrations[..., j, :], dtype=np.float64), kernel)
        for j in range(demonstrations.shape[-2])
    )
    scores = np.stack(list(pairs), axis=-1)
    if np.isinf(scores).any():
        raise Refused("a kernel value is beyond the range of float64: scale the representations down")
    return scores


def _score(q: np.ndarray, k: np.ndarray, kernel: str) -> np.ndarray:
    """The scores of queries with one demonstration each, `[..., feature]` both."""
    with np.errstate(over="ignore"):  # `kernel_scores` refuses infinite scores
        if kernel == "gaussian":
            return -np.square(q - k).sum(-1) / 2
        inner = np.einsum("...d,...d->...", q, k)
        if kernel != "cosine":
            return inner
        norms = np.sqrt(np.square(q).sum(-1) * np.square(k).sum(-1))
    return np.divide(inner, norms, out=np.where(np.isnan(inner), np.nan, 0.0), where=norms > 0)


def kernel_shares(scores: np.ndarray, kernel: str, bandwidth: float | np.ndarray = 1.0) -> np.ndarray:
    """The weights of demonstrations: kernel values over their sum, by log-sum-exp if they are exponentials.

    Args:
        scores: `[..., demonstration]` of `kernel_scores`; NaN where a demonstration is missing.
        kernel: one of `KERNELS`.
        bandwidth: above 0, or infinity; a number, or an array that broadcasts against `scores[..., 0]`. Not used by
            the cosine and linear kernels.

    Returns:
        `[..., demonstration]`, in [0, 1], summing to 1; NaN where a demonstration is missing. As the bandwidth goes to
        0, the nearest demonstration gets all weight (shared if several are equally near); as it goes to infinity, all
        weights become equal.
    """
    present = ~np.isnan(scores)
    if kernel in EXPONENTIALS:
        h = np.asarray(bandwidth, dtype=np.float64)[..., None]
        top = np.where(present, scores, -np.inf).max(-1, keepdims=True)
        with np.errstate(over="ignore", under="ignore"):
            shifted = (scores - top) / h  # 0 at the nearest demonstration, below 0 at others
            values = np.exp(shifted / h if kernel == "gaussian" else shifted)
    else:
        values = np.maximum(scores, 0.0)  # NaN stays
        nothing = ~(values > 0).any(-1, keepdims=True)
        values = np.where(nothing & present, 1.0, values)
    return values / np.nansum(values, axis=-1, keepdims=True)


def as_representation(queries: Any, demonstrations: Any = None, label_class: Any = None) -> xr.Dataset:
    """Queries and demonstrations as a Dataset in the form of `representations`, checked.

    Args:
        queries: such a Dataset, or an array `[prompt, feature]`.
        demonstrations: with an array, `[prompt, demonstration, feature]` or, if all prompts share them,
            `[demonstration, feature]`; NaN where a prompt has fewer.
        label_class: with an array, classes in the shape of the demonstrations without features, -1 where one is
            missing. None if classes are not needed: they are then 0.

    Raises:
        TypeError: something else, or arrays of other things than numbers.
        Refused: shapes that do not fit each other, numbers that are not finite, a class without features or features
            without a class, a prompt without demonstrations.
    """
    if not isinstance(queries, xr.Dataset):
        found = _of_arrays(queries, demonstrations, label_class)
    elif demonstrations is not None or label_class is not None:
        raise TypeError("the Dataset of representations(...) has demonstrations and classes: pass it alone")
    elif not {"queries", "demonstrations"} <= set(queries.data_vars) or "label_class" not in queries.coords:
        raise TypeError(
            "wanted the Dataset of representations(...), with `queries`, `demonstrations` and `label_class`, "
            f"got {list(queries.variables)}"
        )
    else:
        found = queries
    _check_numbers(found)
    return found


def source_dims(found: xr.Dataset) -> tuple[str, ...]:
    """The dimensions of representations besides prompt, demonstration and feature: (layer, head), (layer,) or ()."""
    dims = found["queries"].dims
    return tuple(str(dim) for dim in dims if dim not in ("prompt", "feature"))


def scores_of(found: xr.Dataset, kernel: str) -> np.ndarray:
    """The kernel scores of every query with its demonstrations, `[prompt, *source, demonstration]`."""
    source = source_dims(found)
    q = found["queries"].transpose("prompt", *source, "feature").values
    k = found["demonstrations"]
    k = k.transpose("prompt", *source, "demonstration", "feature", missing_dims="ignore").values
    return kernel_scores(q, k, kernel)


def weighted(found: xr.Dataset, name: str, values: np.ndarray) -> xr.Dataset:
    """Values `[prompt, *source, demonstration]` as variable `name`, with the coordinates of the representations."""
    out = xr.Dataset({name: (("prompt", *source_dims(found), "demonstration"), values)})
    coords = {key: value for key, value in found.coords.items() if "feature" not in value.dims}
    label_class = found["label_class"].broadcast_like(out[name].isel(dict.fromkeys(source_dims(found), 0)))
    return out.assign_coords(coords | {"label_class": label_class.transpose("prompt", "demonstration")})


def _of_arrays(queries: Any, demonstrations: Any, label_class: Any) -> xr.Dataset:
    """A Dataset of representations from arrays; TypeError or Refused if they do not fit each other."""
    if demonstrations is None:
        raise TypeError(
            "wanted demonstrations with an array of queries, or the Dataset of representations(...)"
        )
    q, k = _floating(queries), _floating(demonstrations)
    if (
        q.ndim != 2
        or k.ndim not in (2, 3)
        or q.shape[-1] != k.shape[-1]
        or (k.ndim == 3 and len(k) != len(q))
    ):
        raise Refused(
            "wanted queries [prompt, feature] and demonstrations [prompt, demonstration, feature] or [demonstration, "
            f"feature], got {list(q.shape)} and {list(k.shape)}: for heads and layers pass a Dataset of "
            "representations(...)"
        )
    y = np.where(np.isnan(k).all(-1), -1, 0) if label_class is None else np.asarray(label_class)
    if y.shape != k.shape[:-1] or y.dtype.kind not in "iu":
        raise Refused(
            f"wanted label_class as whole numbers {list(k.shape[:-1])}, got {y.dtype} {list(y.shape)}"
        )
    dims = ("prompt", "demonstration", "feature")[3 - k.ndim :]
    return xr.Dataset(
        {"queries": (("prompt", "feature"), q), "demonstrations": (dims, k)},
        coords={
            "label_class": (dims[:-1], y.astype(np.int64)),
            "target": ("prompt", np.full(len(q), -1)),
        },
    )


def _floating(values: Any) -> np.ndarray:
    """An array of floats, also from integers; TypeError for anything else."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"wanted representations as arrays of numbers, got {array.dtype}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _check_numbers(found: xr.Dataset) -> None:
    """Refused unless representations are finite where, and only where, there is a query or a demonstration."""
    missing = found["label_class"] < 0
    absent, finite = found["demonstrations"].isnull(), np.isfinite(found["demonstrations"])
    if not bool(np.isfinite(found["queries"]).all()) or not bool((finite | missing).all()):
        raise Refused(
            "wanted finite representations, with NaN only for missing demonstrations (label_class -1), got NaN or "
            "infinite numbers elsewhere"
        )
    if not bool((absent | ~missing).all()):
        raise Refused("wanted NaN as features of missing demonstrations (label_class -1), got numbers")
    if 0 in missing.shape or bool(missing.all("demonstration").any()):
        raise Refused(
            "wanted at least one prompt, and a demonstration in each: leave out prompts without any"
        )


def checked_kernels(kernel: Any) -> list[str]:
    """The names of the kernels asked for, from one name or several.

    Raises:
        Refused: an unknown kernel, none, or one twice.
    """
    names = (
        [kernel] if isinstance(kernel, str) else list(kernel) if isinstance(kernel, Iterable) else [kernel]
    )
    if not names or not all(name in KERNELS for name in names) or len(set(names)) < len(names):
        raise Refused(f"wanted one kernel of {list(KERNELS)}, or several different ones, got {kernel!r}")
    return names


def checked_bandwidth(bandwidth: Any) -> float | None:
    """The bandwidth as a number above 0, or infinity; None for "loo" (leave-one-out).

    Raises:
        Refused: anything else.
    """
    if isinstance(bandwidth, str) and bandwidth == "loo":
        return None
    number = isinstance(bandwidth, int | float | np.integer | np.floating) and not isinstance(bandwidth, bool)
    if not number or not float(bandwidth) > 0:
        raise Refused(f'wanted bandwidth="loo" or a number above 0, got {bandwidth!r}')
    return float(bandwidth)

"""`kernel_regression`: Nadaraya-Watson weights of the demonstrations, for a given kernel and representation.

    y_hat(q) = sum_i K_h(q, k_i) e(y_i) / sum_i K_h(q, k_i)

(Nadaraya 1964; Watson 1964; Han et al. 2025, section 3, and 5.4 for sentence embeddings). The weights K_h / sum K_h are
returned in the format of `demonstration_weights`, so that `vote` takes heads and explicit kernels alike. The bandwidth
h is given, or chosen by leave-one-out: every demonstration is predicted from the others. No model is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ._kernels import (
    EXPONENTIALS,
    as_representation,
    checked_bandwidth,
    checked_kernels,
    kernel_scores,
    kernel_shares,
    scores_of,
    source_dims,
    weighted,
)

__all__ = ["explicit_similarity", "kernel_regression"]

GRID = np.logspace(-3, 3, 61)  # bandwidths tried, in units of the spread of scores


def kernel_regression(
    queries: Any,
    demonstrations: Any = None,
    label_class: Any = None,
    *,
    kernel: str | Iterable[str] = "exponential",
    bandwidth: str | float = "loo",
) -> xr.Dataset:
    """The weights that kernel regression gives the demonstrations of each prompt.

    With "loo", leave-one-out chooses one bandwidth for all prompts (by layer and head), as one prompt's demonstrations
    are too few. Every demonstration is predicted from the others of its prompt (of the pool, if all prompts share it),
    and the bandwidth with the least mean squared error of the vote's shares is taken; of equally good ones, the
    largest. Tried are 61 bandwidths, a factor of 1.26 apart, from 1/1000 to 1000 times the spread of scores. Labels of
    queries are not used. In balanced prompts the class of the left-out demonstration is in the minority among the
    others, so wide bandwidths look worse than they are.

    Args:
        queries: the Dataset of `representations`, or an array `[prompt, feature]`.
        demonstrations: with an array, `[prompt, demonstration, feature]` or, if all prompts share them,
            `[demonstration, feature]`; NaN where a prompt has fewer.
        label_class: with an array, classes in the shape of the demonstrations without features, -1 where one is
            missing.
        kernel: "exponential" exp(<q,k>/h), "gaussian" exp(-|q-k|^2/(2h^2)), "cosine" or "linear", or a list of them.
            Negative values of the last two count as 0.
        bandwidth: h above 0 (infinity gives equal weights), in the unit of <q, k> or of |q - k|; or "loo". Cosine and
            linear have none.

    Returns:
        Dataset with `weight[prompt, ..., kernel, demonstration]`, shares in [0, 1] that sum to 1, NaN where a prompt
        has fewer demonstrations; and `bandwidth[..., kernel]`, NaN for kernels without one. The dots stand for the
        dimensions of the representations (layer, head), and `kernel` is there if a list of kernels was given.
        Coordinates are `label_class`, `target` and the others of the representations.

    Raises:
        TypeError: arrays of other things than numbers, or another Dataset.
        Refused: shapes that do not fit each other, an unknown kernel, a bandwidth of 0 or below; leave-one-out if no
            prompt has two demonstrations, or for a head's queries and keys, which cannot be exchanged (a head's own
            bandwidth is 1).

    Source: Nadaraya 1964; Watson 1964; Han et al. 2025, sections 3 and 5.4.
    """
    if not isinstance(queries, xr.Dataset) and label_class is None:
        raise TypeError(
            "wanted label_class, the class of every demonstration, with arrays of representations, got None"
        )
    found = as_representation(queries, demonstrations, label_class)
    return _by_kernel(found, kernel, bandwidth, "weight", kernel_shares).assign_attrs(
        method="kernel_regression", unit="share"
    )


def explicit_similarity(
    queries: Any,
    demonstrations: Any = None,
    label_class: Any = None,
    *,
    kernel: str | Iterable[str] = "exponential",
    bandwidth: str | float = "loo",
) -> xr.Dataset:
    """Similarity of every query to its demonstrations under explicit kernels, for `kernel_alignment`.

    Args:
        queries: as in `kernel_regression`.
        demonstrations: as in `kernel_regression`.
        label_class: as in `kernel_regression`; needed for leave-one-out only.
        kernel: as in `kernel_regression`.
        bandwidth: as in `kernel_regression`.

    Returns:
        Dataset with `similarity[prompt, ..., kernel, demonstration]`, otherwise as that of `kernel_regression`. For
        "exponential" and "gaussian" it is the kernel value's share of the prompt's sum, in [0, 1] (a factor does not
        change a correlation within the prompt); for "cosine" and "linear" the kernel value, which may be negative.

    Raises:
        TypeError: as in `kernel_regression`.
        Refused: as in `kernel_regression`.

    Source: Han et al. 2025, section 5.3, with explicit kernels in place of next-token distributions.
    """
    if not isinstance(queries, xr.Dataset) and label_class is None and checked_bandwidth(bandwidth) is None:
        raise TypeError(
            "leave-one-out needs label_class: pass the demonstrations' classes, or bandwidth=<number>"
        )
    found = as_representation(queries, demonstrations, label_class)

    def alike(scores: np.ndarray, name: str, h: np.ndarray) -> np.ndarray:
        return kernel_shares(scores, name, h) if name in EXPONENTIALS else scores

    return _by_kernel(found, kernel, bandwidth, "similarity", alike).assign_attrs(
        method="explicit_similarity", unit="kernel value"
    )


def _by_kernel(
    found: xr.Dataset,
    kernel: str | Iterable[str],
    bandwidth: str | float,
    variable: str,
    made_of: Callable[[np.ndarray, str, np.ndarray], np.ndarray],
) -> xr.Dataset:
    """A Dataset with `variable[prompt, *source, kernel, demonstration]`, which `made_of` computes for each kernel.

    `made_of` takes the kernel's scores, its name and its bandwidth `[*source]`.
    """
    names, given, source = checked_kernels(kernel), checked_bandwidth(bandwidth), source_dims(found)
    parts = []
    for name in names:
        h = _bandwidth(found, name, given)
        values = made_of(scores_of(found, name), name, h)
        parts.append(weighted(found, variable, values).assign(bandwidth=(source, h)))
    out = parts[0]
    if not isinstance(kernel, str):
        out = xr.concat(parts, dim="kernel", data_vars="all", coords="minimal", compat="override")
        out = out.assign_coords(kernel=names).transpose("prompt", *source, "kernel", "demonstration", ...)
    return out.assign_attrs(
        kernel=", ".join(names),
        rule="given" if given is not None else "leave-one-out",
        representation=str(found.attrs.get("representation", "arrays")),
    )


def _bandwidth(found: xr.Dataset, kernel: str, given: float | None) -> np.ndarray:
    """The bandwidth `[*source]`: as given, else by leave-one-out; NaN for a kernel that has none."""
    shape = tuple(found.sizes[dim] for dim in source_dims(found))
    if kernel not in EXPONENTIALS:
        return np.full(shape, np.nan)
    if given is not None:
        return np.full(shape, given)
    if found.attrs.get("representation") == "head":
        raise Refused(
            "leave-one-out compares demonstrations with each other, and a head's queries and keys cannot be exchanged: "
            "pass bandwidth=1.0, the head's own, or another number"
        )
    k = found["demonstrations"]
    k = k.transpose("prompt", *source_dims(found), "demonstration", "feature", missing_dims="ignore").values
    y = found["label_class"].transpose(..., "demonstration").values
    return left_out(k[None], y[None], kernel) if k.ndim == 2 else left_out(k, y, kernel)


def left_out(k: np.ndarray, label_class: np.ndarray, kernel: str) -> np.ndarray:
    """The bandwidth `[*source]` at which demonstrations predict each other's labels best (leave-one-out).

    Args:
        k: the demonstrations' vectors `[prompt, *source, demonstration, feature]`.
        label_class: `[prompt, demonstration]`, -1 where missing.
        kernel: "exponential" or "gaussian".

    Raises:
        Refused: no prompt with two demonstrations.
    """
    scores = kernel_scores(np.moveaxis(k, -2, 1), k[:, None], kernel)  # [prompt, left out, *source, other]
    n = np.arange(k.shape[-2])
    scores[:, n, ..., n] = np.nan
    there = label_class >= 0
    asked = there & (there.sum(1, keepdims=True) > 1)
    if not asked.any():
        raise Refused(
            "leave-one-out needs at least two demonstrations in a prompt, got none with two: pass a bandwidth"
        )
    scores = scores[asked]
    classes = np.arange(label_class.max() + 1)
    votes = (label_class[np.nonzero(asked)[0]][..., None] == classes).astype(
        np.float64
    )  # [left out, other, class]
    truth = (label_class[asked][:, None] == classes).astype(np.float64)
    truth = truth.reshape(len(truth), *[1] * (scores.ndim - 2), len(classes))
    spread = (
        np.nanstd(scores, -1).mean(0)
        if kernel == "exponential"
        else np.sqrt(-2 * np.nanmean(scores, (0, -1)))
    )
    tried = GRID[:, *[None] * spread.ndim] * np.where(spread > 0, spread, 1.0)
    losses = []
    for h in tried:
        weight = np.nan_to_num(kernel_shares(scores, kernel, h))
        losses.append(np.square(np.einsum("r...j,rjc->r...c", weight, votes) - truth).sum(-1).mean(0))
    good = np.stack(losses) <= np.min(losses, 0) + 1e-12
    last = len(GRID) - 1 - np.argmax(good[::-1], axis=0)
    return np.take_along_axis(tried, last[None], 0)[0]

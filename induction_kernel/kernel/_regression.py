"""Kernel regression: Nadaraya-Watson weights of demonstrations, for any kernel and representation.

    y_hat(q) = sum_i K_h(q, k_i) e(y_i) / sum_i K_h(q, k_i)

(Nadaraya 1964; Watson 1964; Han et al. 2025, sections 3 and 5.4 on sentence embeddings.) It returns the weights, in the
form of `demonstration_weights`, so that heads and explicit kernels vote by one function. The bandwidth h is given, or
chosen by leave-one-out: every demonstration is predicted from the others. It runs no model, and takes no vote.
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

GRID = np.logspace(-3, 3, 61)  # bandwidths tried, in units of the spread of the scores


def kernel_regression(
    queries: Any,
    demonstrations: Any = None,
    label_class: Any = None,
    *,
    kernel: str | Iterable[str] = "exponential",
    bandwidth: str | float = "loo",
) -> xr.Dataset:
    """The weights that kernel regression gives each demonstration.

    Args:
        queries: the Dataset of `representations`; or an array `[prompt, feature]`, and then also
        demonstrations: `[prompt, demonstration, feature]` or, the same for all prompts, `[demonstration, feature]`
            (NaN where a prompt has fewer), and
        label_class: of the same shape without features, -1 where a demonstration is missing.
        kernel: "exponential" exp(<q,k>/h), "gaussian" exp(-|q-k|^2/(2h^2)), "cosine" or "linear"; or several. Negative
            values of the last two count as 0 (see `kernels`).
        bandwidth: h above 0 (infinity gives equal weights), in the unit of <q, k> or of |q - k|; or "loo", chosen by
            leave-one-out. Cosine and linear have none.

    Returns:
        Dataset with `weight[prompt, ..., kernel, demonstration]` (shares, in [0, 1], summing to 1; NaN where a
        prompt has fewer demonstrations); `kernel` only where several are asked, and in place of the dots the
        representations' own dimensions (layer, head). `bandwidth[..., kernel]` (NaN where there is none). Coordinates
        `label_class`, `target` and the others of the representations.

    Leave-one-out: one bandwidth for all prompts (for each layer and head), since a few demonstrations say too little.
    Every demonstration is predicted from the others of its prompt (of the pool, where all prompts share it), the
    squared error of the vote's shares is averaged over all, and the least one wins; among equals the largest
    bandwidth. The labels of queries are not used. In balanced prompts the class of what is left out is in the minority
    among the others, so wide bandwidths look worse than they are. Tried are 61 bandwidths, a factor of 1.26 apart,
    from a thousandth to a thousand times the spread of the scores.

    Raises:
        TypeError: no numbers, or a Dataset of something else.
        Refused: shapes that do not fit, an unknown kernel, a bandwidth of 0 or below, leave-one-out where no prompt
            has two demonstrations or for a head's queries and keys, which are of different kinds (1 is its own).

    Source: Nadaraya 1964; Watson 1964; Han et al. 2025, sections 3 and 5.4.
    """
    if not isinstance(queries, xr.Dataset) and label_class is None:
        raise TypeError(
            "wanted label_class, the class of every demonstration, beside arrays of representations"
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
    """How alike a query and its demonstrations are under explicit kernels: what `kernel_alignment` compares with.

    Args:
        queries: as in `kernel_regression`, like the rest.
        demonstrations: likewise.
        label_class: likewise; only leave-one-out needs it.
        kernel: likewise.
        bandwidth: likewise.

    Returns:
        Dataset with `similarity[prompt, ..., kernel, demonstration]`, otherwise as of `kernel_regression`: of
        "exponential" and "gaussian" the share of the prompt's sum (a correlation within a prompt is blind to the
        factor), of "cosine" and "linear" the kernel's value, negative ones too.

    Raises:
        TypeError: as `kernel_regression`.
        Refused: likewise.

    Source: Han et al. 2025, section 5.3, with explicit kernels in place of next-token distributions.
    """
    if not isinstance(queries, xr.Dataset) and label_class is None and checked_bandwidth(bandwidth) is None:
        raise TypeError("leave-one-out needs label_class: pass the demonstrations' classes, or a bandwidth")
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
    """`variable[prompt, *source, kernel, demonstration]` made of every kernel's scores at its bandwidth."""
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
    """`[*source]`; NaN where the kernel has none."""
    shape = tuple(found.sizes[dim] for dim in source_dims(found))
    if kernel not in EXPONENTIALS:
        return np.full(shape, np.nan)
    if given is not None:
        return np.full(shape, given)
    if found.attrs.get("representation") == "head":
        raise Refused(
            "leave-one-out asks how demonstrations see one another, and a head's queries and keys are of different "
            "kinds: pass bandwidth=1.0, the head's own, or another number"
        )
    k = found["demonstrations"]
    k = k.transpose("prompt", *source_dims(found), "demonstration", "feature", missing_dims="ignore").values
    y = found["label_class"].transpose(..., "demonstration").values
    return left_out(k[None], y[None], kernel) if k.ndim == 2 else left_out(k, y, kernel)


def left_out(k: np.ndarray, label_class: np.ndarray, kernel: str) -> np.ndarray:
    """The bandwidth `[*source]` at which demonstrations predict one another best.

    Args:
        k: `[prompt, *source, demonstration, feature]`.
        label_class: `[prompt, demonstration]`, -1 where missing.
        kernel: "exponential" or "gaussian".
    """
    scores = kernel_scores(np.moveaxis(k, -2, 1), k[:, None], kernel)  # [prompt, left out, *source, other]
    n = np.arange(k.shape[-2])
    scores[:, n, ..., n] = np.nan
    there = label_class >= 0
    asked = there & (there.sum(1, keepdims=True) > 1)
    if not asked.any():
        raise Refused(
            "leave-one-out needs at least two demonstrations in a prompt, got none with more than one: pass a bandwidth"
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

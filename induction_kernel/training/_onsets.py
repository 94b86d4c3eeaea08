"""The onset of a training curve: its slope in ln(tokens), and where the region of steepest change begins.

A curve is the mean over prompts at every checkpoint. Between checkpoints it is linear in ln(tokens), on a grid with
steps of .01 (1% of the tokens), where its slope is taken and smoothed by a Gaussian of a stated width. Step 0 has no
place on a logarithmic axis and is left out. The steepest region is the connected one around the largest slope where the
slope exceeds a quarter of it (Olsson et al. 2022 choose their window from the derivative and state no rule; this rule
is the package's own). Heads are chosen on the even prompts and read on the odd ones. `_phases` and `_onset_coupling`
interpret the regions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ..errors import Refused
from ..heads._names import names_of
from ..stats._means import resampled

__all__ = [
    "CURVES", "DIRECTION", "at_tokens", "check_curves", "grid_of", "heads_of", "largest_excess", "over_runs",
    "resampled_means", "slope_of", "steepest", "trained", "values_of",
]  # fmt: skip

Numbers = NDArray[np.float64]
DIRECTION = {
    "icl_score": -1, "prefix_matching": 1, "repeat_loss": -1, "previous_token": 1, "copying": 1, "loss": -1,
    "sampled_loss": -1,
}  # fmt: skip
"""The curves, and whether they rise (1) or fall (-1) as a model learns."""
CURVES = ("icl_score", "prefix_matching", "repeat_loss", "previous_token", "copying")
QUARTER = 0.25
STEP = 0.01  # of the grid, in ln(tokens)
FEWEST = 4


def check_curves(curves: Any, *needed: str) -> None:
    """Raises unless these are training curves with these variables.

    Raises:
        TypeError: not a Dataset. Refused: variables or tokens are missing.
    """
    if not isinstance(curves, xr.Dataset):
        raise TypeError(f"wanted the Dataset of training_curves, got {type(curves).__name__}")
    missing = [name for name in needed if name not in curves]
    if missing or "checkpoint" not in curves.dims or "tokens" not in curves.coords:
        raise Refused(
            "wanted the Dataset of training_curves, over checkpoint with the coordinate tokens; got "
            f"{list(curves.dims)}" + (f" without {', '.join(missing)}" if missing else "")
        )


def over_runs(
    curves: xr.Dataset,
    of_run: Callable[[xr.Dataset], xr.Dataset],
    dims: tuple[str, ...] = ("model", "seed"),
) -> xr.Dataset:
    """The results of `of_run` for every run, joined along `model` and `seed` where they exist."""
    dim = next((dim for dim in dims if dim in curves.dims), None)
    if dim is None:
        return of_run(curves)
    parts = [over_runs(curves.isel({dim: i}, drop=True), of_run, dims) for i in range(curves.sizes[dim])]
    labels = curves[dim].values if dim in curves.coords else np.arange(curves.sizes[dim])
    return xr.concat(
        parts, dim=xr.DataArray(labels, dims=dim, name=dim), join="outer", coords="minimal", compat="override"
    )


def trained(run: xr.Dataset) -> xr.Dataset:
    """The existing checkpoints of one run after step 0, by tokens.

    Raises:
        Refused: fewer than 4.
    """
    there = run["icl_score"].notnull().any("prompt") & (run["tokens"] > 0)
    kept = run.isel(checkpoint=np.flatnonzero(there.values))
    if kept.sizes["checkpoint"] < FEWEST:
        raise Refused(
            f"wanted at least {FEWEST} checkpoints after step 0 whose tokens are known, got {kept.sizes['checkpoint']}"
        )
    return kept.sortby("tokens")


def values_of(run: xr.Dataset, name: str) -> Numbers:
    """A curve of one run for every prompt, `[prompt, checkpoint]`; for scores of heads, the mean over `heads_of`.

    Prefix matching is the excess over its control.
    """
    if "head" not in run[name].dims:
        return _whole(run[name].transpose("prompt", "checkpoint").values)
    return _whole(_by_head(run, name)[1][:, :, _chosen(run, name)].mean(2))


def heads_of(run: xr.Dataset, name: str) -> list[str]:
    """The heads whose mean a curve is: all with at least half of the strongest one's score at the last checkpoint.

    They are chosen on the even prompts and read on the odd ones: for previous-token scores by that score, otherwise
    (also for copying) by prefix-matching excess. A single head would be an arbitrary choice between equals.
    """
    if "head" not in run[name].dims:
        return []
    names = names_of(run["layer"].values, run["head"].values).ravel().tolist()
    return [names[i] for i in np.flatnonzero(_chosen(run, name))]


def _chosen(run: xr.Dataset, name: str) -> NDArray[np.bool_]:
    last = _by_head(run, "previous_token" if name == "previous_token" else "prefix_matching")[0][-1]
    return last >= last.max() / 2 if last.max() > 0 else last == last.max()


def largest_excess(run: xr.Dataset) -> Numbers:
    """The prefix-matching excess of the strongest head of each checkpoint, `[prompt, checkpoint]`."""
    choosing, reading = _by_head(run, "prefix_matching")
    best = choosing.argmax(-1)
    return _whole(np.take_along_axis(reading, best[None, :, None], 2)[:, :, 0])


def _by_head(run: xr.Dataset, name: str) -> tuple[Numbers, Numbers]:
    """Means `[checkpoint, head]` over the even prompts, and values `[prompt, checkpoint, head]` of the odd ones."""
    score = run[name] - run["prefix_matching_control"] if name == "prefix_matching" else run[name]
    flat = score.transpose("prompt", "checkpoint", "layer", "head").values.astype(np.float64)
    flat = flat.reshape(*flat.shape[:2], -1)
    flat = flat[~np.isnan(flat).all((1, 2))]  # drops prompts that only other measures have
    even = flat[::2].mean(0)  # NaN at layers that only other models have
    return np.nan_to_num(even, nan=-np.inf), flat[1::2]


def _whole(values: Any) -> Numbers:
    """The prompts that have a value at every checkpoint."""
    values = np.asarray(values, dtype=np.float64)
    found = values[np.isfinite(values).all(1)]
    if len(found) < 2:
        raise Refused(f"wanted at least 2 prompts with a value at every checkpoint, got {len(found)}")
    return found


def resampled_means(values: Numbers, draws: int, rng: np.random.Generator) -> Numbers:
    """Means over prompts `[1 + draws, checkpoint]`: over all of them, then over prompts drawn with replacement."""
    n = len(values)
    return np.concatenate([values.mean(0)[None], resampled(n, draws, rng) / n @ values])


def grid_of(tokens: Any) -> Numbers:
    """ln(tokens) from the first checkpoint to the last in even steps of about .01."""
    first, last = np.log(float(tokens[0])), np.log(float(tokens[-1]))
    return np.linspace(first, last, max(2, round((last - first) / STEP) + 1))


def slope_of(means: Numbers, tokens: Any, *, smoothing: float) -> Numbers:
    """Slope in ln(tokens) on the grid `[..., grid]` of curves `[..., checkpoint]`."""
    # Interpolation, differences and smoothing are linear in the values: one matrix serves all draws
    places, grid = np.log(np.asarray(tokens, dtype=np.float64)), grid_of(tokens)
    lines = np.stack([np.interp(grid, places, unit) for unit in np.eye(len(places))])
    step = grid[1] - grid[0]
    differences = np.gradient(lines, step, axis=1)
    return means @ gaussian_filter1d(differences, smoothing / step, axis=1, mode="nearest")


def steepest(slopes: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last grid point of the region around the largest slope, for each row of `[draw, grid]`."""
    n = slopes.shape[1]
    peak = slopes.argmax(1)
    outside = slopes <= QUARTER * slopes.max(1, keepdims=True)
    index = np.arange(n)
    before = np.where(outside & (index < peak[:, None]), index, -1).max(1) + 1
    after = np.where(outside & (index > peak[:, None]), index, n).min(1) - 1
    return before, after


def at_tokens(means: Numbers, tokens: Any, wanted: Any) -> Numbers:
    """Curves `[draw, checkpoint]` at one place each, `wanted[draw]` in ln(tokens)."""
    places = np.log(np.asarray(tokens, dtype=np.float64))
    return np.array([np.interp(place, places, row) for place, row in zip(wanted, means, strict=True)])

"""Checks on training runs: means and shares over seeds, or, for a single run, values with intervals over its prompts.

Means over seeds have the interval of `stats.mean_interval`, shares of seeds Wilson's interval: three seeds of three
give at least .44, four of four over .5. A single run has the interval that was computed over its prompts.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..errors import Refused
from ..stats._means import mean_interval
from ..stats._shares import share_interval
from ..training._phases import phase_window
from ._verdicts import Check

__all__ = ["mean_check", "runs_of", "share_check", "window_check", "windows_of"]

ONE_RUN = 0.975
"""The share of bootstrap samples with a window from which on the 95% interval of "has a window" is [1, 1]."""


def windows_of(curves: xr.Dataset, window: xr.Dataset | None) -> xr.Dataset:
    """The windows of these curves, as given or, for None, by `phase_window`.

    Raises:
        TypeError: not a Dataset.
        Refused: windows of other runs.
    """
    if window is None:
        return phase_window(curves)
    if not isinstance(window, xr.Dataset):
        raise TypeError(f"wanted the xarray.Dataset of phase_window, got {type(window).__name__}")
    wanted = {dim: curves[dim].values.tolist() for dim in ("model", "seed") if dim in curves.dims}
    got = {dim: window[dim].values.tolist() for dim in ("model", "seed") if dim in window.dims}
    if "exists_share" not in window or got != wanted:
        raise Refused(
            f"wanted the phase_window of these curves, over {wanted or 'one run'}, got {list(window.data_vars)} over "
            f"{got or 'one run'}: leave window out, and it is found"
        )
    return window


def runs_of(found: xr.Dataset) -> xr.Dataset:
    """A result over `seed`, also where it is of a single run (seed 0)."""
    return found if "seed" in found.dims else found.expand_dims(seed=[0])


def mean_check(
    name: str,
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    threshold: float,
    above: bool = True,
    prompts: int = 0,
) -> Check:
    """The mean over seeds with its interval, or the value of a single run with its interval over `prompts` prompts.

    Seeds whose value is NaN (no window) are left out; where fewer than two are left, there is no interval.
    """
    if len(value) == 1:
        why = "" if np.isfinite(value[0]) else "the run has no window"
        mean, first, last = float(value[0]), float(low[0]), float(high[0])
        return Check(name, mean, first, last, threshold, above, n=prompts, of="prompts", why=why)
    known = value[np.isfinite(value)]
    why = (
        "" if len(known) > 1 else f"wanted two or more seeds with a window, got {len(known)} of {len(value)}"
    )
    mean, first, last = np.nan, np.nan, np.nan
    if len(known):
        mean, (first, last) = float(known.mean()), map(float, mean_interval(known))
    return Check(
        f"{name}, mean over seeds", mean, first, last, threshold, above, n=len(known), of="seeds", why=why
    )


def share_check(name: str, count: int, n: int, *, above: bool = True) -> Check:
    """Whether `count` of n seeds is more than half of all seeds (less with `above=False`), with Wilson's interval."""
    low, high = share_interval(count, n)
    return Check(name, count / n, float(low), float(high), 0.5, above, n=n, of="seeds")


def window_check(window: xr.Dataset, *, has: bool = True, of: str = "", prompts: int = 0) -> Check:
    """Whether runs have a window (with `has=False`, have none): over half of the seeds, or a single run.

    For a single run the value is the share of bootstrap samples of its prompts with a window; the interval is that of
    "has a window", 0 or 1: [1, 1] where at most 2.5% of the samples have none, [0, 0] where at most 2.5% have one,
    otherwise [0, 1].
    """
    exists = np.atleast_1d(window["exists"].values)
    if len(exists) > 1:
        return share_check(f"{of}share of seeds with a window", int(exists.sum()), len(exists), above=has)
    share = float(np.atleast_1d(window["exists_share"].values)[0])
    low, high = float(share >= ONE_RUN), float(share > 1 - ONE_RUN)
    name = f"{of}share of bootstrap samples with a window"
    return Check(name, share, low, high, 0.5, has, n=prompts, of="prompts", stated=np.nan)

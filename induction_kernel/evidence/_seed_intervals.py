"""Checks on the runs of a family: intervals over seeds, or over prompts where there is one run.

Means over seeds have the interval of `stats.mean_interval`, shares of seeds Wilson's: three seeds of three are at least
.44 of all seeds, four of four over half. One run has the interval that its prompts give. It finds no window itself.
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
"""Share of resamplings in which one run has a window, from which on an interval of 95% holds nothing else."""


def windows_of(curves: xr.Dataset, window: xr.Dataset | None) -> xr.Dataset:
    """The windows of these curves: those at hand, if they are theirs, else found anew.

    Raises:
        TypeError: no Datasets.
        Refused: the windows of other runs.
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
            f"{got or 'one run'}: leave window out to have it found"
        )
    return window


def runs_of(found: xr.Dataset) -> xr.Dataset:
    """What was found in one run or several, over `seed` in either case."""
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
    """The mean over runs with its interval over seeds, or the value of one run with its own, over so many prompts.

    Runs whose value is NaN (no window) are left out; fewer than two of several have no interval.
    """
    if len(value) == 1:
        why = "" if np.isfinite(value[0]) else "the run has no window"
        mean, first, last = float(value[0]), float(low[0]), float(high[0])
        return Check(name, mean, first, last, threshold, above, n=prompts, of="prompts", why=why)
    known = value[np.isfinite(value)]
    why = "" if len(known) > 1 else f"wanted a window in two seeds or more, got {len(known)} of {len(value)}"
    mean, first, last = np.nan, np.nan, np.nan
    if len(known):
        mean, (first, last) = float(known.mean()), map(float, mean_interval(known))
    return Check(
        f"{name}, mean over seeds", mean, first, last, threshold, above, n=len(known), of="seeds", why=why
    )


def share_check(name: str, count: int, n: int, *, above: bool = True) -> Check:
    """Whether something is so in over half of n seeds (or in fewer), with Wilson's interval."""
    low, high = share_interval(count, n)
    return Check(name, count / n, float(low), float(high), 0.5, above, n=n, of="seeds")


def window_check(window: xr.Dataset, *, has: bool = True, of: str = "", prompts: int = 0) -> Check:
    """Whether the runs have a window (or have none): in over half of the seeds, or in one run, by its prompts.

    Of one run the interval is that of "there is a window", 0 or 1, over resamplings of its prompts: from 1 to 1 where
    at most 2.5% of them have none, from 0 to 0 where at most 2.5% have one, else from 0 to 1.
    """
    exists = np.atleast_1d(window["exists"].values)
    if len(exists) > 1:
        return share_check(f"{of}share of seeds with a window", int(exists.sum()), len(exists), above=has)
    share = float(np.atleast_1d(window["exists_share"].values)[0])
    low, high = float(share >= ONE_RUN), float(share > 1 - ONE_RUN)
    name = f"{of}share of resamplings with a window"
    return Check(name, share, low, high, 0.5, has, n=prompts, of="prompts", stated=np.nan)

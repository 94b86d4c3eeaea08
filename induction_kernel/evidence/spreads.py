"""How sure is a number over the runs of a family? Its interval over seeds, or over examples where there is one run.

Means over seeds have Student's t interval (few seeds, differences of logarithms), shares of seeds Wilson's. One run
has the interval that its examples give. It draws no curve.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from ..errors import Refused
from ..stats import share_interval
from ..training.phases import phase_window
from .verdicts import Check

__all__ = ["correlated", "mean_check", "runs_of", "window_check", "windows_of"]

ONE_RUN = 0.975  # share of resamplings in which one run has a window, to say with 95% that it has one


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
    name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray, *, threshold: float, above: bool = True
) -> Check:
    """The mean over runs with its t interval, or the value of one run with its own.

    Runs whose value is NaN (no window) are left out; fewer than two of several have no interval, and do not pass.
    """
    if len(value) == 1:
        return Check(name, float(value[0]), float(low[0]), float(high[0]), threshold, above)
    name, known = f"{name}, mean over seeds", value[np.isfinite(value)]
    n = len(known)
    if n < 2:
        return Check(name, float(known[0]) if n else np.nan, np.nan, np.nan, threshold, above)
    middle = float(known.mean())
    half = float(stats.t.ppf(0.975, n - 1) * known.std(ddof=1) / np.sqrt(n))
    return Check(name, middle, middle - half, middle + half, threshold, above)


def window_check(window: xr.Dataset, *, has: bool = True, of: str = "") -> Check:
    """Whether the runs have a window (or have none): over half of the seeds, or nearly all resamplings of one run."""
    exists = np.atleast_1d(window["exists"].values)
    if len(exists) == 1:
        share = float(np.atleast_1d(window["exists_share"].values)[0])
        name = f"{of}share of resamplings with a window"
        return Check(name, share, share, share, ONE_RUN if has else 1 - ONE_RUN, has)
    share = float(exists.mean())
    low, high = share_interval(exists.sum(), len(exists))
    return Check(f"{of}share of seeds with a window", share, float(low), float(high), 0.5, has)


def correlated(x: np.ndarray, y: np.ndarray, kind: str) -> np.ndarray:
    """Pearson's or Spearman's correlation, `[draw]` of `[draw, head]`; NaN where either does not vary."""
    if kind == "spearman":
        x, y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))

"""Numbers, shares and intervals as text: the filters of the templates."""

from __future__ import annotations

import numpy as np
import xarray as xr

__all__ = ["interval", "number", "percent", "share"]


def number(value: float | xr.DataArray) -> str:
    """Two digits after the point, a dash for what is not finite."""
    return f"{float(value):z.2f}".replace("-", "−") if np.isfinite(float(value)) else "–"


def percent(value: float | xr.DataArray) -> str:
    """A share in whole percent, a dash for what is not finite."""
    return f"{float(value):z.0%}".replace("-", "−") if np.isfinite(float(value)) else "–"


def interval(one: xr.Dataset, middle: str, low: str | None = None, high: str | None = None) -> str:
    """A number with its interval, from three variables; the ends are called `middle`_low and _high unless named."""
    low, high = low or f"{middle}_low", high or f"{middle}_high"
    return f"{number(one[middle])} ({number(one[low])} to {number(one[high])})"


def share(lost: xr.Dataset, key: str = "share") -> str:
    """A share in whole percent with its interval, from three variables; a dash for what is not finite."""
    middle, low, high = (percent(lost[f"{key}{end}"]) for end in ("", "_low", "_high"))
    return f"{middle} ({low} to {high})" if np.isfinite(lost[key]) else "–"

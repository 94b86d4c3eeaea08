"""Correlations, on plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats as distributions

from ..errors import Refused
from .means import Array

__all__ = ["correlation"]


def correlation(x: Any, y: Any, kind: str = "pearson") -> Array:
    """Pearson's or Spearman's correlation over the last axis, in [-1, 1]; NaN where either does not vary."""
    if kind not in ("pearson", "spearman"):
        raise Refused(f'wanted kind "pearson" or "spearman", got {kind!r}')
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if kind == "spearman":
        x, y = distributions.rankdata(x, axis=-1), distributions.rankdata(y, axis=-1)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))

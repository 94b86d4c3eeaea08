"""Two Datasets over the same demonstrations: a check that their labels agree, and the coordinates of their result.

Alignment and fitted bandwidths compare weights with similarities or representations of the same demonstrations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._names import names_of

__all__ = ["CONSTANT", "bare", "classes_of", "same_demonstrations", "with_coordinates"]

CONSTANT = 1e-9  # spread, relative to the largest value, below which values count as constant


def same_demonstrations(a: xr.Dataset, a_name: str, b: xr.Dataset, b_name: str) -> np.ndarray:
    """Which demonstrations exist, bool `[prompt, demonstration]`, after checking that both Datasets have the same.

    Args:
        a: Dataset with `label_class[prompt, demonstration]`, -1 where a prompt has fewer demonstrations.
        a_name: its variable.
        b: likewise.
        b_name: likewise.

    Raises:
        TypeError: not such Datasets.
        Refused: other numbers of prompts or demonstrations, or other labels.
    """
    one, other = classes_of(a, a_name), classes_of(b, b_name)
    if not np.array_equal(one, other):
        raise Refused(
            "wanted both for the same prompts and demonstrations in the same order, got label classes "
            f"{list(one.shape)} and {list(other.shape)} that differ: make both from the same episodes"
        )
    return one >= 0


def classes_of(ds: Any, variable: str) -> np.ndarray:
    """The label classes `[prompt, demonstration]` in a Dataset of weights or similarities; TypeError without them."""
    good = isinstance(ds, xr.Dataset) and variable in ds and "label_class" in ds.coords
    if not good or not {"prompt", "demonstration"} <= set(ds[variable].dims):
        raise TypeError(
            f"wanted a Dataset with `{variable}` over prompt and demonstration, and `label_class`, "
            f"got {list(ds.variables) if isinstance(ds, xr.Dataset) else type(ds).__name__}"
        )
    return ds["label_class"].transpose("prompt", "demonstration").values


def with_coordinates(out: xr.Dataset, *sources: xr.Dataset) -> xr.Dataset:
    """The result with those coordinates of the sources whose dimensions it has, and with the heads' names."""
    for ds in sources:
        kept = [
            key
            for key, value in ds.coords.items()
            if set(value.dims) <= set(out.dims) and key not in out.dims
        ]
        out = (
            out.assign_coords({key: ds[key].reset_coords(drop=True).reindex_like(out) for key in kept})
            if kept
            else out
        )
    if {"layer", "head"} <= set(out.dims):
        names = names_of(out["layer"].values, out["head"].values)
        out = out.assign_coords(name=(("layer", "head"), names))
    return out


def bare(values: xr.DataArray) -> xr.DataArray:
    """The values in float64, without coordinates but those of dimensions to be matched (layer, head, kernel)."""
    kept = [key for key in values.coords if key in values.dims and key not in ("prompt", "demonstration")]
    return values.drop_vars([key for key in values.coords if key not in kept]).astype(np.float64)

"""Results of several measures, checkpoints and runs joined into one Dataset.

What one part lacks (prompts, a second layer, a step) is NaN there.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import Refused
from ..heads._names import names_of

__all__ = ["as_variables", "joined", "stacked", "with_names"]

_MAIN = ("score", "value")  # the variable of a result that gets the measure's own name


def as_variables(name: str, found: Any) -> xr.Dataset:
    """A measure's result as variables `name` and `name_<variable>`, every dimension with an index.

    Raises:
        TypeError: neither a Dataset, nor a DataArray, nor a number.
        Refused: a result with a dimension that a sweep adds.
    """
    if isinstance(found, xr.Dataset):
        found, attrs = found.copy(), found.attrs
    elif isinstance(found, xr.DataArray):
        found, attrs = found.to_dataset(name="value"), {}
    elif isinstance(found, Real | np.number):
        found, attrs = xr.Dataset({"value": np.asarray(found)[()]}), {}
    else:
        raise TypeError(f"wanted a Dataset, a DataArray or a number, got {type(found).__name__}")
    if {"checkpoint", "model"} & {*found.dims, *found.data_vars}:
        raise Refused(
            "a sweep adds the dimensions checkpoint and model: give the measure's own dimensions other names"
        )
    variables = list(found.data_vars)
    main = next((key for key in _MAIN if key in variables), variables[0] if len(variables) == 1 else None)
    new = {key: name if key == main else f"{name}_{key}" for key in variables}
    found = found.drop_vars([key for key, value in found.coords.items() if not value.dims])
    found = found.assign_coords(
        {dim: np.arange(n) for dim, n in found.sizes.items() if dim not in found.indexes}
    )
    found.attrs = {}
    if main is not None:
        found[main].attrs = {**attrs, **found[main].attrs}
    return found.rename_vars(new)


def joined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Datasets of different variables side by side.

    Raises:
        Refused: two variables of the same name.
    """
    names = [str(key) for part in parts for key in part.data_vars]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(f"two measures give a variable {twice[0]!r}: give the measures other names")
    bare, coords = _aligned(parts)
    return xr.merge(bare, join="exact", compat="no_conflicts").assign_coords(coords)


def stacked(parts: Sequence[xr.Dataset], dim: str, labels: Sequence[Any]) -> xr.Dataset:
    """Datasets of the same variables along a new leading dimension, with the attributes they all share."""
    bare, coords = _aligned(parts)
    options: dict[str, Any] = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}
    index = pd.Index(labels, name=dim)
    return xr.concat(bare, index, combine_attrs="drop_conflicts", **options).assign_coords(coords)


def with_names(found: xr.Dataset) -> xr.Dataset:
    """The Dataset with the coordinate `name[layer, head]`, if it has both dimensions."""
    if not {"layer", "head"} <= set(found.dims):
        return found
    names = names_of(found["layer"].values, found["head"].values)
    return found.assign_coords(name=(("layer", "head"), names))


def _aligned(parts: Sequence[xr.Dataset]) -> tuple[list[xr.Dataset], dict[str, xr.DataArray]]:
    """The parts with the same indexes and no other coordinates, and the coordinates on which all agree."""
    text = {key for part in parts for key, value in part.variables.items() if value.dtype.kind in "UO"}
    fill: Any = dict.fromkeys(text, "")
    filled = xr.align(*parts, join="outer", copy=False, fill_value=fill)
    others = [{str(key): part[key] for key in set(part.coords) - set(part.indexes)} for part in filled]
    bare = [
        part.drop_vars(other).map(_without_objects, keep_attrs=True)
        for part, other in zip(filled, others, strict=True)
    ]
    agreed = {}
    for name in sorted({name for other in others for name in other} - {"name"}):
        variables = [other[name].variable for other in others if name in other]
        if all(variable.equals(variables[0]) for variable in variables):
            agreed[name] = variables[0]
    return bare, agreed


def _without_objects(values: xr.DataArray) -> xr.DataArray:
    """Bools that were padded with NaN, as numbers."""
    padded = values.dtype == object and not any(isinstance(value, str) for value in values.values.flat)
    return values.astype(np.float64) if padded else values

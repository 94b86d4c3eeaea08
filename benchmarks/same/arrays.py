"""The numbers in a result: every numeric array of Datasets, data frames, prompts, tuples of them, by a name."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

VERDICTS = {"holds": 1.0, "inconclusive": 0.0, "contradicted": -1.0}


def arrays_in(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) for each; of a Dataset its variables, coordinates and attributes; verdicts as 1, 0 and -1."""
    if isinstance(value, xr.Dataset):
        parts = {str(key): value[key].values for key in value.variables}
        yield from _inside(parts | {f"@{key}": each for key, each in value.attrs.items()}, name)
    elif isinstance(value, pd.DataFrame):
        yield from _inside({str(key): value[key].to_numpy() for key in value}, name)
    elif isinstance(value, xr.DataArray | pd.Series):
        yield from arrays_in(value.values, name)
    elif isinstance(value, torch.Tensor):
        yield from arrays_in(value.detach().cpu().numpy(), name)
    elif is_dataclass(value):
        yield from _inside({each.name: getattr(value, each.name) for each in fields(value)}, name)
    elif isinstance(value, Mapping):
        yield from _inside(value, name)
    elif isinstance(value, list | tuple) and not all(isinstance(each, int | float) for each in value):
        yield from _inside({str(number): each for number, each in enumerate(value)}, name)
    elif (array := _numbers(value, name)) is not None:
        yield name, array


def _inside(parts: Mapping[Any, Any], name: str) -> Iterator[tuple[str, np.ndarray]]:
    for key, part in parts.items():
        yield from arrays_in(part, f"{name}/{key}" if name else str(key))


def _numbers(value: Any, name: str) -> np.ndarray | None:
    array = np.asarray(value)
    if "verdict" in name and array.dtype.kind in "UO":
        return np.vectorize(lambda said: VERDICTS.get(str(said), np.nan), otypes=[float])(array)
    return array if array.dtype.kind in "biuf" else None

"""Means over prompts of each head's measured values: the part of a head summary that needs no resampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..stats._means import moments
from ._results import Measured

__all__ = ["VARIABLES", "averages", "by_rank", "flattened", "placed", "ranks"]

VARIABLES = (
    "mean", "low", "high", "chance", "control", "excess", "excess_low", "excess_high", "threshold", "tested",
    "passes", "rank", "n", "size",
)  # fmt: skip


def averages(found: Measured, n_prompts: int) -> dict[str, np.ndarray]:
    """`[layer, head]`: mean, chance, excess, rank and n, and control and size if the result has them."""
    per_prompt = "prompt" in found.values.dims
    values, null, control = flattened(found)
    if not len(values):
        raise Refused("wanted scores of at least one prompt, got none")
    n, mean, _ = moments(values)
    excess = moments(values - (null if control is None else control))[1]
    out = {
        "mean": mean, "chance": moments(null)[1], "excess": excess,
        "n": n.astype(int) if per_prompt else np.full(len(mean), n_prompts if found.null is None else 0),
    }  # fmt: skip
    out |= {} if control is None else {"control": moments(control)[1]}
    out |= {"size": moments(np.abs(values))[1]} if found.both_ways else {}
    out["rank"] = ranks(by_rank(out, "excess", found.first))
    return {key: value.reshape(found.values.shape[-2:]) for key, value in out.items()}


def flattened(found: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Values, chance and control `[prompt, cell]`, of the prompts that have any value."""
    values = found.values if "prompt" in found.values.dims else found.values.expand_dims("prompt")
    flat, chance = (_rows(each, values) for each in (values, found.chance))
    control = None if found.control is None else _rows(found.control, values)
    there = np.isfinite(flat).any(1)
    there = there if there.any() else np.ones_like(there)
    return flat[there], chance[there], None if control is None else _of_every_prompt(control[there])


def _rows(values: xr.DataArray, like: xr.DataArray) -> np.ndarray:
    """Values broadcast to the shape of `like`, as `[prompt, cell]`."""
    sizes = {dim: like.sizes[dim] for dim in ("prompt", "layer", "head")}
    shaped = values.variable.set_dims(sizes).values.astype(np.float64)
    return shaped.reshape(len(shaped), int(np.prod(shaped.shape[1:])))


def _of_every_prompt(control: np.ndarray) -> np.ndarray | None:
    """The control `[prompt, cell]`; None if no prompt has one, Refused if only some have."""
    without = np.isnan(control).all(1)
    if without.all():
        return None
    if without.any():
        raise Refused(
            f"{int(without.sum())} of {len(control)} prompts have no control (the first is prompt "
            f"{int(without.argmax())}): summarise those with and those without one apart"
        )
    return control


def by_rank(values: Mapping[Any, Any], name: str, first: str) -> Any:
    """What ranks heads, the largest first: the number of this name, with its sign turned, or the size of the effect."""
    return values["size"] if first == "size" else -values[name] if first == "smallest" else values[name]


def ranks(excess: np.ndarray) -> np.ndarray:
    """1 for the largest; NaN comes last."""
    order = np.argsort(np.argsort(-excess, axis=None, kind="stable"))
    return order.reshape(excess.shape) + 1


def placed(like: xr.DataArray, values: dict[str, np.ndarray]) -> xr.Dataset:
    """Values `[layer, head]` as a Dataset, with the coordinates of `like`."""
    dims = ("layer", "head")
    coords = {key: like.coords[key].variable for key in (*dims, "name", "receiver") if key in like.coords}
    return xr.Dataset({key: (dims, values[key]) for key in VARIABLES if key in values}, coords)

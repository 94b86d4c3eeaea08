"""The panels of a head map: which there are, for scorers, models and comparisons, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..heads._results import MEASURED, check_result
from ..heads._summary import summarise
from ._style import PAGE_WIDTH, need

JUDGED = {"agreement": "agreement with the model", "correct": "agreement with the right label"}
LEFT, RIGHT, ABOVE, BELOW = 50, 54, 24, 46  # pixels around a panel
FREE = ("nats", "logits", "product of weights")
"""How the units begin whose numbers have no natural largest value."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One map of heads.

    Attributes:
        name: what is drawn, as its method is called; not yet escaped.
        model: whose heads, where there are several models.
        heads: `mean` and what else is known, `[layer, head]`.
        word: what hovering calls the number.
        reach: what the colours end at (below zero too, for signed numbers), or None for the largest there is.
    """

    name: str
    model: str
    heads: xr.Dataset
    word: str = "score"
    reach: float | None = None


def panels(scores: xr.Dataset) -> list[Panel]:
    """One panel for each scorer and model of a result, or the three of a comparison."""
    known = [key for key in ("mean", *MEASURED, "first") if isinstance(scores, xr.Dataset) and key in scores]
    if not known and isinstance(scores, xr.Dataset) and "layer" in scores.dims:
        check_result(scores)
    need(scores, known[0] if known else "score", "a scorer, observe or summarise")
    if known[0] == "first":
        return _compared(scores)
    summary = summarise(scores).transpose(..., "layer", "head")
    return [
        Panel(name, model, one, "effect" if "size" in one else "score", _reach(one))
        for model, of_model in _along(summary, "model")
        for name, one in _scorers(of_model)
    ]


def _along(summary: xr.Dataset, dim: str) -> list[tuple[str, xr.Dataset]]:
    """(name, part) along a dimension, without layers and heads that the part does not have."""
    if dim not in summary.dims:
        return [("", summary)]
    count = summary.sizes[dim]
    names = [str(name) for name in summary[dim].values] if dim in summary.coords else [f"{dim}"] * count
    if len(set(names)) < count:
        names = [f"{name} ({at + 1})" for at, name in enumerate(names)]
    parts = [summary.isel({dim: at}) for at in range(count)]
    if dim == "model":
        parts = [one.sel(_there(one["mean"])) for one in parts]
    return list(zip(names, parts, strict=True))


def _there(mean: xr.DataArray) -> dict[str, np.ndarray]:
    """The layers and heads of which there is a value."""
    known = mean.notnull()
    others = {axis: [dim for dim in mean.dims if dim != axis] for axis in ("layer", "head")}
    return {axis: mean[axis].values[known.any(dims).values] for axis, dims in others.items()}


def _scorers(summary: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    if "scorer" in summary.dims:
        return _along(summary, "scorer")
    name = (
        str(summary["scorer"].item())
        if "scorer" in summary.coords
        else str(summary.attrs.get("method", "score"))
    )
    return [(JUDGED.get(str(summary.attrs.get("judged")), name), summary)]


def _reach(summary: xr.Dataset) -> float | None:
    """1 where values near 1 can be expected: not of effects, logits and differences of probabilities."""
    unit = str(summary.attrs.get("unit", ""))
    difference = unit == "probability" and bool((summary["mean"] < 0).any())
    return None if "size" in summary or difference or unit.startswith(FREE) else 1.0


def _compared(result: xr.Dataset) -> list[Panel]:
    """First, second and their difference; both scores in one scale where they are of one kind."""
    both = {key: str(result.attrs.get(key, "")) for key in ("first", "second")}
    largest = {key: float(np.nanmax(np.abs(result[key].values))) for key in both}
    if both["first"] == both["second"]:
        largest = dict.fromkeys(both, max(largest.values()))
    out = []
    for key, method in both.items():
        of = result.attrs.get(f"{key}_model")
        said = f"{key}: {method}" + (f", {of}" if of else "")
        out.append(Panel(said, "", result[[key]].rename({key: "mean"}), "score", largest[key]))
    keys = ["difference", "low", "high"]
    change = result[keys].rename(difference="mean")
    return [*out, Panel("difference: second less first", "", change, "difference", None)]


def domains(
    sizes: list[tuple[int, int]],
) -> tuple[list[tuple[tuple[float, float], tuple[float, float]]], int, int]:
    """Where panels of these widths and heights stand, as shares across and upwards, and the size of the whole."""
    slot = tuple(max(max(size[i] for size in sizes), 120 * (1 - i)) for i in (0, 1))
    size = slot[0] + LEFT + RIGHT, slot[1] + ABOVE + BELOW
    rows = -(-len(sizes) // max(1, PAGE_WIDTH // size[0]))
    columns = -(-len(sizes) // rows)
    whole = columns * size[0], rows * size[1]
    out = []
    for index, (width, height) in enumerate(sizes):
        left, top = index % columns * size[0] + LEFT, whole[1] - index // columns * size[1] - ABOVE
        across = left / whole[0], (left + max(width, 120)) / whole[0]
        out.append((across, ((top - height) / whole[1], top / whole[1])))
    return out, *whole

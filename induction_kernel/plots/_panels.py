"""The panels of a head map, one for each scorer and model of a result, and their places in the figure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..heads._results import MEASURED, check_result
from ..heads._summary import summarise
from ._style import need

JUDGED = {"agreement": "agreement with the model", "correct": "agreement with the right label"}
ACROSS = 3  # panels in a row, at most
BELOW, BAR = 46, 34  # pixels below a panel, for its axis and for its colour bar
FREE = ("nats", "logits", "product of weights")
"""First words of units whose values have no natural maximum."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One map of heads.

    Attributes:
        name: the method, not yet escaped.
        model: the model, where there are several.
        heads: `mean` and the other variables of the summary, `[layer, head]`.
        word: the name of the number on hovering.
        reach: where the colours end (on both sides for signed numbers), or None for the largest absolute value.
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
    """(name, part) along a dimension; parts are without layers and heads that their model does not have."""
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
    """The layers and heads that have a value."""
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
    """1 for scores whose maximum is 1; None for effects, logits and differences of probabilities."""
    unit = str(summary.attrs.get("unit", ""))
    difference = unit == "probability" and bool((summary["mean"] < 0).any())
    return None if "size" in summary or difference or unit.startswith(FREE) else 1.0


def _compared(result: xr.Dataset) -> list[Panel]:
    """First, second and their difference; two results of one method share a scale."""
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
    return [*out, Panel("difference: second minus first", "", change, "difference", None)]


@dataclass(frozen=True)
class Places:
    """Places of the panels between the margins of their figure.

    Attributes:
        domains: of each panel, the shares ((left, right), (lower, upper)).
        inside: pixels between the margins, downwards.
        below: pixels that the axis and the colour bar of the lowest panels take under that.
        first: whether each panel is the first of its row.
    """

    domains: list[tuple[tuple[float, float], tuple[float, float]]]
    inside: int
    below: int
    first: list[bool]


def above_panels(text: str) -> int:
    """Pixels that a caption takes."""
    return 8 + 17 * (1 + text.count("<br>")) if text else 0


def in_a_row(n_panels: int) -> int:
    """The number of panels in each row, at most three."""
    return -(-n_panels // -(-n_panels // ACROSS))


def placed(sizes: list[tuple[int, int]], above: int, gap: float = 0.09) -> Places:
    """Panels of these (columns, pixels downwards), at most three in a row, with `above` pixels for captions.

    Widths are in proportion to the columns. Several panels have their colour bars below them, a single one beside it.
    """
    across = in_a_row(len(sizes))
    rows = -(-len(sizes) // across)
    share, most = (1 - gap * (across - 1)) / across, max(columns for columns, _ in sizes)
    tall, below = max(height for _, height in sizes), BELOW + BAR * (len(sizes) > 1)
    inside = rows * tall + (rows - 1) * (above + below)
    out = []
    for index, (columns, height) in enumerate(sizes):
        left = index % across * (share + gap)
        top = inside - index // across * (tall + above + below)
        right = min(1.0, left + share * max(columns / most, 0.4))
        out.append(((left, right), (max(0.0, (top - height) / inside), top / inside)))
    return Places(out, inside, below, [index % across == 0 for index in range(len(sizes))])


def colour_bar(
    place: tuple[tuple[float, float], tuple[float, float]], inside: int, alone: bool
) -> dict[str, object]:
    """The colour bar of a panel: beside the only one, else below its axis, so that panels stay near each other."""
    (left, right), (lower, upper) = place
    bar: dict[str, object] = {"outlinewidth": 0, "tickfont": {"size": 10}}
    if alone:
        few = (upper - lower) * inside < 60
        upright = {"x": right, "xpad": 6, "y": (lower + upper) / 2, "len": upper - lower, "ypad": 0}
        return bar | upright | {"thickness": 10, "nticks": 2 if few else 5}
    flat = {"orientation": "h", "x": left, "xanchor": "left", "len": right - left, "xpad": 0}
    flat |= {"y": lower - BELOW / inside, "yanchor": "top", "ypad": 0}
    return bar | flat | {"thickness": 8, "nticks": 3}


def caption(
    figure: go.Figure, text: str, place: tuple[tuple[float, float], tuple[float, float]], why: str
) -> None:
    """Text above the left corner of a panel; `why` appears on hovering."""
    (left, _), (_, upper) = place
    figure.add_annotation(
        text=text, hovertext=why, x=left, y=upper, xref="paper", yref="paper", xanchor="left", yanchor="bottom",
        yshift=3, align="left", showarrow=False,
    )  # fmt: skip

"""`effect_map`: effects of interventions by layer, head and position.

Draws results of `sweep`, `patch`, `path_patch` and `attribution` as means over prompts; intervals are 95% intervals
over the prompts that have the cell. Purple is below zero, orange above; cells that no prompt has are blank. It runs no
model. `_effect_grid` makes the numbers and labels; `_ablation_curves` draws ablation curves and the check of estimates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import SHOWN, Grid, by_head_and_position, by_layer, checked, means
from ._figure import Figure
from ._style import (
    MIDDLE,
    NEGATIVE,
    POSITIVE,
    counted,
    effect,
    escape,
    fitted,
    heading,
    of_prompts,
    prompts_in,
)

WIDE = 800  # pixels across the cells of a figure of 1,000
UNSEEN = "\u200b"  # a space without width
DIVERGING = [(0.0, f"rgb{NEGATIVE}"), (0.5, f"rgb{MIDDLE}"), (1.0, f"rgb{POSITIVE}")]


def effect_map(
    results: xr.Dataset, *, show: str | None = None, top: int = 20, title: str | None = None
) -> go.Figure:
    """Draw the mean effect of every cell of a sweep, in colours balanced around zero.

    By (layer, head) and (layer, position) the rows are layers; by (layer, head, position) they are heads, strongest
    first; by (layer,) there are bars with intervals. Positions are labelled by their tokens, with "/…" where prompts
    differ, or by their numbers if prompts differ at more than half of them; labels that do not fit are left out.
    Hovering shows name, mean, 95% interval over prompts and the number of prompts that have the cell.

    Args:
        results: what `sweep`, `patch` or `path_patch` returns: `effect[prompt, *by]` in the metric's unit; or
            `attribution`: `estimate[prompt, *by]`.
        show: "effect", "normalised" (of `patch`: 0 as in the untouched run, 1 as in the source run) or
            "estimate" (of `attribution`); None for the effect if there is one, else the estimate.
        top: number of heads drawn by (layer, head, position): those with the largest mean effect of either sign.
        title: replaces "model: effect of mean ablation of head outputs on the loss" and the notes below it; plotly
            reads markup in it.

    Returns:
        A plotly figure as wide as its container, with one heat map `z[row, column]` or one set of bars `y[layer]`, in
        the metric's unit (normalised: a share). Cells that no prompt has are NaN.

    Raises:
        TypeError: if `results` is no Dataset.
        Refused: if it lacks the variable or has no finite value of it; if it is not by layer, (layer, head),
            (layer, position) or (layer, head, position); if `top` is below 1.
    """
    if top < 1:
        raise Refused(f"wanted top >= 1 heads to draw, got {top}")
    show = checked(results, show)
    cells = means(results, show)
    by = tuple(map(str, cells["mean"].dims))
    if by == ("layer",):
        said = _title(results, show, "bars: 95% intervals") if title is None else title
        return fitted(_bars(cells, results, show), said, 300, left=70)
    grid = by_head_and_position(results, cells, top) if len(by) == 3 else by_layer(results, cells, by[1])
    said = _title(results, show, "hovering shows 95% intervals", grid.note) if title is None else title
    return drawn(grid, _heat(grid, results, show), said)


def drawn(grid: Grid, heat: go.Heatmap, said: str) -> go.Figure:
    """The heat map of a grid, as wide as its container; labels of tokens are turned where they do not fit.

    `heat` has the cells, `[row, column]`; its places are set here.
    """
    rows, longest = len(grid.rows), max(map(len, grid.columns))
    named = _named(grid)
    turned = named and (8 * longest + 4) * len(grid.columns) > WIDE
    tall = max(180 if named else 120, int(np.clip(540, 14 * rows, 32 * rows)))  # labels may take some of it
    places, axis = _columns(grid, named, turned)
    heat.x = places
    look = {"showgrid": False, "zeroline": False, "tickfont": {"size": 11}}
    figure = Figure(heat).update_xaxes(look | axis, title={"text": grid.titles[1], "standoff": 8})
    figure.update_yaxes(look | _labels(grid.rows, tall / rows), title={"text": grid.titles[0], "standoff": 8})
    figure.update_yaxes(range=[rows - 0.5, -0.5])  # downwards
    left, below = 44 + 8 * max(map(len, grid.rows)), 52 + (7 * longest if turned else 0)
    return fitted(figure, said, tall, left=left, right=86, below=below)


def _columns(grid: Grid, named: bool, turned: bool) -> tuple[list[Any], dict[str, Any]]:
    """The places of the columns, and the layout of their axis: categories where they are named, else numbers."""
    if named:
        places = [escape(label) for label in _distinct(grid.columns)]
        angles = [-90] if turned else [0, -90]
        ends = [-0.5, len(places) - 0.5]
        return places, {"type": "category", "range": ends, "autotickangles": angles, "automargin": True}
    numbers = [int(at) for at in grid.columns]
    ends = [numbers[0] - 0.5, numbers[-1] + 0.5]
    return numbers, {"range": ends, "tickangle": 0, **counted(numbers[0], len(numbers))}


def _named(grid: Grid) -> bool:
    """Whether columns are labelled by words, or by numbers that do not follow one another."""
    if grid.titles[1] == "token":
        return True
    numbers = [int(at) for at in grid.columns]
    return numbers != list(range(numbers[0], numbers[0] + len(numbers)))


def _distinct(labels: list[str]) -> list[str]:
    """Make labels distinct without changing their look: the categories of an axis have to differ."""
    count: dict[str, int] = {}
    out = []
    for label in labels:
        out.append(label + UNSEEN * count.get(label, 0))
        count[label] = count.get(label, 0) + 1
    return out


def _heat(grid: Grid, results: xr.Dataset, show: str) -> go.Heatmap:
    """The coloured cells, balanced around zero, and the text of hovering."""
    z, names, said = (grid.cells[key].values for key in ("mean", "name", "said"))
    reach = float(np.abs(z[np.isfinite(z)]).max()) or 1.0
    texts = [[escape(str(name)), text] for name, text in zip(names.flat, said.flat, strict=True)]
    bar = {"title": {"text": _axis(results, show), "side": "right", "font": {"size": 12}}, "thickness": 10}
    bar |= {"xpad": 6, "ticksuffix": " "}
    return go.Heatmap(
        z=z,
        zmin=-reach,
        zmax=reach,
        colorscale=DIVERGING,
        customdata=np.array(texts, object).reshape(*z.shape, 2),
        hovertemplate=_hover(results, show, "z"),
        hoverongaps=False,
        xgap=int(len(grid.columns) <= 40),
        ygap=1,
        colorbar=bar | {"outlinewidth": 0, "tickfont": {"size": 10}, "nticks": 5, "ypad": 0},
    )


def _labels(labels: list[str], apart: float) -> dict[str, object]:
    """Labels of rows that are `apart` pixels: each, or every second, fourth, ... as they fit."""
    step = 1
    while step * apart < 14 and step < len(labels):
        step *= 2
    at = list(range(0, len(labels), step))
    return {"tickvals": at, "ticktext": [escape(labels[index]) for index in at]}


def _bars(cells: xr.Dataset, results: xr.Dataset, show: str) -> go.Figure:
    """A bar for each layer, with its interval."""
    mean, low, high = (cells[key].values for key in ("mean", "low", "high"))
    layers = [str(layer) for layer in cells["layer"].values]
    bars = go.Bar(
        x=layers,
        y=mean,
        marker={"color": [f"rgb{POSITIVE if value > 0 else NEGATIVE}" for value in mean]},
        customdata=np.array(
            [[f"layer {at}", said] for at, said in zip(layers, cells["said"].values, strict=True)]
        ),
        hovertemplate=_hover(results, show, "y"),
    )
    if show != "normalised":  # its interval would be that of a ratio
        bars.error_y = {"array": high - mean, "arrayminus": mean - low, "thickness": 1, "width": 0}
    figure = Figure(bars).update_xaxes(title_text="layer", type="category", tickangle=0)
    return figure.update_yaxes(title_text=_axis(results, show), zerolinecolor="#555")


def _axis(results: xr.Dataset, show: str) -> str:
    """What is drawn, with its unit, escaped."""
    unit = "" if show == "normalised" else str(results.attrs.get("unit", ""))
    return escape(f"{SHOWN[show]} ({unit})" if unit else SHOWN[show])


def _hover(results: xr.Dataset, show: str, value: str) -> str:
    unit = "" if show == "normalised" else escape(f" {results.attrs.get('unit', '')}".rstrip())
    said = f"<b>%{{customdata[0]}}</b><br>{SHOWN[show]} %{{{value}:.3g}}{unit}%{{customdata[1]}}"
    return f"{said}<extra></extra>"


def _title(results: xr.Dataset, show: str, interval: str, note: str = "") -> str:
    """The model, what was done and measured, and below it the number of prompts and the interval."""
    said = SHOWN[show].removesuffix("effect") + effect(results.attrs)
    if show == "normalised":
        over = of_prompts(prompts_in(results), "ratio of means over")
        return heading(results, escape(said), "0 as in the untouched run, 1 as in the source run", over, note)
    n = prompts_in(results)
    return heading(results, escape(said), of_prompts(n), interval if n > 1 else "", note)

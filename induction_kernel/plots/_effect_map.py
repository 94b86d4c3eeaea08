"""Where does an intervention matter: in which layer, head, position?

`effect_map` draws what `sweep`, `patch` and `attribution` found, as the mean over prompts; intervals are 95%
intervals over the prompts that have the cell. Purple is below zero, orange above, blank is no such cell. It
runs no model. `_effect_grid` reads the numbers and labels; `_ablation_curves` draws the ablation curve and the check of
estimates.
"""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import SHOWN, Grid, by_head_and_position, by_layer, checked, means
from ._style import MIDDLE, NEGATIVE, PAGE_WIDTH, POSITIVE, escape, finish, heading

DIVERGING = [(0.0, f"rgb{NEGATIVE}"), (0.5, f"rgb{MIDDLE}"), (1.0, f"rgb{POSITIVE}")]


def effect_map(
    results: xr.Dataset, *, show: str | None = None, top: int = 20, title: str | None = None
) -> go.Figure:
    """Draw the mean effect of every cell of a sweep, on colours that are balanced around zero.

    By (layer, head) and by (layer, position) layers go downwards; by (layer, head, position) the strongest
    heads do, strongest first; by (layer,) there are bars with intervals. Positions carry their tokens, with
    "/…" where prompts differ, and their numbers if prompts differ at more than half of them. Hovering shows
    name, mean, 95% interval (over prompts) and the number of prompts that have the cell.

    Args:
        results: what `sweep` or `patch` returns: `effect[prompt, *by]` in the metric's unit; or `attribution`:
            `estimate[prompt, *by]`.
        show: "effect", "normalised" (of `patch`: 0 as in the untouched run, 1 as in the source run) or
            "estimate" (of `attribution`); None for effect where there is one, else estimate.
        top: heads that are drawn by (layer, head, position), those with the largest mean effect, either sign.
        title: replaces "model: effect of edit at site on metric"; plotly reads markup in it.

    Returns:
        A plotly figure with one heat map `z[row, column]` or one set of bars `y[layer]`, in the metric's unit
        (normalised: a share). Cells that no prompt has are NaN.

    Raises:
        TypeError: if `results` is no Dataset.
        Refused: if it holds no such variable, or nothing finite in it; if it is not by layer, (layer, head),
            (layer, position) or (layer, head, position); if `top` is below 1.
    """
    if top < 1:
        raise Refused(f"wanted top >= 1 heads to draw, got {top}")
    show = checked(results, show)
    cells = means(results, show)
    by = tuple(map(str, cells["mean"].dims))
    if by == ("layer",):
        figure, width = _bars(cells, results, show), int(np.clip(100 + 60 * len(cells["layer"]), 420, 860))
        said = _title(results, show, width // 8) if title is None else title
        above = 32 + 19 * (1 + said.count("<br>"))
        return finish(figure, said, width, 350 + above).update_layout(margin={"t": above})
    grid = by_head_and_position(results, cells, top) if len(by) == 3 else by_layer(results, cells, by[1])
    return _drawn(grid, results, show, title)


def _drawn(grid: Grid, results: xr.Dataset, show: str, title: str | None) -> go.Figure:
    """The heat map of a grid; the figure is as large as its cells and labels need."""
    longest = max(map(len, grid.columns)), max(map(len, grid.rows))
    columns, rows = len(grid.columns), len(grid.rows)
    words = grid.titles[1] == "token"
    left, right = 40 + 8 * longest[1], 110
    room = PAGE_WIDTH - left - right
    inner = max(300, int(np.clip(room, (14 if words else 0) * columns, 32 * columns)))
    tall = max(150, int(np.clip(540, 14 * rows, 32 * rows)))
    turned = words and 8 * longest[0] + 4 > inner / columns
    figure = go.Figure(_heat(grid, results, show, inner / columns))
    across = _labels(grid.columns, inner / columns, 13 if turned else 8 * longest[0] + 4)
    figure.update_xaxes(across, title={"text": grid.titles[1], "standoff": 8}, tickangle=-90 if turned else 0)
    figure.update_yaxes(_labels(grid.rows, tall / rows, 14), title={"text": grid.titles[0], "standoff": 8})
    figure.update_yaxes(range=[rows - 0.5, -0.5])  # downwards
    below, width = 52 + (7 * longest[0] if turned else 0), left + inner + right
    said = _title(results, show, width // 8, grid.note) if title is None else title
    above = 24 + 19 * (1 + said.count("<br>"))
    finish(figure, said, width, above + tall + below)
    return figure.update_layout(margin={"l": left, "r": right, "t": above, "b": below})


def _heat(grid: Grid, results: xr.Dataset, show: str, across: float) -> go.Heatmap:
    """The coloured cells, balanced around zero, and what hovering says."""
    z, names, said = (grid.cells[key].values for key in ("mean", "name", "said"))
    reach = float(np.abs(z[np.isfinite(z)]).max()) or 1.0
    texts = [[escape(str(name)), text] for name, text in zip(names.flat, said.flat, strict=True)]
    bar = {"title": {"text": _axis(results, show), "side": "right", "font": {"size": 12}}, "thickness": 10}
    return go.Heatmap(
        z=z,
        zmin=-reach,
        zmax=reach,
        colorscale=DIVERGING,
        customdata=np.array(texts, object).reshape(*z.shape, 2),
        hovertemplate=_hover(results, show, "z"),
        hoverongaps=False,
        xgap=int(across >= 8),
        ygap=1,
        colorbar=bar | {"outlinewidth": 0, "tickfont": {"size": 10}, "nticks": 5, "ypad": 0},
    )


def _labels(labels: list[str], apart: float, needed: float) -> dict[str, object]:
    """Labels of an axis whose cells are `apart` pixels: each, or every second, fourth, ... as they fit."""
    step = 1
    while step * apart < needed and step < len(labels):
        step *= 2
    at = list(range(0, len(labels), step))
    texts = [escape(labels[index]) for index in at]
    edges = [-0.5, len(labels) - 0.5]
    look = {"range": edges, "tickfont": {"size": 11}, "showgrid": False, "zeroline": False}
    return {"tickvals": at, "ticktext": texts} | look


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
    figure = go.Figure(bars).update_xaxes(title_text="layer", type="category")
    return figure.update_yaxes(title_text=_axis(results, show), gridcolor="#eee", zerolinecolor="#555")


def _axis(results: xr.Dataset, show: str) -> str:
    """What is drawn, with its unit, escaped."""
    unit = "" if show == "normalised" else str(results.attrs.get("unit", ""))
    return escape(f"{SHOWN[show]} ({unit})" if unit else SHOWN[show])


def _hover(results: xr.Dataset, show: str, value: str) -> str:
    unit = "" if show == "normalised" else escape(f" {results.attrs.get('unit', '')}".rstrip())
    said = f"<b>%{{customdata[0]}}</b><br>{SHOWN[show]} %{{{value}:.3g}}{unit}%{{customdata[1]}}"
    return f"{said}<extra></extra>"


def _title(results: xr.Dataset, show: str, letters: int, note: str = "") -> str:
    """The model, and what was done, in lines of so many letters, escaped."""
    known = {
        key: str(results.attrs[key]) for key in ("metric", "edit", "site", "hold") if results.attrs.get(key)
    }
    said = SHOWN[show] + (" (0 untouched, 1 source run)" if show == "normalised" else "")
    said += f" of {known['edit']}" if "edit" in known else ""
    said += f" at {known['site']}" if "site" in known else ""
    said += f" on {known['metric'].replace('_', ' ')}" if "metric" in known else ""
    said += ", patterns held" if known.get("hold") == "patterns" else ""
    lines = "<br>".join(map(escape, wrap(said + note, letters)))
    return heading(results, lines).replace(": ", ":<br>", 1)

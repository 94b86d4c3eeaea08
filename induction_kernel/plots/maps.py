"""What do the scores of all heads look like, layer by head?

Colours are cividis (Nuñez et al. 2018) for scores that start at zero, purple to orange around chance for
signed
ones: both read the same under the common colour-vision deficiencies. Intervals and marks are those of
`summarise`. It runs no model and draws no attention patterns (`views` does).
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ..heads import summarise

NEGATIVE, MIDDLE, POSITIVE = (84, 39, 136), (247, 247, 247), (179, 88, 6)  # purple, nearly white, orange
PAGE_WIDTH = 1060  # pixels that a row of panels may take
LEFT, RIGHT, ABOVE, BELOW, TOP = 50, 54, 24, 46, 56  # pixels around a panel, and above all of them
JUDGED = {"agreement": "agreement with the model", "correct": "agreement with the right label"}
FONT: dict[str, Any] = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
    "size": 13,
    "color": "#222",
}


def head_map(scores: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the mean score of every head, layers downwards and heads across; one panel for each scorer.

    A white dot marks the heads whose excess lies beyond the threshold of `summarise` (max statistic over all
    heads). Hovering shows name, score with interval, matched control, chance and rank. Scores that start at
    zero run from 0 to 1 (or their maximum, if larger); signed ones are centred on their chance.

    Of a reconstruction it draws how often the vote of each head's weights agrees with the model's prediction (with
    the right label, where it knows no predictions), with its own threshold.

    Args:
        scores: what a scorer or `observe` returns, or its `summarise`; dimensions `layer, head`, maybe
            `scorer`. Or what `reconstruct` returns.
        title: replaces "model: method", the text above the figure.

    Returns:
        A plotly figure. Each panel has one heat map `z[layer, head]` (units of the score) and one set of
        marks.

    Raises:
        TypeError: if `scores` is no Dataset.
        Refused: if it holds neither scores nor their summary.
    """
    parts = panels(scores)
    n_layers, n_heads = parts[0][1].sizes["layer"], parts[0][1].sizes["head"]
    cell = _cell(n_heads, 240), _cell(n_layers, 540)
    size = max(cell[0] * n_heads, 120) + LEFT + RIGHT, cell[1] * n_layers + ABOVE + BELOW
    rows = -(-len(parts) // max(1, PAGE_WIDTH // size[0]))
    columns = -(-len(parts) // rows)
    whole = columns * size[0], rows * size[1]
    figure = go.Figure()
    for index, (name, summary) in enumerate(parts):
        corner = index % columns * size[0] + LEFT, whole[1] - index // columns * size[1] - ABOVE
        across = corner[0] / whole[0], (corner[0] + size[0] - LEFT - RIGHT) / whole[0]
        upwards = (corner[1] - cell[1] * n_layers) / whole[1], corner[1] / whole[1]
        caption = f"<b>{words(name)}</b>" if len(parts) > 1 else ""
        _panel(figure, index + 1, summary, caption, (across, upwards), min(cell))
    figure.update_xaxes(
        title={"text": "head", "standoff": 4}, dtick=tick(n_heads), showgrid=False, zeroline=False
    )
    figure.update_yaxes(
        title={"text": "layer", "standoff": 4}, dtick=tick(n_layers), showgrid=False, zeroline=False
    )
    said = heading(scores, ", ".join(words(name) for name, _ in parts)).replace(": ", ":<br>", 1)
    finish(figure, said if title is None else title, whole[0], whole[1] + TOP)
    return figure.update_layout(margin={"l": 0, "r": 0, "b": 0, "t": TOP})


def _panel(
    figure: go.Figure,
    number: int,
    summary: xr.Dataset,
    heading: str,
    domain: tuple[tuple[float, float], tuple[float, float]],
    cell: int,
) -> None:
    """Add one heat map with its marks, axes and colour bar in the part `domain` (shares of width, height)."""
    across, upwards = domain
    heat, marks = _heat(summary), _marks(summary, cell)
    heat.colorbar = {
        "x": across[1],
        "xpad": 4,
        "y": sum(upwards) / 2,
        "len": upwards[1] - upwards[0],
        "ypad": 0,
    }
    heat.colorbar.update(thickness=10, outlinewidth=0, tickfont={"size": 10}, nticks=5)
    for trace in (heat, marks):
        figure.add_trace(trace.update(xaxis=f"x{number}", yaxis=f"y{number}"))
    columns, rows = (
        (at.min() - 0.5, at.max() + 0.5) for at in (summary["head"].values, summary["layer"].values)
    )
    figure.update_layout({
        f"xaxis{number}": {"domain": across, "anchor": f"y{number}", "range": columns},
        f"yaxis{number}": {"domain": upwards, "anchor": f"x{number}", "range": rows[::-1]},  # downwards
    })  # fmt: skip
    figure.add_annotation(
        text=heading,
        x=across[0],
        y=upwards[1],
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
    )


def _heat(summary: xr.Dataset) -> go.Heatmap:
    """The coloured squares `[layer, head]` of one panel, and what hovering says."""
    z = summary["mean"].values
    shown = ["name", "rank", "low", "high", "control", "chance", "excess", "threshold"]
    shown = [key for key in shown if key in summary.variables and not _empty(summary[key])]
    at = {
        key: f"%{{customdata[{index}]{'' if key in ('name', 'rank') else ':.3f'}}}"
        for index, key in enumerate(shown)
    }
    text = f"<b>{at.get('name', '')}</b><br>score %{{z:.3f}}"
    text += f" ({at['low']} to {at['high']})" if "low" in at else ""
    text += "".join(f"<br>{key} {at[key]}" for key in ("control", "chance") if key in at)
    if {"excess", "threshold"} <= at.keys():
        text += f"<br>excess {at['excess']}, threshold {at['threshold']}"
    elif "threshold" in at:
        text += f"<br>threshold {at['threshold']}"
    text += f"<br>rank {at['rank']} of {z.size}" if "rank" in at else ""
    filled = [summary[key].broadcast_like(summary["mean"]).transpose("layer", "head").values for key in shown]
    low, high, scale = _scale(z, float(summary["chance"].mean()) if "chance" in at else 0.0)
    return go.Heatmap(
        z=z,
        x=summary["head"].values,
        y=summary["layer"].values,
        zmin=low,
        zmax=high,
        colorscale=scale,
        customdata=np.stack([_short(each) for each in filled], axis=-1),
        hovertemplate=text + "<extra></extra>",
        xgap=1,
        ygap=1,
    )


def _empty(values: xr.DataArray) -> bool:
    return values.dtype.kind == "f" and not np.isfinite(values.values).any()


def _short(values: np.ndarray) -> np.ndarray:
    """Objects that take little room in a page: numbers with four digits after the point."""
    return (np.round(values, 4) if values.dtype.kind == "f" else values).astype(object)


def _scale(z: np.ndarray, chance: float) -> tuple[float, float, object]:
    """(lowest, highest, colour scale): from zero if unsigned, balanced around chance if signed."""
    values = z[np.isfinite(z)]
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if least >= 0 and not chance < 0:
        return 0.0, max(1.0, most), "Cividis"
    size = max(1.0, abs(least), abs(most))
    reach = max(chance + size, size - chance)
    at = (chance + size) / (2 * size)
    ends = [
        (0.0, _mix(NEGATIVE, (chance + size) / reach)),
        (at, _mix(NEGATIVE, 0.0)),
        (1.0, _mix(POSITIVE, (size - chance) / reach)),
    ]
    return -size, size, ends


def _mix(colour: tuple[int, int, int], share: float) -> str:
    """`share` of a colour with the rest of the middle one."""
    mixed = (round(middle + share * (full - middle)) for full, middle in zip(colour, MIDDLE, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _marks(summary: xr.Dataset, cell: int) -> go.Scatter:
    """A dot on each head that passes the threshold."""
    layers, heads = np.nonzero(summary["passes"].values == 1)
    marker = {"size": max(5, cell // 3), "color": "white", "line": {"width": 1.5, "color": "black"}}
    x, y = summary["head"].values[heads], summary["layer"].values[layers]
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker=marker,
        hoverinfo="skip",
        showlegend=False,
        name="beyond the threshold",
    )


def panels(scores: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """(scorer, summary over layer and head) of each scorer in scores or in a summary."""
    known = isinstance(scores, xr.Dataset) and "mean" in scores
    need(scores, "mean" if known else "score", "a scorer, observe or summarise")
    summary = summarise(scores).transpose(..., "layer", "head")
    if "scorer" in summary.dims:
        return [(str(name), summary.sel(scorer=name)) for name in summary["scorer"].values]
    if set(summary["mean"].dims) != {"layer", "head"}:
        got = ", ".join(map(str, summary["mean"].dims))
        raise Refused(
            f"wanted a value for each layer and head, got them over ({got}): choose with .sel, or draw what has no "
            "heads with line_plot or interval_plot"
        )
    name = summary["scorer"].item() if "scorer" in summary.coords else summary.attrs.get("method", "score")
    return [(JUDGED.get(str(summary.attrs.get("judged")), str(name)), summary)]


def need(dataset: xr.Dataset, variable: str, maker: str) -> None:
    """Raise unless `dataset` is a Dataset that holds `variable` with at least one finite value."""
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(
            f"wanted the xarray.Dataset of {maker}, got {type(dataset).__name__}; pass its result unchanged"
        )
    if variable not in dataset:
        raise Refused(
            f"wanted the Dataset of {maker}, which holds {variable!r}; got {list(dataset.data_vars)}"
        )
    if not np.isfinite(dataset[variable].values).any():
        raise Refused(
            f"no finite value in {variable!r}: there is nothing to draw; look at the prompts that made it"
        )


def _cell(count: int, room: int) -> int:
    """Pixels for each of `count` cells that share about `room` pixels."""
    return int(np.clip(room // count, 10, 32))


def tick(count: int) -> int:
    """Distance between the labels of an axis with `count` cells."""
    return 1 if count <= 16 else 2 if count <= 32 else 4


def escape(text: str) -> str:
    """Text that a figure shows as it is: plotly reads markup, but would show `&quot;` for a quotation mark."""
    return html.escape(text, quote=False)


def words(name: str) -> str:
    """A method's name as text for a figure, escaped: plotly reads markup in titles."""
    said = str(name).replace("_", " ").replace("ov ", "OV ").replace("qk ", "QK ")
    return escape(said.replace("k composition", "K composition"))


def heading(dataset: xr.Dataset, what: str) -> str:
    """ "model: what", where the Dataset says its model."""
    model = dataset.attrs.get("model")
    return f"{escape(str(model))}: {what}" if model else what


def finish(figure: go.Figure, heading: str, width: int, height: int) -> go.Figure:
    """Title, size and the look that all figures share; returns the figure."""
    figure.update_layout(
        template="none",
        title={"text": heading, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top"},
        title_pad={"l": 12, "t": 12},
        title_font_size=15,
        font=FONT,
        width=width,
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 52},
        plot_bgcolor="white",
        showlegend=False,
        modebar={"remove": ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale"]},
    )
    return figure

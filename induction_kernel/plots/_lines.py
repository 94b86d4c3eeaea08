"""How does a result run along an axis: through the layers, or with more demonstrations?

One line for each thing compared, with a band: agreement and alignment by layer, probe accuracy by layer and
offset, distance and accuracy against the number of demonstrations. It runs no model; what has no axis to run
along, `_intervals` draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ..errors import Refused
from ..heads._names import names_of
from ._effect_grid import intervals, number
from ._style import escape, finish, heading, need, words

COLOURS = ["0, 67, 136", "179, 88, 6", "84, 39, 136", "34, 120, 80", "187, 85, 102", "110, 110, 110"]
DASHES, SYMBOLS = ["solid", "dash", "dot"], ["circle", "diamond", "square", "triangle-up", "x", "cross"]
HITS = ("score", "accuracy", "agreement", "correct")  # what `chance` is the chance of
REPEATED = ("seed", "draw", "split", "fold")
MOST = len(COLOURS) * len(DASHES)  # lines that can be told apart


@dataclass(frozen=True)
class Line:
    """One line: values over the axis, the ends of its band, what hovering adds, and the points behind it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    said: list[str]
    points: np.ndarray | None = None  # [x, head]


def line_plot(
    results: xr.Dataset | Mapping[str, xr.Dataset],
    show: str | Sequence[str],
    *,
    over: str = "layer",
    title: str | None = None,
) -> go.Figure:
    """Draw variables along one dimension, with a line for each index of another.

    Bands are the result's own intervals (`<show>_low`, `<show>_high`) where it has them; else 95% intervals
    over prompts; over seeds, draws, splits or folds the lowest and the highest. Where there are heads, the line
    joins the best head of each place, which is better here than it would be on other prompts; the others are
    pale points if there is nothing else to compare.

    Args:
        results: what `vote`, `kernel_alignment`, a probe or the theory returns; or several by their name,
            such as `{"one head": ..., "sum over heads": ...}`.
        show: the variable; or several, a panel each. Its dimensions: `over`, and maybe `prompt`, one of `seed`,
            `draw`, `split`, `fold`, `head`, and one more, whose indices become lines.
        over: the dimension that runs to the right. Numbers are drawn to scale, or evenly where each is at least
            one and a half times the one before.
        title: replaces "model: variables by dimension"; plotly reads markup in it.

    Returns:
        A plotly figure with a line for each index in each panel, a band around it, and the chance of scores,
        agreement or accuracy dotted where it is the same for all results.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if one lacks a variable, or the variable has other dimensions than those named above, or
            there are more lines than can be told apart.
    """
    parts = {"": results} if isinstance(results, xr.Dataset) or not isinstance(results, Mapping) else results
    shown = [show] if isinstance(show, str) else list(show)
    if not shown or not parts:
        raise Refused(f"wanted results and variables to show, got {list(parts)} and {shown}")
    first = next(iter(parts.values()))
    figure = make_subplots(1, len(shown), horizontal_spacing=0.12)
    several = False
    for panel, variable in enumerate(shown, 1):
        lines = [line for name, part in parts.items() for line in _lines(str(name), part, variable, over)]
        if len(lines) > MOST:
            raise Refused(f"wanted at most {MOST} lines, got {len(lines)}: choose some with .isel")
        several |= len(lines) > 1
        for index, line in enumerate(lines):
            traces = _drawn(line, index, panel)
            figure.add_traces(traces, [1] * len(traces), [panel] * len(traces))
        figure.update_xaxes(_places(lines[0].x), title_text=words(over), row=1, col=panel)
        figure.update_yaxes(title_text=unit(first, variable), row=1, col=panel)
        chance(figure, list(parts.values()), variable, panel)
    figure.update_xaxes(gridcolor="#eee", zeroline=False, title_standoff=8)
    figure.update_yaxes(gridcolor="#eee", zerolinecolor="#aaa", rangemode="tozero", title_standoff=8)
    said = f"{', '.join(map(words, shown))} by {words(over)}"
    said = heading(first, said) if title is None else title
    finish(figure, said, 760 if len(shown) == 1 else min(1060, 480 * len(shown)), 440)
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(showlegend=several, legend=place, margin={"t": 84 if several else 56, "l": 70})
    return figure


def _lines(name: str, results: xr.Dataset, show: str, over: str) -> list[Line]:
    """The lines that one result has."""
    need(results, show, "a measurement with this variable")
    values = results[show]
    apart = [str(dim) for dim in values.dims if dim not in (over, "prompt", "head", *REPEATED)]
    repeated = [dim for dim in ("prompt", *REPEATED) if dim in values.dims]
    if over not in values.dims or len(apart) > 1 or len(repeated) > 1:
        raise Refused(
            f"wanted {show!r} over {over!r}, with prompts or seeds, heads and one more dimension at most; got it "
            f"over ({', '.join(map(str, values.dims))}): choose with .sel or .isel, or name another over=..."
        )
    if not apart:
        return [_line(name, results, show, over, points=True)]
    (dim,) = apart
    return [
        _line(": ".join(filter(None, [name, label])), results.isel({dim: at}), show, over, points=False)
        for at, label in enumerate(indices(results, dim))
    ]


def _line(name: str, results: xr.Dataset, show: str, over: str, *, points: bool) -> Line:
    mean, low, high = (each.transpose(over, ...) for each in band(results, show))
    heads = np.full(len(mean), "", object)
    behind = None
    if "head" in mean.dims:
        behind = mean.values
        best = xr.where(mean.notnull(), mean, -np.inf).argmax("head")
        heads = _names(mean, over)[np.arange(len(mean)), best.values]
        mean, low, high = (each.isel(head=best) for each in (mean, low, high))
    said = [
        (f"<br>best head: {head}" if head else "")
        + (f"<br>{number(a)} to {number(b)}" if np.isfinite(a) else "")
        for head, a, b in zip(heads, low.values, high.values, strict=True)
    ]
    x = results[over].values
    return Line(name, x, mean.values, low.values, high.values, said, behind if points else None)


def _names(values: xr.DataArray, over: str) -> np.ndarray:
    """What each head `[over, head]` is called, by the result's own names where it has them."""
    if "name" in values.coords and set(values["name"].dims) == {over, "head"}:
        return values["name"].transpose(over, "head").values.astype(object)
    heads = values["head"].values
    if over == "layer":
        return names_of(values["layer"].values, heads).astype(object)
    return np.array([[f"head {head}" for head in heads]] * values.sizes[over], object)


def band(results: xr.Dataset, show: str) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Mean and the two ends of its interval, without prompts or repetitions; NaN where there is no interval."""
    values = results[show].astype(float)
    if "prompt" in values.dims:
        values = values.transpose("prompt", ...)
        mean, low, high, _ = intervals(values.values.reshape(len(values), -1))
        over = values.isel(prompt=0, drop=True)
        mean, low, high = (over.copy(data=each.reshape(over.shape)) for each in (mean, low, high))
    elif repeated := [dim for dim in REPEATED if dim in values.dims]:
        mean, low, high = values.mean(repeated), values.min(repeated), values.max(repeated)
    else:
        mean, low, high = values, xr.full_like(values, np.nan), xr.full_like(values, np.nan)
    if {f"{show}_low", f"{show}_high"} <= set(results.data_vars):
        low, high = (results[f"{show}_{end}"].transpose(*mean.dims).astype(float) for end in ("low", "high"))
    return mean, low, high


def _drawn(line: Line, index: int, panel: int) -> list[go.Scatter]:
    """The traces of one line: band, points behind it, and itself."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
    group, traces = line.name or "all", []
    at = np.flatnonzero(np.isfinite(line.low) & np.isfinite(line.high))
    if len(at) > 1:
        x = np.concatenate([line.x[at], line.x[at][::-1]])
        y = np.concatenate([line.high[at], line.low[at][::-1]])
        area = go.Scatter(
            x=x, y=y, fill="toself", fillcolor=f"rgba({colour}, 0.13)", mode="lines", name="band"
        )
        traces.append(area.update(line={"width": 0}, hoverinfo="skip"))
    if line.points is not None:
        x = np.repeat(line.x, line.points.shape[1])
        dots = go.Scatter(x=x, y=line.points.ravel(), mode="markers", name="every head", hoverinfo="skip")
        traces.append(dots.update(marker={"size": 5, "color": f"rgba({colour}, 0.25)"}))
    for trace in traces:
        trace.update(showlegend=False, legendgroup=group)
    main = go.Scatter(
        x=line.x,
        y=line.y,
        mode="lines+markers",
        line={"color": f"rgb({colour})", "width": 2, "dash": dash},
        marker={"size": 6, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        name=line.name,
        legendgroup=group,
        showlegend=panel == 1 and bool(line.name),
        customdata=line.said,
        hovertemplate=f"<b>{line.name}</b> %{{x}}<br>%{{y:.3g}}%{{customdata}}<extra></extra>",
    )
    return [*traces, main]


def _places(x: np.ndarray) -> dict[str, object]:
    """How the axis is laid out: to scale, or evenly where numbers grow by half or more at each step."""
    if x.dtype.kind not in "if":
        return {"type": "category", "tickangle": 0}
    if len(x) > 2 and (x[:-1] > 0).all() and (x[1:] >= 1.5 * x[:-1]).all():
        return {"type": "log", "tickvals": x.tolist(), "ticktext": [f"{at:g}" for at in x], "tickangle": 0}
    whole = len(x) <= 12 and x.dtype.kind == "i"
    return {"tickvals": x.tolist()} if whole else {"nticks": 12}


def indices(results: xr.Dataset, dim: str) -> list[str]:
    """What the indices of a dimension are called in a figure, escaped; numbers with the dimension's name."""
    values = results[dim].values
    return [f"{words(dim)} {at:g}" if values.dtype.kind in "if" else words(str(at)) for at in values]


def chance(figure: go.Figure, parts: Sequence[xr.Dataset], show: str, panel: int, axis: str = "y") -> None:
    """A dotted line where the results have one and the same chance."""
    known = {float(part["chance"].mean()) for part in parts if show in HITS and "chance" in part}
    if len(known) == 1 and np.isfinite(level := known.pop()):
        draw = figure.add_hline if axis == "y" else figure.add_vline
        draw(level, line={"dash": "dot", "width": 1, "color": "#555"}, row=1, col=panel)  # pyright: ignore[reportArgumentType]  # its stub knows "all" alone


def unit(results: xr.Dataset, show: str) -> str:
    """The variable's name for an axis, with its unit where it has one."""
    known = results[show].attrs.get("unit")
    return words(show) + (f" ({escape(str(known))})" if known else "")

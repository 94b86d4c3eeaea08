"""`line_plot`: results along one dimension, one line with its band for each of those compared.

Agreement and alignment by layer, probe accuracy by layer and offset, distance and accuracy by the number of
demonstrations. It runs no model; `_few_shot` draws results without such an axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ..errors import Refused
from ..heads._names import names_of
from ._effect_grid import intervals, number
from ._figure import Figure
from ._style import entries, escape, fitted, heading, need, of_prompts, prompts_in, words

COLOURS = ["0, 67, 136", "179, 88, 6", "84, 39, 136", "34, 120, 80", "187, 85, 102", "110, 110, 110"]
DASHES, SYMBOLS = ["solid", "dash", "dot"], ["circle", "diamond", "square", "triangle-up", "x", "cross"]
HITS = ("score", "accuracy", "agreement", "correct")  # what `chance` is the chance of
REPEATED = ("seed", "draw", "split", "fold")
# Labels that turn where they must.
NARROWING: dict[str, object] = {"autotickangles": [0, -90], "automargin": True}
MOST = len(COLOURS) * len(DASHES)  # lines that can be told apart


@dataclass(frozen=True)
class Line:
    """One line: values over the axis, the ends of its band, the text of hovering, and the points behind it."""

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

    Bands are the result's own intervals (`<show>_low`, `<show>_high`) where it has them, else 95% intervals over
    prompts, or the range over seeds, draws, splits or folds. Where there are heads, the line joins the best head at
    each place, which is chosen on these prompts and so would do worse on others; all heads are pale points if no other
    dimension is compared.

    Args:
        results: what `vote`, `kernel_alignment`, a probe or the theory returns; or several by name, such as
            `{"best head": ..., "layer sum": ...}`.
        show: the variable, or several with a panel each. Its dimensions: `over`, optionally `prompt` or one of `seed`,
            `draw`, `split`, `fold`, optionally `head`, and at most one more, whose indices become lines.
        over: the dimension across. Numbers are drawn to scale, or on a logarithmic axis where each is at least one and
            a half times the one before.
        title: replaces "model: variables by dimension" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with a line for each index in each panel, a band around it, and a
        dotted line at the chance of scores, agreement or accuracy where it is the same for all results.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if a result lacks a variable, if the variable has other dimensions than those above, or if there are
            more lines than can be told apart.
    """
    parts = {"": results} if isinstance(results, xr.Dataset) or not isinstance(results, Mapping) else results
    shown = [show] if isinstance(show, str) else list(show)
    if not shown or not parts:
        raise Refused(
            f"wanted results and variables to show, at least one of each; got {len(parts)} results and {shown}"
        )
    first = next(iter(parts.values()))
    between = 0.12 if len(shown) < 4 else 0.06
    figure = make_subplots(1, len(shown), figure=Figure(), horizontal_spacing=between)
    several = False
    for panel, variable in enumerate(shown, 1):
        several |= _panel(figure, panel, parts, variable, over, alone=len(shown) == 1) > 1
    figure.update_xaxes(zeroline=False, title_standoff=8)
    figure.update_yaxes(rangemode="tozero", title_standoff=8)
    said = f"{', '.join(map(words, shown))} by {words(over)}"
    parts_shown = [part for part in parts.values() if shown[0] in part]
    pale = "pale points: all heads" if _has_points(figure) else ""
    marks = [*notes(parts_shown, shown[0], "bands"), pale, dotted(figure)]
    said = heading(first, said, *marks) if title is None else title
    names = entries(figure) if several else []
    alone = len(shown) == 1
    return fitted(figure, said, 320, legend=names, captions=0 if alone else 24, left=70 if alone else 50)


def _panel(
    figure: go.Figure, panel: int, parts: Mapping[str, xr.Dataset], variable: str, over: str, *, alone: bool
) -> int:
    """Add the lines of one panel, its axes and the line at chance; return the number of lines."""
    lines = [line for name, part in parts.items() for line in _lines(str(name), part, variable, over)]
    if len(lines) > MOST:
        raise Refused(f"wanted at most {MOST} lines, got {len(lines)}: choose some with .isel")
    for index, line in enumerate(lines):
        traces = _drawn(line, index, panel)
        figure.add_traces(traces, [1] * len(traces), [panel] * len(traces))
    figure.update_xaxes(_places(lines[0].x), title_text=words(over), row=1, col=panel)
    first = next(iter(parts.values()))
    if alone:
        figure.update_yaxes(title_text=unit(first, variable))
    else:
        _caption(figure, unit(first, variable), panel)
    chance(figure, list(parts.values()), variable, panel)
    return len(lines)


def _has_points(figure: go.Figure) -> bool:
    """Whether the points of all heads are drawn."""
    traces: Any = figure.data  # their attributes are made at run time
    return any(trace.name == "every head" for trace in traces)


def _caption(figure: go.Figure, text: str, panel: int) -> None:
    """The variable of a panel, in bold above its left corner."""
    axis = panel if panel > 1 else ""
    place: dict[str, Any] = {"x": 0, "xref": f"x{axis} domain", "y": 1, "yref": f"y{axis} domain"}
    figure.add_annotation(place, text=f"<b>{text}</b>", xanchor="left", yanchor="bottom", showarrow=False)


def notes(parts: Sequence[xr.Dataset], show: str, marks: str) -> list[str]:
    """The number of prompts, and what bands or bars are, for the title."""
    first = parts[0]
    values, n = first[show], prompts_in(first)
    repeated = [str(dim) for dim in REPEATED if dim in values.dims]
    whole = {f"{show}_low", f"{show}_high"} <= set(first.data_vars)
    over = of_prompts(n, "over" if whole else "mean over")
    if whole or "prompt" in values.dims:
        level = float(first.attrs.get("confidence", 0.95))
        return [over, f"{marks}: {level:.0%} intervals" if n != 1 else ""]
    if repeated:
        return [f"{marks}: lowest to highest of {first.sizes[repeated[0]]} {repeated[0]}s"]
    return [over]


def _lines(name: str, results: xr.Dataset, show: str, over: str) -> list[Line]:
    """The lines of one result."""
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
    """The name of each head `[over, head]`: the result's own where it has them."""
    if "name" in values.coords and set(values["name"].dims) == {over, "head"}:
        return values["name"].transpose(over, "head").values.astype(object)
    heads = values["head"].values
    if over == "layer":
        return names_of(values["layer"].values, heads).astype(object)
    return np.array([[f"head {head}" for head in heads]] * values.sizes[over], object)


def band(results: xr.Dataset, show: str) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Mean over prompts or repetitions and the two ends of its interval; NaN where there is no interval."""
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
    """The traces of one line: its band, the points behind it, and the line itself."""
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
    """Layout of the horizontal axis: linear, or logarithmic where each number is at least 1.5 times the one before."""
    if x.dtype.kind not in "if":
        return {"type": "category", **NARROWING}
    if len(x) > 2 and (x[:-1] > 0).all() and (x[1:] >= 1.5 * x[:-1]).all():
        return {"type": "log", "tickvals": x.tolist(), "ticktext": [f"{at:g}" for at in x], **NARROWING}
    whole = len(x) <= 8 and x.dtype.kind == "i"
    return {"tickvals": x.tolist()} if whole else {"tickmode": "auto", "tickangle": 0}


def indices(results: xr.Dataset, dim: str) -> list[str]:
    """Names of the indices of a dimension, escaped; numbers with the dimension's name."""
    values = results[dim].values
    return [f"{words(dim)} {at:g}" if values.dtype.kind in "if" else words(str(at)) for at in values]


def chance(figure: go.Figure, parts: Sequence[xr.Dataset], show: str, panel: int, axis: str = "y") -> None:
    """Draw a dotted line at chance, where chance is the same for all results."""
    known = {float(part["chance"].mean()) for part in parts if show in HITS and "chance" in part}
    if len(known) == 1 and np.isfinite(level := known.pop()):
        draw = figure.add_hline if axis == "y" else figure.add_vline
        draw(level, line={"dash": "dot", "width": 1, "color": "#555"}, row=1, col=panel)  # pyright: ignore[reportArgumentType]  # its stub knows "all" alone


def dotted(figure: go.Figure) -> str:
    """What dotted lines are, for the title; "" where there is none."""
    return "dotted: chance" if figure.layout["shapes"] else ""


def unit(results: xr.Dataset, show: str) -> str:
    """The variable's name with its unit, where it has one, for an axis."""
    known = results[show].attrs.get("unit")
    return words(show) + (f" ({escape(str(known))})" if known else "")

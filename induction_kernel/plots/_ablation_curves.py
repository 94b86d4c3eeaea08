"""How many heads carry it, and are the cheap estimates right?

`curve_plot` draws an ablation curve beside its random controls, `attribution_check` attribution against the exact
effect of the cells that were verified. Neither runs a model. Maps of effects are in `_effect_map`.
"""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import intervals, number
from ._scores import BAND, BLUE
from ._style import POSITIVE, escape, finish, heading, need

GREY, PALE, ORANGE = "rgb(110, 110, 110)", "rgba(110, 110, 110, 0.18)", f"rgb{POSITIVE}"
LISTED, A_LINE = 40, 8  # heads that hovering lists, and how many a line


def curve_plot(curve: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw what is lost when the k strongest heads are removed together, beside random heads.

    The share of the benefit that is lost where the metric has one and it is reliable, else the effect. The
    strongest heads carry a 95% interval over prompts, the random heads the median over different sets and the band
    that 5% to 95% of these fall in. Values of k are spaced evenly. Hovering lists the heads.

    Args:
        curve: what `ablation_curve` returns: `effect[prompt, k]`, `control_effect[prompt, k, draw]`, and
            where there is a share `share[k]`, `share_low[k]`, `share_high[k]`, `control_share[k, draw]`;
            coordinate `heads[k]`.
        title: replaces "model: share of the benefit lost without the k strongest heads".

    Returns:
        A plotly figure: a line over k with its band, and where there are controls another one; shares, or
        effects in the metric's unit.

    Raises:
        TypeError: if `curve` is no Dataset.
        Refused: if it holds no effect over k, or nothing finite.
    """
    need(curve, "effect", "ablation_curve")
    if set(curve["effect"].dims) != {"prompt", "k"}:
        got = ", ".join(map(str, curve["effect"].dims))
        raise Refused(
            f"wanted the Dataset of ablation_curve, with effect[prompt, k]; got it over ({got}): effect_map "
            "draws a sweep"
        )
    shares = "share" in curve and bool(np.isfinite(curve["share"].values).any())
    ks = [str(k) for k in curve["k"].values]
    unit = "" if shares else escape(f" {curve.attrs.get('unit', '')}".rstrip())
    form = ".0%" if shares else ".3g"
    figure = go.Figure(
        [*_controls(curve, ks, shares, form, unit), *_strongest(curve, ks, shares, form, unit)]
    )
    what = "share of the benefit lost" if shares else "effect"
    figure.update_xaxes(title_text="heads removed together", type="category", gridcolor="#eee")
    figure.update_xaxes(categoryorder="array", categoryarray=ks, nticks=20, tickangle=0)
    axis = what if shares or not unit else f"{what} ({unit.strip()})"
    figure.update_yaxes(title_text=axis, gridcolor="#eee", zerolinecolor="#555", rangemode="tozero")
    figure.update_yaxes(tickformat=".0%" if shares else None)
    lines = map(escape, wrap(f"{what} without the strongest heads" + _measured(curve), 88))
    said = heading(curve, "<br>".join(lines)).replace(": ", ":<br>", 1) if title is None else title
    if title is None:
        cautions = map(escape, wrap(str(curve.attrs.get("cautions", "")), 110))
        said += "".join(f"<br><span style='font-size:12px'>{line}</span>" for line in cautions)
    above = 70 + 19 * said.count("<br>")
    finish(figure, said, 760, 360 + above)
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return figure.update_layout(showlegend=True, legend=place, margin={"t": above})


def attribution_check(attribution: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the estimate of each verified cell against its exact effect; on the dotted line they are equal.

    The cell with the largest miss carries its name. Both axes have one range.

    Args:
        attribution: what `attribution(..., verify=n)` returns: `estimated[cell]`, `exact[cell]`, coordinates
            `cell` (names) and `group[cell]` ("strongest", "random"), attributes `correlation`, `worst_miss`.
        title: replaces "model: attribution against exact effect", with correlation and worst miss.

    Returns:
        A plotly figure with one set of markers for each group, exact effects across and estimates upwards, in
        the metric's unit.

    Raises:
        TypeError: if `attribution` is no Dataset.
        Refused: if no cell of it was verified.
    """
    if isinstance(attribution, xr.Dataset) and "estimate" in attribution and "exact" not in attribution:
        raise Refused(
            "wanted an attribution with cells that were run exactly too, got estimates alone: call "
            "attribution(..., verify=20)"
        )
    for variable in ("exact", "estimated"):
        need(attribution, variable, "attribution(..., verify=20)")
    exact, estimated = (attribution[key].values.astype(float) for key in ("exact", "estimated"))
    cells = np.array([escape(str(cell)) for cell in attribution["cell"].values], object)
    grouped = "group" in attribution.variables
    groups = attribution["group"].values.astype(str) if grouped else np.full(len(cells), "verified")
    unit = escape(f" {attribution.attrs.get('unit', '')}".rstrip())
    worst = _worst(exact, estimated)
    figure = go.Figure([_line(exact, estimated)])
    for group in sorted(dict.fromkeys(groups), key=lambda each: each != "random"):  # the strongest on top
        at = np.flatnonzero(groups == group)
        markers = _markers(exact[at], estimated[at], cells[at], [index == worst for index in at], unit)
        colour = ORANGE if group == "random" else BLUE
        figure.add_trace(markers.update(name=f"{escape(group)} cells", marker={"color": colour}))
    side = f" ({unit.strip()})" if unit else ""
    figure.update_xaxes(title_text=f"exact effect{side}", gridcolor="#eee", zerolinecolor="#aaa")
    figure.update_yaxes(title_text=f"attribution{side}", gridcolor="#eee", zerolinecolor="#aaa")
    ends = _range(exact, estimated)
    figure.update_layout(xaxis_range=ends, yaxis_range=ends)
    said = heading(attribution, "attribution against exact effect" + _agreement(attribution.attrs, unit))
    finish(figure, said if title is None else title, 600, 600)
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}
    return figure.update_layout(showlegend=True, legend=place, margin={"t": 98, "l": 70})


def _strongest(curve: xr.Dataset, ks: list[str], shares: bool, form: str, unit: str) -> list[go.Scatter]:
    """The line of the strongest heads with its interval over prompts."""
    if shares:
        mean, low, high = (curve[key].values for key in ("share", "share_low", "share_high"))
    else:
        mean, low, high, _ = intervals(curve["effect"].transpose("prompt", "k").values)
    heads = curve["heads"].values if "heads" in curve.variables else np.full(len(ks), "")
    said = [
        (f" ({_said(a, form)} to {_said(b, form)})" if np.isfinite(a) else "") + _list(str(names))
        for a, b, names in zip(low, high, heads, strict=True)
    ]
    line = go.Scatter(
        x=ks,
        y=mean,
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 6},
        name="strongest heads (95% interval over prompts)",
        customdata=said,
        hovertemplate=f"<b>%{{x}} strongest</b><br>%{{y:{form}}}{unit}%{{customdata}}<extra></extra>",
    )
    return [*_band(ks, low, high, BAND), line]


def _controls(curve: xr.Dataset, ks: list[str], shares: bool, form: str, unit: str) -> list[go.Scatter]:
    """Median and spread over the draws of random heads; nothing where there are none."""
    key = "control_share" if shares else "control_effect"
    if key not in curve or not np.isfinite(curve[key].values).any():
        return []
    draws = curve[key].mean("prompt") if "prompt" in curve[key].dims else curve[key]
    values = draws.transpose("k", "draw").values
    low, middle, high = np.full((3, len(ks)), np.nan)
    for at, row in enumerate(values):
        if np.isfinite(row).any():
            low[at], middle[at], high[at] = np.quantile(row[np.isfinite(row)], [0.05, 0.5, 0.95])
    sets = [f"{n} set{'s' if n > 1 else ''}" for n in np.isfinite(values).sum(1)]
    ends = [f" ({_said(a, form)} to {_said(b, form)})" for a, b in zip(low, high, strict=True)]
    said = list(zip(ends, sets, strict=True))
    line = go.Scatter(
        x=ks,
        y=middle,
        mode="lines+markers",
        line={"color": GREY, "width": 2, "dash": "dot"},
        marker={"size": 5},
        name="random heads of the same layers",
        customdata=said,
        hovertemplate=f"<b>%{{x}} random</b><br>median of %{{customdata[1]}} %{{y:{form}}}{unit}"
        "%{customdata[0]}<extra></extra>",
    )
    return [*_band(ks, low, high, PALE), line]


def _band(ks: list[str], low: np.ndarray, high: np.ndarray, colour: str) -> list[go.Scatter]:
    """The area between two lines, over the k that have both; none if there are fewer than two."""
    at = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    if len(at) < 2:
        return []
    x = [ks[index] for index in [*at, *at[::-1]]]
    band = go.Scatter(x=x, y=np.concatenate([high[at], low[at][::-1]]), fill="toself", fillcolor=colour)
    return [band.update(line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, name="band")]


def _list(names: str) -> str:
    """The heads in lines of a few, escaped; the first of many."""
    heads = [escape(name) for name in names.split()]
    rest = [f"and {len(heads) - LISTED} more"] if len(heads) > LISTED else []
    lines = [" ".join(heads[at : at + A_LINE]) for at in range(0, min(len(heads), LISTED), A_LINE)]
    return "".join(f"<br>{line}" for line in [*lines, *rest])


def _said(value: float, form: str) -> str:
    return f"{value:{form}}".replace("-", "−") if form == ".0%" else number(value)


def _measured(curve: xr.Dataset) -> str:
    """The rest of the title: metric and edit, where the Dataset says them."""
    metric, edit = curve.attrs.get("metric"), curve.attrs.get("edit")
    said = f" on {str(metric).replace('_', ' ')}" if metric else ""
    return f" ({edit}{said})" if edit else said


def _markers(
    exact: np.ndarray, estimated: np.ndarray, cells: np.ndarray, worst: list[bool], unit: str
) -> go.Scatter:
    return go.Scatter(
        x=exact,
        y=estimated,
        mode="markers+text",
        text=[cell if is_worst else "" for cell, is_worst in zip(cells, worst, strict=True)],
        textposition=["middle left" if at > 0 else "middle right" for at in exact],
        customdata=cells,
        marker={"size": 8, "line": {"width": 0.5, "color": "white"}},
        hovertemplate=f"<b>%{{customdata}}</b><br>exact %{{x:.3g}}{unit}<br>estimate %{{y:.3g}}{unit}"
        "<extra></extra>",
    )


def _worst(exact: np.ndarray, estimated: np.ndarray) -> int:
    """Index of the cell with the largest miss."""
    miss = np.abs(estimated - exact)
    return int(np.where(np.isfinite(miss), miss, -1.0).argmax())


def _range(exact: np.ndarray, estimated: np.ndarray) -> list[float]:
    """One range for both axes, with some room."""
    both = np.concatenate([exact, estimated, [0.0]])
    least, most = float(np.nanmin(both)), float(np.nanmax(both))
    room = 0.08 * (most - least) or 1.0
    return [least - room, most + room]


def _line(exact: np.ndarray, estimated: np.ndarray) -> go.Scatter:
    """Where estimate and exact effect are equal."""
    ends = _range(exact, estimated)
    line = {"dash": "dot", "width": 1, "color": "#888"}
    return go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name="equal")


def _agreement(attrs: dict[str, object], unit: str) -> str:
    """Correlation and worst miss as a second line of the title; undefined ones are dashes."""
    found = [float(str(attrs.get(key, "nan"))) for key in ("correlation", "worst_miss")]
    correlation, miss = (number(value) if np.isfinite(value) else "–" for value in found)
    return f"<br>correlation {correlation}, worst miss {miss}{unit}"

"""Figures of ablation curves beside random heads, and of attribution beside exact effects.

`curve_plot` draws the first, `attribution_check` the second. They run no model; maps of effects are in `_effect_map`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import intervals, number
from ._figure import Figure
from ._scores import BAND, BLUE
from ._style import (
    POSITIVE,
    effect,
    entries,
    escape,
    fitted,
    heading,
    intervention,
    metric,
    need,
    of_prompts,
    prompts_in,
)

GREY, PALE, ORANGE = "rgb(110, 110, 110)", "rgba(110, 110, 110, 0.18)", f"rgb{POSITIVE}"
LISTED, A_LINE = 40, 8  # heads that hovering lists, and how many per line


def curve_plot(curve: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the effect of ablating the k strongest heads together, beside random heads.

    Draws the share of the benefit that is lost, or the effect where the metric has no share or an unreliable one. The
    band of the strongest heads is a 95% interval over prompts; the line of the random heads is the median over
    different sets, and its band runs from 5% to 95% of the sets. Values of k are spaced evenly. Hovering lists the
    heads.

    Args:
        curve: what `ablation_curve` returns: `effect[prompt, k]`, `control_effect[prompt, k, draw]`, and
            where there is a share `share[k]`, `share_low[k]`, `share_high[k]`, `control_share[k, draw]`;
            coordinate `heads[k]`.
        title: replaces "model: share of the benefit lost without the strongest heads", the notes below it and the
            cautions of the result; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container: a line over k with its band, and another one where there are controls;
        shares, or effects in the metric's unit.

    Raises:
        TypeError: if `curve` is no Dataset.
        Refused: if it lacks `effect[prompt, k]`, or has no finite value of it.
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
    figure = Figure([*_controls(curve, ks, shares, form, unit), *_strongest(curve, ks, shares, form, unit)])
    what = "share of the benefit lost" if shares else "effect"
    figure.update_xaxes(title_text="heads removed together", type="category")
    figure.update_xaxes(categoryorder="array", categoryarray=ks, nticks=20, tickangle=0)
    axis = what if shares or not unit else f"{what} ({unit.strip()})"
    figure.update_yaxes(title_text=axis, zerolinecolor="#555", rangemode="tozero")
    figure.update_yaxes(tickformat=".0%" if shares else None)
    said = escape(f"{what} without the strongest heads{_measured(curve)}")
    bands = "bands: 95% interval over prompts, and 5% to 95% of random sets"
    cautions = escape(str(curve.attrs.get("cautions", "")))
    over = of_prompts(prompts_in(curve), "over" if shares else "mean over")
    said = heading(curve, said, over, bands, caution=cautions) if title is None else title
    return fitted(figure, said, 310, legend=entries(figure), left=74)


def attribution_check(attribution: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the estimate of each verified cell against its exact effect; they are equal on the dotted line.

    The cell with the largest error carries its name. Both axes have the same range.

    Args:
        attribution: what `attribution(..., verify=n)` returns: `estimated[cell]`, `exact[cell]`, coordinates
            `cell` (names) and `group[cell]` ("strongest", "random"), attributes `correlation`, `worst_miss`.
        title: replaces "model: estimated against exact effect" and the notes below it, with correlation and largest
            error; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with one set of markers for each group: exact effects across,
        estimates upwards, in the metric's unit.

    Raises:
        TypeError: if `attribution` is no Dataset.
        Refused: if no cell of it was verified.
    """
    if isinstance(attribution, xr.Dataset) and "estimate" in attribution and "exact" not in attribution:
        raise Refused(
            "wanted an attribution with exact effects of some cells, got estimates alone: call "
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
    figure = Figure([_line(exact, estimated)])
    for group in sorted(dict.fromkeys(groups), key=lambda each: each != "random"):  # the strongest on top
        at = np.flatnonzero(groups == group)
        markers = _markers(exact[at], estimated[at], cells[at], [index == worst for index in at], unit)
        colour = ORANGE if group == "random" else BLUE
        figure.add_trace(markers.update(name=f"{escape(group)} cells", marker={"color": colour}))
    side = f" ({unit.strip()})" if unit else ""
    figure.update_xaxes(title_text=f"exact effect{side}", title_standoff=8)
    figure.update_yaxes(title_text=f"estimate{side}", title_standoff=8)
    ends = _range(exact, estimated)
    figure.update_layout(xaxis_range=ends, yaxis_range=ends)
    said = escape(f"estimated against exact {effect(attribution.attrs)}")
    over = of_prompts(prompts_in(attribution), "means over")
    said = heading(attribution, said, over, _agreement(attribution.attrs, unit)) if title is None else title
    return fitted(figure, said, 420, legend=entries(figure), left=70)


def _strongest(curve: xr.Dataset, ks: list[str], shares: bool, form: str, unit: str) -> list[go.Scatter]:
    """The line of the strongest heads, with its interval over prompts."""
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
        name="strongest heads",
        customdata=said,
        hovertemplate=f"<b>%{{x}} strongest</b><br>%{{y:{form}}}{unit}%{{customdata}}<extra></extra>",
    )
    return [*_band(ks, low, high, BAND), line]


def _controls(curve: xr.Dataset, ks: list[str], shares: bool, form: str, unit: str) -> list[go.Scatter]:
    """Median and 5% to 95% over the random sets; no traces where there are none."""
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
    """The area between two lines, over the k that have both, if there are two such k."""
    at = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    if len(at) < 2:
        return []
    x = [ks[index] for index in [*at, *at[::-1]]]
    band = go.Scatter(x=x, y=np.concatenate([high[at], low[at][::-1]]), fill="toself", fillcolor=colour)
    return [band.update(line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, name="band")]


def _list(names: str) -> str:
    """The names of the heads in several lines, escaped; of many heads the first."""
    heads = [escape(name) for name in names.split()]
    rest = [f"and {len(heads) - LISTED} more"] if len(heads) > LISTED else []
    lines = [" ".join(heads[at : at + A_LINE]) for at in range(0, min(len(heads), LISTED), A_LINE)]
    return "".join(f"<br>{line}" for line in [*lines, *rest])


def _said(value: float, form: str) -> str:
    return f"{value:{form}}".replace("-", "−") if form == ".0%" else number(value)


def _measured(curve: xr.Dataset) -> str:
    """The rest of the title: edit and metric, where the Dataset names them."""
    said = ", ".join(filter(None, [intervention(curve.attrs), metric(curve.attrs)]))
    return f" ({said})" if said else ""


def _markers(
    exact: np.ndarray, estimated: np.ndarray, cells: np.ndarray, worst: list[bool], unit: str
) -> go.Scatter:
    return go.Scatter(
        x=exact,
        y=estimated,
        mode="markers+text",
        text=[cell if is_worst else "" for cell, is_worst in zip(cells, worst, strict=True)],
        textposition=["top left" if at > 0 else "top right" for at in exact],
        customdata=cells,
        marker={"size": 8, "line": {"width": 0.5, "color": "white"}},
        hovertemplate=f"<b>%{{customdata}}</b><br>exact %{{x:.3g}}{unit}<br>estimate %{{y:.3g}}{unit}"
        "<extra></extra>",
    )


def _worst(exact: np.ndarray, estimated: np.ndarray) -> int:
    """Index of the cell with the largest error."""
    miss = np.abs(estimated - exact)
    return int(np.where(np.isfinite(miss), miss, -1.0).argmax())


def _range(exact: np.ndarray, estimated: np.ndarray) -> list[float]:
    """A common range of both axes, with some room."""
    both = np.concatenate([exact, estimated, [0.0]])
    least, most = float(np.nanmin(both)), float(np.nanmax(both))
    room = 0.08 * (most - least) or 1.0
    return [least - room, most + room]


def _line(exact: np.ndarray, estimated: np.ndarray) -> go.Scatter:
    """The line on which estimate and exact effect are equal."""
    ends = _range(exact, estimated)
    line = {"dash": "dot", "width": 1, "color": "#888"}
    return go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name="equal")


def _agreement(attrs: dict[Any, Any], unit: str) -> str:
    """Correlation and largest error, for the title; undefined ones are dashes."""
    found = [float(str(attrs.get(key, "nan"))) for key in ("correlation", "worst_miss")]
    correlation, miss = (number(value) if np.isfinite(value) else "–" for value in found)
    return f"correlation {correlation}, largest error {miss}{unit}"

"""Figures of per-token losses over training: principal components, and slope over positions.

`component_plot` draws the path of the losses in their first two principal components, `slope_plot` the derivative of
the loss with respect to the logarithm of the token index (Olsson et al. 2022, argument 1). They run no model and
compute neither: `loss_components` and `loss_slope` do.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._figure import Figure
from ._style import MIDDLE, NEGATIVE, POSITIVE, fitted, heading, need
from ._training_axis import (
    RUNS,
    Run,
    axis_of,
    belonging,
    edges,
    layout,
    legend,
    places,
    runs,
    short,
    tokens_of,
)

DIVERGING: list[list[float | str]] = [[0.0, f"rgb{NEGATIVE}"], [0.5, f"rgb{MIDDLE}"], [1.0, f"rgb{POSITIVE}"]]


def component_plot(
    components: xr.Dataset, window: xr.Dataset | None = None, *, title: str | None = None
) -> go.Figure:
    """Draw the path of training through the first two principal components of the per-token losses.

    There is a point for each checkpoint, darker as training goes on; the first and the last carry their tokens, and
    those inside the window have a black rim. Olsson et al. 2022 show a turn of the path there. Where the first steps of
    training dwarf all others, pass curves without them to `loss_components`:
    `curves.sel(checkpoint=slice(400, None))`.

    Args:
        components: what `loss_components` returns: `component[checkpoint, pc]`, optionally over `model` and `seed`,
            and `explained[pc]`, the share of the variance.
        window: what `phase_window` found in the same curves.
        title: replaces "model: principal components of the losses" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with a line for each run and one colour for each model; both axes have
        the same scale.

    Raises:
        TypeError: if `components` or `window` is no Dataset.
        Refused: if there are fewer than two components, or the windows belong to other runs.
    """
    need(components, "component", "loss_components")
    if not {"checkpoint", "pc"} <= set(components["component"].dims) or components.sizes["pc"] < 2:
        raise Refused(
            "wanted component[checkpoint, pc] with two components at least, got it over "
            f"{dict(components['component'].sizes)}: pass what loss_components returned"
        )
    if window is not None:
        need(window, "exists", "phase_window")
    found = runs(components, "component")
    figure = Figure([_path(run, window, alone=len(found) == 1) for run in found])
    figure.update_xaxes(title_text=f"component 1{_explained(components, 0)}")
    figure.update_yaxes(title_text=f"component 2{_explained(components, 1)}")
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(zeroline=False, nticks=8, title_standoff=8)
    figure.update_yaxes(scaleanchor="x", scaleratio=1)
    marks = ["a point for each checkpoint", "black rim: inside the window" if window is not None else ""]
    said = heading(components, "principal components of the losses", *marks) if title is None else title
    return fitted(figure, said, 420, legend=legend(found), left=70)


def _path(run: Run, window: xr.Dataset | None, *, alone: bool) -> go.Scatter:
    tokens, (x, y) = tokens_of(run.data), run.data["component"].transpose("pc", "checkpoint").values[:2]
    inside = np.zeros(len(tokens), bool)
    if window is not None:
        one = belonging(window, run)
        inside = bool(one["exists"]) & (tokens >= float(one["start"])) & (tokens <= float(one["end"]))
    shade = np.linspace(0.15, 1, len(tokens))
    text = [""] * len(tokens)
    if alone:
        text[0], text[-1] = f"{short(tokens[0])} tokens", f"{short(tokens[-1])} tokens"
    said = [
        f"{short(at)} tokens{', in the window' if of else ''}" for at, of in zip(tokens, inside, strict=True)
    ]
    rim = {"width": np.where(inside, 2.0, 0.0), "color": "black"}
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers+text" if alone else "lines+markers",
        line={"color": f"rgba({run.colour}, 0.35)", "width": 1},
        marker={"size": 9, "color": [f"rgba({run.colour}, {each:.2f})" for each in shade], "line": rim},
        text=text,
        textposition=_beside(x, y),
        cliponaxis=False,
        name=run.model or run.name,
        legendgroup=run.model or run.name,
        showlegend=run.first,
        customdata=said,
        hovertemplate=f"<b>{run.name}</b> %{{customdata}}<extra></extra>",
    )


def _beside(x: np.ndarray, y: np.ndarray) -> list[str]:
    """Place of the text of each point: towards the middle of the figure, away from the neighbouring point."""
    towards = np.where(x > (np.nanmin(x) + np.nanmax(x)) / 2, "left", "right")
    neighbour = np.r_[y[1:2], y[:-1]]
    away = np.where(neighbour > y, "bottom", "top")
    return [f"{vertical} {side}" for vertical, side in zip(away, towards, strict=True)]


def _explained(components: xr.Dataset, index: int) -> str:
    return (
        f" ({float(components['explained'][index]):.0%} of the variance)" if "explained" in components else ""
    )


def slope_plot(slope: xr.Dataset, window: xr.Dataset | None = None, *, title: str | None = None) -> go.Figure:
    """Draw how much each further token in the context helps, at each checkpoint.

    Draws the derivative of the loss with respect to the natural logarithm of the token index (position + 1): below zero
    (purple) where later tokens are predicted better than earlier ones. Both axes are logarithmic. Colours are balanced
    around zero and end at the 98th percentile of the absolute values. Dashed lines are start and end of the window.
    Where the first tokens of a context dominate the colours, leave them out with `.sel(position=slice(9, None))`.

    Args:
        slope: what `loss_slope` returns for one run: `slope[checkpoint, position]` in nats.
        window: what `phase_window` found in the same curves.
        title: replaces "model: slope of the loss along the context" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with one heat map `z[position, checkpoint]` between the borders `x`
        (tokens) and `y` (token indices).

    Raises:
        TypeError: if `slope` or `window` is no Dataset.
        Refused: if it holds several runs, or lacks `slope[checkpoint, position]`.
    """
    need(slope, "slope", "loss_slope")
    several = [dim for dim in RUNS if dim in slope["slope"].dims]
    if set(slope["slope"].dims) != {"checkpoint", "position"}:
        raise Refused(
            f"wanted slope[checkpoint, position] of one run, got it over {list(slope['slope'].dims)}"
            + (f": choose with .sel({several[0]}=...)" if several else ": pass what loss_slope returned")
        )
    (run,) = runs(slope, "slope")
    name, known = axis_of(slope)
    figure = Figure([_slopes(slope, known)])
    if window is not None:
        need(window, "exists", "phase_window")
        one = belonging(window, run)
        for end in [float(one[key]) for key in ("start", "end")] if bool(one["exists"]) else []:
            figure.add_vline(
                float(places(np.array(end), known)), line={"dash": "dash", "width": 1.5, "color": "black"}
            )
    figure.update_xaxes(layout(known), title_text=name, showgrid=False, zeroline=False)
    figure.update_yaxes(title_text="token index", type="log", showgrid=False, zeroline=False)
    figure.update_yaxes(tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    marks = [
        "d loss / d ln(token index)",
        "dashed: start and end of the window" if window is not None else "",
    ]
    said = heading(slope, "slope of the loss along the context", *marks) if title is None else title
    return fitted(figure, said, 320, right=70)


def _slopes(slope: xr.Dataset, known: np.ndarray) -> go.Heatmap:
    """The coloured cells `[position, checkpoint]`, and the text of hovering."""
    tokens, z = tokens_of(slope), slope["slope"].transpose("position", "checkpoint").values.astype(float)
    most = float(np.nanpercentile(np.abs(z), 98)) or 1.0
    bar = {"title": {"text": "nats", "side": "top"}, "thickness": 10, "outlinewidth": 0, "xpad": 6}
    return go.Heatmap(
        z=z,
        x=edges(places(tokens, known)),
        y=edges(slope["position"].values + 1.0),
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        colorbar=bar,
        customdata=np.tile([short(at) for at in tokens], (len(z), 1)),
        hovertemplate="%{customdata} tokens seen, index %{y:.0f}<br>%{z:.3g} nats<extra></extra>",
    )

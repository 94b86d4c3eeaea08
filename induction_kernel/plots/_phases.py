"""`phase_plot`: training curves of one or more runs, one panel for each measure, with the windows of the phase change.

The in-context-learning score, the prefix-matching score minus its control, the previous-token and copying scores, the
loss on the repeat and the loss, as `training_curves` returns them (Olsson et al. 2022, figures of argument 1). It runs
no model and finds no window: `phase_window` does.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ..errors import Refused
from ..heads._names import names_of
from ._effect_grid import intervals, number
from ._figure import Figure
from ._style import fitted, heading, need, of_prompts, prompts_in
from ._training_axis import Run, axis_of, belonging, layout, legend, places, runs, short, tokens_of

PANELS = {
    "icl_score": "in-context-learning score (nats)",
    "prefix_matching": "prefix matching minus its control",
    "previous_token": "previous-token score",
    "copying": "copying score",
    "repeat_loss": "loss on the repeat (nats)",
    "loss": "loss (nats)",
}
PANEL, STRIP, GAP = 130, 9, 30  # pixels: height of a panel, of a run's window, between panels
SHADE = "rgba(110, 110, 110, 0.15)"


def phase_plot(
    curves: xr.Dataset, window: xr.Dataset | None = None, *, title: str | None = None
) -> go.Figure:
    """Draw training curves against the tokens seen, one panel for each, with a common axis and the window.

    A single run has 95% intervals over its prompts, pale lines for all heads, and its window shaded. Several runs are
    lines, with one colour for each model. Windows are bars in a panel above, thick from start to end and thin over the
    95% intervals of both ends. The strongest head is chosen at each checkpoint. The axis is logarithmic; step 0 is
    drawn left of the first checkpoint that has a logarithm.

    Args:
        curves: what `training_curves` returns: variables over `checkpoint` and `prompt`, those of heads also over
            `layer` and `head`, optionally over `model` and `seed`. Panels of missing variables are left out.
        window: what `phase_window` found in these curves.
        title: replaces "model: training curves" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container: `x` tokens, `y` nats or scores (prefix matching: minus its control).

    Raises:
        TypeError: if `curves` or `window` is no Dataset.
        Refused: if there is no curve, or the windows belong to other runs.
    """
    shown = _shown(curves)
    if window is not None:
        need(window, "exists", "phase_window")
    title_of_axis, known = axis_of(curves)
    found = runs(curves, shown[0])
    windows = [(run, belonging(window, run)) for run in found] if window is not None else []
    windowed = [(run, one) for run, one in windows if bool(one["exists"])]
    heights = [STRIP * max(2, len(windowed)) + 6] * bool(windows) + [PANEL] * len(shown)
    captions = [_how_many(found, windowed)] * bool(windows) + [PANELS[name] for name in shown]
    inside = sum(heights) + GAP * (len(heights) - 1)
    figure = make_subplots(
        len(heights),
        1,
        figure=Figure(),
        shared_xaxes=True,
        row_heights=heights,
        vertical_spacing=GAP / inside,
    )
    for row, name in enumerate(shown, 1 + bool(windows)):
        for run in found:
            traces = _curve(run, name, known, alone=len(found) == 1, first_panel=name == shown[0])
            figure.add_traces(traces, [row] * len(traces), [1] * len(traces))
    for row, caption in enumerate(captions, 1):
        _caption(figure, row, caption)
    figure.update_xaxes(layout(known), zeroline=False)
    figure.update_xaxes(title_text=title_of_axis, title_standoff=8, row=len(heights))
    figure.update_yaxes(nticks=5)
    if windows:
        _bars(figure, windowed, known, alone=len(found) == 1)
    said = heading(curves, "training curves", *_notes(curves, shown, len(found))) if title is None else title
    return fitted(figure, said, inside, legend=legend(found), captions=22, left=70)


def _notes(curves: xr.Dataset, shown: list[str], n_runs: int) -> list[str]:
    """The number of prompts and the meaning of lines and bands, for the title."""
    heads = any({"layer", "head"} <= set(curves[name].dims) for name in shown)
    return [
        of_prompts(prompts_in(curves)),
        "bands: 95% intervals" if n_runs == 1 else f"a line for each of {n_runs} runs",
        "of heads, the strongest at each checkpoint" if heads else "",
        "pale lines: all heads" if heads and n_runs == 1 else "",
    ]


def _shown(curves: xr.Dataset) -> list[str]:
    """The names of the curves to draw."""
    if not isinstance(curves, xr.Dataset):
        need(curves, "icl_score", "training_curves")
    shown = [name for name in PANELS if name in curves and np.isfinite(curves[name].values).any()]
    if not shown or "checkpoint" not in curves.dims:
        raise Refused(
            f"wanted the Dataset of training_curves, with one of {', '.join(PANELS)} over `checkpoint`; got "
            f"{list(curves.data_vars)} over {list(curves.dims)}"
        )
    return shown


def _curve(run: Run, name: str, known: np.ndarray, *, alone: bool, first_panel: bool) -> list[go.Scatter]:
    """The traces of one curve of one run; of a single run also its heads and its interval."""
    every, heads = _over_prompts(run.data, name)
    cells = [cell.reshape(len(every["mean"]), -1) for cell in every.values()]
    best = np.where(np.isfinite(cells[0]), cells[0], -np.inf).argmax(1)
    rows = np.arange(len(best))
    mean, low, high = (cell[rows, best] for cell in cells)
    x, steps = places(tokens_of(run.data), known), run.data["checkpoint"].values
    said = [
        f"{short(at)} tokens, step {step}<br>{number(value)}"
        + (f" ({number(a)} to {number(b)})" if np.isfinite(a) else "")
        + (f"<br>{heads[head]}" if heads else "")
        for at, step, value, a, b, head in zip(tokens_of(run.data), steps, mean, low, high, best, strict=True)
    ]
    line = go.Scatter(
        x=x,
        y=mean,
        mode="lines+markers" if alone else "lines",
        line={"color": f"rgb({run.colour})", "width": 2 if alone else 1.3},
        marker={"size": 5},
        name=run.model or run.name,
        legendgroup=run.model or run.name,
        showlegend=first_panel and run.first,
        customdata=said,
        hovertemplate=f"<b>{run.name}</b> %{{customdata}}<extra></extra>",
    )
    return [*_behind(x, cells[0], low, high, run.colour), line] if alone else [line]


def _over_prompts(data: xr.Dataset, name: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """(`mean`, `low`, `high` over prompts `[checkpoint, head]`, the names of the heads or none)."""
    values = data[name].astype(float)
    if name == "prefix_matching" and "prefix_matching_control" in data:
        values = values - data["prefix_matching_control"].astype(float)
    if "prompt" not in values.dims:
        values = values.expand_dims("prompt")
    over = [dim for dim in ("layer", "head") if dim in values.dims]
    values = values.transpose("prompt", "checkpoint", *over)
    n, steps, *_ = values.shape
    found = intervals(values.values.reshape(n, -1))[:3]
    at = [values[dim].values.tolist() for dim in over]
    heads = names_of(*at).ravel().tolist() if len(over) == 2 else []
    parts = {key: each.reshape(steps, -1) for key, each in zip(("mean", "low", "high"), found, strict=True)}
    return parts, heads


def _behind(
    x: np.ndarray, heads: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str
) -> list[go.Scatter]:
    """The interval of the line, and a pale line for every head where there are several."""
    traces = []
    at = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    if len(at) > 1:
        area = go.Scatter(x=np.r_[x[at], x[at][::-1]], y=np.r_[high[at], low[at][::-1]], name="95% interval")
        traces.append(area.update(fill="toself", fillcolor=f"rgba({colour}, 0.15)", line={"width": 0}))
    if heads.shape[1] > 1:
        there = heads[:, np.isfinite(heads).any(0)].T
        y = np.hstack([there, np.full((len(there), 1), np.nan)])  # the gap between one head and the next
        pale = go.Scatter(x=np.tile(np.r_[x, np.nan], len(there)), y=y.ravel(), name="every head")
        traces.append(pale.update(line={"width": 1, "color": f"rgba({colour}, 0.25)"}))
    for trace in traces:
        trace.update(mode="lines", hoverinfo="skip", showlegend=False)
    return traces


def _caption(figure: go.Figure, row: int, text: str) -> None:
    """The name of a panel, in bold above its left corner."""
    axis = row if row > 1 else ""
    figure.add_annotation(
        text=f"<b>{text}</b>",
        x=0,
        y=1,
        xref=f"x{axis} domain",
        yref=f"y{axis} domain",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
    )


def _how_many(found: list[Run], windowed: list[tuple[Run, xr.Dataset]]) -> str:
    """The caption of the windows."""
    if len(found) == 1:
        return "window of the phase change" if windowed else "no window: no phase change found"
    return f"windows of change: {len(windowed)} of {len(found)} runs"


def _bars(
    figure: go.Figure, windowed: list[tuple[Run, xr.Dataset]], known: np.ndarray, *, alone: bool
) -> None:
    """Draw the windows in the first panel, one below the other; shade that of a single run behind all panels."""
    for at, (run, window) in enumerate(windowed):
        said = (
            f"<b>{run.name}</b> {' to '.join(short(float(window[key])) for key in ('start', 'end'))} tokens"
        )
        for first, last, width in (
            ("start_low", "start_high", 1.2),
            ("end_low", "end_high", 1.2),
            ("start", "end", 5),
        ):
            bar = go.Scatter(x=_ends(window, first, last, known), y=[at, at], mode="lines", name="window")
            bar.update(
                line={"color": f"rgb({run.colour})", "width": width}, hovertemplate=f"{said}<extra></extra>"
            )
            bar.update(showlegend=False, legendgroup=run.model or run.name)
            figure.add_trace(bar, row=1, col=1)
        if alone:
            start, end = _ends(window, "start", "end", known)
            area = {"type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
            figure.add_shape({**area, "x0": start, "x1": end, "fillcolor": SHADE, "line": {"width": 0}})
    rows = max(2, len(windowed))
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, range=[rows - 0.4, -0.6], row=1)


def _ends(window: xr.Dataset, first: str, last: str, known: np.ndarray) -> np.ndarray:
    """Places of two numbers of tokens on the axis; NaN where the window has no interval."""
    ends = np.array([float(window[key]) if key in window else np.nan for key in (first, last)])
    return places(ends, known)

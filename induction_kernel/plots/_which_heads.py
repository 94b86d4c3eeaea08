"""`which_heads_plot`: what ablating induction heads, function-vector heads and random heads changes, with intervals.

It draws the result of `fewshot.which_heads` and runs no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ._effect_grid import number
from ._scores import BLUE
from ._style import POSITIVE, entries, escape, fitted, heading, need, of_prompts, prompts_in

PANELS = {
    "accuracy": "accuracy",
    "label_probability": "probability of the right label",
    "icl_score": "late less early loss (nats)",
}
COLOURS, GREY = [BLUE, f"rgb{POSITIVE}"], "rgb(110, 110, 110)"
ROW, NARROWEST = 30, 70  # pixels


def which_heads_plot(found: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the change of each measure with each set of heads ablated: a dot with its 95% interval.

    Random heads are small points, one for each set of them, and a bar at their mean.

    Args:
        found: the result of `fewshot.which_heads`.
        title: replaces "model: change with heads ablated" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with a panel for each measure: changes across, a row for each set and
        share of heads.

    Raises:
        TypeError: if `found` is no Dataset.
        Refused: if it is another result.
    """
    for measure in PANELS:
        need(found, f"{measure}_change", "which_heads(model, prompts, text)")
    figure = make_subplots(1, len(PANELS), shared_yaxes=True, horizontal_spacing=0.06)
    sets, shares = ([*found[dim].values] for dim in ("set", "share"))
    rows = [(at, which) for at in range(len(shares)) for which in range(len(sets))]
    for panel, (measure, words) in enumerate(PANELS.items(), 1):
        for which in range(len(sets)):
            places = [row for row, (_, each) in enumerate(rows) if each == which]
            traces = _traces(found, measure, which, places, first=panel == 1)
            figure.add_traces(traces, [1] * len(traces), [panel] * len(traces))
        axis = "" if panel == 1 else panel
        place: dict[str, Any] = {"x": 0, "xref": f"x{axis} domain", "y": 1, "yref": "y domain"}
        figure.add_annotation(
            place, text=f"<b>{words}</b>", xanchor="left", yanchor="bottom", showarrow=False
        )
    labels = [f"{shares[at]:.3g} of heads" if which == 1 else "" for at, which in rows]
    figure.update_xaxes(
        title_text="change", gridcolor="#eee", zerolinecolor="#888", title_standoff=8, tickangle=0
    )
    figure.update_yaxes(range=[len(rows) - 0.4, -0.6], gridcolor="#fff", zeroline=False)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels, row=1, col=1)
    windows = int(found.sizes.get("window", 0))
    over = f"{of_prompts(prompts_in(found))} and {windows} windows of text"
    said = (
        heading(found, "change with heads ablated", over, "bars: 95% intervals") if title is None else title
    )
    return fitted(
        figure, said, max(NARROWEST, ROW * len(rows)), legend=entries(figure), captions=24, left=100
    )


def _traces(
    found: xr.Dataset, measure: str, which: int, places: list[int], *, first: bool
) -> list[go.Scatter]:
    """The dots of one set of heads in one panel; of random heads also a point for each draw."""
    mean, low, high = (
        found[f"{measure}_change{end}"].transpose("share", "set").values[:, which]
        for end in ("", "_low", "_high")
    )
    name = escape(str(found["set"].values[which]))
    random = which >= len(COLOURS)
    colour, points = GREY if random else COLOURS[which], list[go.Scatter]()
    if random:
        draws = found[f"{measure}_control"].transpose("share", "draw").values
        at = np.repeat(places, draws.shape[1])
        small = {"size": 5, "color": colour, "opacity": 0.4}
        points.append(go.Scatter(x=draws.ravel(), y=at, mode="markers", marker=small, hoverinfo="skip"))
        points[0].update(showlegend=False, name="each set")
    said = [f"{number(a)} to {number(b)}" for a, b in zip(low, high, strict=True)]
    dots = go.Scatter(
        x=mean,
        y=places,
        mode="markers",
        marker={
            "size": 12 if random else 9,
            "color": colour,
            "symbol": "line-ns-open" if random else "circle",
        },
        error_x={"array": high - mean, "arrayminus": mean - low, "thickness": 1.5, "width": 0},
        name=name,
        legendgroup=name,
        showlegend=first,
        customdata=said,
        hovertemplate=f"<b>{name}</b> %{{x:.3g}}<br>%{{customdata}}<extra></extra>",
    )
    return [*points, dots]

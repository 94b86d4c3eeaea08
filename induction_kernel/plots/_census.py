"""Figures of what heads do: the fingerprints of a census on a map, and what ablating sets of heads changes.

Colours of behaviours are those of Okabe & Ito (2008) and Tol, which people with colour-vision deficiencies can tell
apart; paler is weaker. They run no model. `score_plot` draws one behaviour against another, `head_map` one behaviour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ..errors import Refused
from ._effect_grid import number
from ._figure import Figure
from ._scores import BLUE
from ._style import (
    POSITIVE,
    counted,
    entries,
    escape,
    fitted,
    heading,
    need,
    of_prompts,
    prompts_in,
    tick,
    words,
)

__all__ = ["fingerprint_map", "which_heads_plot"]

COLOURS = (
    "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#332288", "#999933", "#661100", "#44AA99",
    "#882255", "#DDCC77", "#117733", "#AA4499",
)  # fmt: skip
"""In the order of `BEHAVIOURS`; names that many heads have are far apart when pale too."""
PALE, UNNAMED, UNTESTED = 0.6, "#ececec", "#ffffff"  # share of white in the palest shade
PANELS = {
    "accuracy": "accuracy",
    "label_probability": "probability of the right label",
    "icl_score": "late less early loss (nats)",
}
SETS, GREY = [BLUE, f"rgb{POSITIVE}"], "rgb(110, 110, 110)"
ROW, NARROWEST = 30, 70  # pixels


def fingerprint_map(found: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the heads of a census, layers downwards and heads across, coloured by the behaviour that is particular.

    Grey heads have no name, white ones could not be tested. Hovering over a head shows all its names, strongest first,
    and the strength of the one that colours it.

    Args:
        found: what `census` returned.
        title: replaces "model: what each head does" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container: a heat map of the heads without a name, and one for each behaviour
        that any head is coloured by, whose `z[layer, head]` is the strength in [0, 1].

    Raises:
        TypeError: no Dataset.
        Refused: a Dataset that is not a census.
    """
    if not isinstance(found, xr.Dataset):
        raise TypeError(f"wanted what census(model) returned, got {type(found).__name__}")
    if not {"fingerprint", "behaviour", "particular", "second_half"} <= set(found.data_vars):
        raise Refused(f"wanted what census(model) returned, got a Dataset of {list(found.data_vars)}")
    grid = found.transpose(..., "layer", "head")
    figure = Figure()
    _nameless(figure, grid)
    behaviour = grid["behaviour"].values
    names = [str(name) for name in grid["scorer"].values]
    for name in names:
        if (behaviour == name).any():
            _named(figure, grid, name, COLOURS[names.index(name) % len(COLOURS)])
    rows, columns = grid.sizes["layer"], grid.sizes["head"]
    cell = int(np.clip(520 // rows, 12, 32))
    figure.update_xaxes(
        counted(0, columns), title={"text": "head", "standoff": 4}, showgrid=False, zeroline=False
    )
    figure.update_yaxes(
        title={"text": "layer", "standoff": 4}, showgrid=False, zeroline=False, dtick=tick(rows),
        range=[rows - 0.5, -0.5],
    )  # fmt: skip
    figure.update_xaxes(range=[-0.5, columns - 0.5])
    return fitted(
        figure, _title(found) if title is None else title, cell * rows, legend=entries(figure), left=56
    )


def _title(found: xr.Dataset) -> str:
    named = int((found["behaviour"] != "").sum())
    tested = int((found["n_tested"] > 0).sum())
    level = float(found.attrs.get("level", 0.05))
    return heading(
        found,
        "what each head does",
        f"{named} of {tested} heads have a name ({level:.0%} level for all behaviours together)",
        "colour: the behaviour that sets the head apart from the others",
        "pale: weak",
    )


def _nameless(figure: go.Figure, grid: xr.Dataset) -> None:
    """The heads without a name: grey if tested, white if not."""
    nameless = grid["behaviour"].values == ""
    z = np.where(nameless, (grid["n_tested"].values > 0).astype(float), np.nan)
    text = [[escape(f"{name}: {said}") for name, said in zip(*row, strict=True)] for row in _pairs(grid)]
    heat = go.Heatmap(
        z=z, x=grid["head"].values, y=grid["layer"].values, zmin=0, zmax=1, showscale=False, xgap=1, ygap=1,
        colorscale=[[0, UNTESTED], [1, UNNAMED]], customdata=np.array(text, dtype=object), hoverongaps=False,
        hovertemplate="%{customdata}<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.add_trace(heat)
    if (z == 1).any():
        _entry(figure, "no name", UNNAMED)


def _pairs(grid: xr.Dataset) -> list[tuple[list[str], list[str]]]:
    names, said = grid["name"].values, grid["fingerprint"].values
    return [(list(map(str, a)), list(map(str, b))) for a, b in zip(names, said, strict=True)]


def _named(figure: go.Figure, grid: xr.Dataset, name: str, colour: str) -> None:
    """The heads whose particular behaviour this is."""
    mine = grid["behaviour"].values == name
    strength = grid["second_half"].sel(scorer=name).values
    mean = grid["mean"].sel(scorer=name).values
    text = np.array(
        [
            [f"<b>{escape(head)}</b><br>{escape(said)}" for head, said in zip(*row, strict=True)]
            for row in _pairs(grid)
        ],
        dtype=object,
    )
    heat = go.Heatmap(
        z=np.where(mine, np.nan_to_num(strength), np.nan), x=grid["head"].values, y=grid["layer"].values, zmin=0,
        zmax=1, showscale=False, xgap=1, ygap=1, colorscale=[[0, _pale(colour)], [1, colour]], hoverongaps=False,
        customdata=np.stack([text, np.round(mean, 4).astype(object)], axis=-1), showlegend=False, name=words(name),
        hovertemplate=f"%{{customdata[0]}}<br>{words(name)}: strength %{{z:.2f}}, mean %{{customdata[1]:.3f}}"
        "<extra></extra>",
    )  # fmt: skip
    figure.add_trace(heat)
    _entry(figure, words(name), colour)


def _entry(figure: go.Figure, name: str, colour: str) -> None:
    """An entry of the legend, which heat maps do not have."""
    marker = {"symbol": "square", "size": 11, "color": colour, "line": {"width": 0.5, "color": "#888"}}
    figure.add_trace(
        go.Scatter(
            x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip", showlegend=True
        )
    )


def _pale(colour: str) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({', '.join(str(round(part + PALE * (255 - part))) for part in parts)})"


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
    figure = make_subplots(1, len(PANELS), figure=Figure(), shared_yaxes=True, horizontal_spacing=0.06)
    sets, shares = ([*found[dim].values] for dim in ("set", "share"))
    rows = [(at, which) for at in range(len(shares)) for which in range(len(sets))]
    for panel, (measure, what) in enumerate(PANELS.items(), 1):
        for which in range(len(sets)):
            places = [row for row, (_, each) in enumerate(rows) if each == which]
            traces = _traces(found, measure, which, places, first=panel == 1)
            figure.add_traces(traces, [1] * len(traces), [panel] * len(traces))
        axis = "" if panel == 1 else panel
        place: dict[str, Any] = {"x": 0, "xref": f"x{axis} domain", "y": 1, "yref": "y domain"}
        figure.add_annotation(place, text=f"<b>{what}</b>", xanchor="left", yanchor="bottom", showarrow=False)
    labels = [f"{shares[at]:.3g} of heads" if which == 1 else "" for at, which in rows]
    figure.update_xaxes(title_text="change", zerolinecolor="#888", title_standoff=8, tickangle=0)
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
    random = which >= len(SETS)
    colour, points = GREY if random else SETS[which], list[go.Scatter]()
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

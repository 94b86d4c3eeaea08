"""`fingerprint_map`: every head of a census, layer by layer, in the colour of the behaviour that makes it particular.

Colours are those of Okabe & Ito (2008) and Tol, which people with colour-vision deficiencies can tell apart; paler is
weaker. It runs no model. `score_plot` draws one behaviour against another, `head_map` one behaviour.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._style import counted, entries, escape, fitted, heading, tick, words

__all__ = ["fingerprint_map"]

COLOURS = (
    "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#332288", "#882255", "#999933", "#44AA99",
    "#661100", "#DDCC77", "#117733", "#AA4499",
)  # fmt: skip
PALE, UNNAMED, UNTESTED = 0.75, "#ececec", "#ffffff"  # share of white in the palest shade


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
    figure = go.Figure()
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

"""A map of composition: how much of what each head writes is read by each later head, sender by receiver."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ..heads._names import names_of
from ._panels import domains
from ._style import finish, heading, need, words

TOP = 56  # pixels above all panels


def composition_map(scores: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw `composition`, senders downwards and receivers across: one panel, or one along `scorer` for each kind.

    Lines stand between layers. Colours run from 0 to the largest score of the panel; pairs that cannot compose are
    blank.

    Raises:
        Refused: nothing finite, or composition over further dimensions.
    """
    need(scores, "score", "composition")
    beyond = sorted(set(map(str, scores["score"].dims)) - {"scorer", "layer", "head", "receiver"})
    if beyond:
        raise Refused(
            f"wanted composition of one model, got it over {', '.join(beyond)}: choose one, e.g. with "
            f".isel({beyond[0]}=0)"
        )
    parts = (
        [scores.isel(scorer=at) for at in range(scores.sizes["scorer"])]
        if "scorer" in scores.dims
        else [scores]
    )
    size = max(
        120, int(np.clip(_cell(parts[0]) * parts[0].sizes["receiver"], 0, 600 if len(parts) == 1 else 400))
    )
    places, width, height = domains([(size, size)] * len(parts))
    figure = go.Figure()
    names = [
        str(each["scorer"].item()) if "scorer" in each.coords else scores.attrs["method"] for each in parts
    ]
    for number, (part, name, domain) in enumerate(zip(parts, names, places, strict=True), 1):
        _panel(figure, number, part, f"<b>{words(name)}</b>", domain)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False)
    said = heading(scores, "composition: row writes, column reads").replace(": ", ":<br>", 1)
    finish(figure, said if title is None else title, width, height + TOP)
    return figure.update_layout(margin={"l": 0, "r": 0, "b": 0, "t": TOP})


def _cell(part: xr.Dataset) -> int:
    """Pixels of a pair."""
    return int(np.clip(540 // part.sizes["receiver"], 2, 31))


def _panel(
    figure: go.Figure,
    number: int,
    part: xr.Dataset,
    caption: str,
    domain: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    """Add one heat map with its axes, colour bar and the lines between layers."""
    across, upwards = domain
    score = part["score"].transpose("layer", "head", "receiver")
    score = score.isel(layer=score.notnull().any(("head", "receiver")).values)  # nothing reads the last layer
    senders = names_of(score["layer"].values.tolist(), score["head"].values.tolist()).ravel()
    receivers = part["receiver"].values.astype(str)
    z, chance = score.values.reshape(len(senders), -1), float(part["chance"].mean())
    spread = part["spread"].sel(layer=score["layer"]).transpose("layer", "head", "receiver").values
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.round((z - chance) / spread.reshape(z.shape), 1)
    bar = {"x": across[1], "xpad": 4, "y": sum(upwards) / 2, "len": upwards[1] - upwards[0], "ypad": 0}
    heat = go.Heatmap(
        z=z, x=receivers, y=senders, zmin=0.0, colorscale="Cividis", customdata=beyond, hoverongaps=False,
        zmax=float(np.nanmax(z)) or 1.0, xaxis=f"x{number}", yaxis=f"y{number}",
        colorbar=bar | {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 10}, "nticks": 5},
        hovertemplate=f"<b>%{{y}} to %{{x}}</b><br>score %{{z:.3f}}, chance {chance:.3f}"
        "<br>%{customdata} spreads above chance<extra></extra>",
    )  # fmt: skip
    figure.add_trace(heat)
    layers = np.repeat(score["layer"].values, score.sizes["head"])
    axes = {"x": _ticks(receivers, part["receiver_layer"].values), "y": _ticks(senders, layers)}
    figure.update_layout({
        f"xaxis{number}": axes["x"] | {"domain": across, "anchor": f"y{number}"},
        f"yaxis{number}": axes["y"] | {"domain": upwards, "anchor": f"x{number}", "autorange": "reversed"},
    })  # fmt: skip
    which = number if number > 1 else ""  # plotly calls the first axes x and y
    for axis, other, of in (("x", "y", part["receiver_layer"].values), ("y", "x", layers)):
        for at in np.flatnonzero(np.diff(of)) + 0.5:
            ends = {f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1}
            refs = {f"{axis}ref": f"{axis}{which}", f"{other}ref": f"{other}{which} domain"}
            figure.add_shape(ends | refs, type="line", line={"width": 1, "color": "white"})
    figure.add_annotation(
        text=caption, x=across[0], y=upwards[1], xref="paper", yref="paper", xanchor="left", yanchor="bottom", yshift=3,
        showarrow=False,
    )  # fmt: skip


def _ticks(names: np.ndarray, layers: np.ndarray) -> dict[str, object]:
    """Labels of an axis: every head where they fit, else the layers."""
    if len(names) <= 16:
        return {"type": "category", "tickvals": names.tolist(), "tickfont": {"size": 10}, "tickangle": 0}
    first = np.flatnonzero(np.diff(layers, prepend=-1))
    first = first[:: -(-len(first) // 16)]
    return {
        "type": "category", "tickvals": names[first].tolist(), "ticktext": [f"L{at}" for at in layers[first]],
        "tickfont": {"size": 10}, "tickangle": 0,
    }  # fmt: skip

"""Maps of composition scores, sender by receiver: how much each later head reads of what a head writes."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ..heads._names import names_of
from ._panels import Places, above_panels, caption, colour_bar, placed
from ._style import fitted, heading, need, words


def composition_map(scores: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw `composition`, senders downwards and receivers across: one panel, or one along `scorer` for each kind.

    White lines separate layers. Colours run from 0 to the largest score of the panel; pairs that cannot compose are
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
    widest = max(each.sizes["receiver"] for each in parts)
    tall = int(np.clip(24 * widest, 120, 560 if len(parts) == 1 else 360))
    above = above_panels("one line")
    places = placed([(widest, tall)] * len(parts), above, gap=0.12)
    figure = go.Figure()
    names = [
        str(each["scorer"].item()) if "scorer" in each.coords else scores.attrs["method"] for each in parts
    ]
    for number, (part, name) in enumerate(zip(parts, names, strict=True), 1):
        _panel(figure, number, part, f"<b>{words(name)}</b>", places)
    figure.update_xaxes(showgrid=False, zeroline=False, title={"text": "receiver (reads)", "standoff": 6})
    figure.update_yaxes(showgrid=False, zeroline=False)
    said = heading(scores, "composition of heads", "from the weights alone") if title is None else title
    right = 60 if len(parts) == 1 else 24
    return fitted(figure, said, places.inside, captions=above, left=74, right=right, below=places.below + 4)


def _panel(figure: go.Figure, number: int, part: xr.Dataset, name: str, places: Places) -> None:
    """Add one heat map with its axes, colour bar and the lines between layers."""
    place = across, upwards = places.domains[number - 1]
    score = part["score"].transpose("layer", "head", "receiver")
    score = score.isel(layer=score.notnull().any(("head", "receiver")).values)  # nothing reads the last layer
    senders = names_of(score["layer"].values.tolist(), score["head"].values.tolist()).ravel()
    receivers = part["receiver"].values.astype(str)
    z, chance = score.values.reshape(len(senders), -1), float(part["chance"].mean())
    spread = part["spread"].sel(layer=score["layer"]).transpose("layer", "head", "receiver").values
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = np.round((z - chance) / spread.reshape(z.shape), 1)
    heat = go.Heatmap(
        z=z, x=receivers, y=senders, zmin=0.0, colorscale="Cividis", customdata=beyond, hoverongaps=False,
        zmax=float(np.nanmax(z)) or 1.0, xaxis=f"x{number}", yaxis=f"y{number}",
        colorbar=colour_bar(place, places.inside, len(places.domains) == 1),
        hovertemplate=f"<b>%{{y}} to %{{x}}</b><br>score %{{z:.3f}}, chance {chance:.3f}"
        "<br>%{customdata} standard deviations above chance<extra></extra>",
    )  # fmt: skip
    figure.add_trace(heat)
    layers = np.repeat(score["layer"].values, score.sizes["head"])
    axes = {"x": _ticks(receivers, part["receiver_layer"].values), "y": _ticks(senders, layers)}
    figure.update_layout({
        f"xaxis{number}": axes["x"] | {"domain": across, "anchor": f"y{number}"},
        f"yaxis{number}": axes["y"] | {"domain": upwards, "anchor": f"x{number}", "autorange": "reversed",
                           "title": {"text": "sender (writes)" if places.first[number - 1] else "", "standoff": 6}},
    })  # fmt: skip
    which = number if number > 1 else ""  # plotly calls the first axes x and y
    for axis, other, of in (("x", "y", part["receiver_layer"].values), ("y", "x", layers)):
        for at in np.flatnonzero(np.diff(of)) + 0.5:
            ends = {f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1}
            refs = {f"{axis}ref": f"{axis}{which}", f"{other}ref": f"{other}{which} domain"}
            figure.add_shape(ends | refs, type="line", line={"width": 1, "color": "white"})
    caption(figure, name, place, "")


def _ticks(names: np.ndarray, layers: np.ndarray) -> dict[str, object]:
    """Labels of an axis: every head where they fit, turned in a narrow figure, else the layers."""
    if len(names) <= 16:
        turned = {"autotickangles": [0, -90], "automargin": True}
        return {"type": "category", "tickvals": names.tolist(), "tickfont": {"size": 10}, **turned}
    first = np.flatnonzero(np.diff(layers, prepend=-1))
    first = first[:: -(-len(first) // 16)]
    return {
        "type": "category", "tickvals": names[first].tolist(), "ticktext": [f"L{at}" for at in layers[first]],
        "tickfont": {"size": 10}, "tickangle": 0,
    }  # fmt: skip

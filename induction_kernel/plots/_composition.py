"""Maps of what a head reads of earlier components: composition scores by weights, QK attribution in a run."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .._given import is_whole
from ..errors import Refused
from ..heads._names import names_of
from ._effect_map import DIVERGING
from ._figure import Figure
from ._panels import Places, above_panels, caption, colour_bar, placed
from ._style import escape, fitted, heading, need, of_prompts, prompts_in, words

__all__ = ["composition_map", "qk_map"]

REST = "all others"


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
    figure = Figure()
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


def qk_map(found: xr.Dataset, *, k: int = 12, title: str | None = None) -> go.Figure:
    """Draw `qk_attribution`: components that the query reads downwards, those that the key reads across.

    Colours are the mean over prompts, orange above 0. Of each side the k components with the largest entry are shown,
    in the order of the model; the others are summed up in the last row and column, so that the map adds up to the
    score.

    Args:
        found: what `qk_attribution` returns.
        k: components shown of each side.
        title: replaces the title and the notes below it; plotly reads markup in it.

    Raises:
        TypeError: no Dataset.
        Refused: another result, one without a finite value, or k below 1.
    """
    need(found, "score", "qk_attribution")
    sides = ("query_component", "key_component")
    if not set(sides) <= set(found["score"].dims):
        raise Refused(f"wanted the Dataset of qk_attribution, got a score over {found['score'].dims}")
    if not is_whole(k) or k < 1:
        raise Refused(f"wanted k >= 1 components, got {k!r}")
    means = {}
    for name in ("score", "control"):
        if name in found:
            extra = [dim for dim in found[name].dims if dim not in sides]
            means[name] = found[name].mean(extra).transpose(*sides).values
    shown = [_largest(means["score"], axis, k) for axis in (0, 1)]
    tables = {name: _with_rest(mean, shown) for name, mean in means.items()}
    down, across = (
        _names(found[dim].values, at, mean)
        for dim, at, mean in zip(sides, shown, (means["score"], means["score"].T), strict=True)
    )
    figure = Figure(_heat(tables, down, across))
    axis = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"size": 11}}
    figure.update_xaxes(**axis, title={"text": "key reads", "standoff": 6}, tickangle=-45, automargin=True)
    figure.update_yaxes(**axis, title={"text": "query reads", "standoff": 6}, autorange="reversed")
    of_head = escape(str(found.attrs.get("of_head", "the head")))
    total = float(found["total"].mean()) if "total" in found else float(means["score"].sum())
    contrast = str(found.attrs.get("contrast", "none"))
    notes = [
        of_prompts(prompts_in(found)),
        f"entries of {words(str(found.attrs.get('entries', 'the mask')))}",
        f"sum of all {total:.2f}" + (f", {escape(contrast)}" if contrast != "none" else ""),
    ]
    said = heading(found, f"what attention scores of {of_head} are made of", *notes)
    tall = int(np.clip(26 * len(down), 90, 620))
    return fitted(figure, said if title is None else title, tall, left=150, right=70, below=120)


def _largest(mean: np.ndarray, axis: int, k: int) -> np.ndarray:
    """The k components of an axis with the largest entries in size, in order."""
    size = np.abs(mean).max(1 - axis)
    return np.sort(np.argsort(-size, kind="stable")[:k])


def _with_rest(mean: np.ndarray, shown: list[np.ndarray]) -> np.ndarray:
    """The chosen rows and columns, with the sum of the others as a last one where there are any."""
    for axis, at in enumerate(shown):
        others = np.setdiff1d(np.arange(mean.shape[axis]), at)
        kept = np.take(mean, at, axis)
        rest = np.take(mean, others, axis).sum(axis, keepdims=True)
        mean = np.concatenate([kept, rest], axis) if len(others) else kept
    return mean


def _names(names: np.ndarray, at: np.ndarray, mean: np.ndarray) -> list[str]:
    return [escape(str(names[i])) for i in at] + [REST] * (len(at) < len(mean))


def _heat(tables: dict[str, np.ndarray], down: list[str], across: list[str]) -> go.Heatmap:
    z = tables["score"]
    far = float(np.abs(z).max()) or 1.0
    said = "<b>query: %{y}, key: %{x}</b><br>%{z:.3f}"
    said += "<br>control %{customdata:.3f}" if "control" in tables else ""
    return go.Heatmap(
        z=z, x=across, y=down, zmin=-far, zmax=far, colorscale=DIVERGING, customdata=tables.get("control"),
        colorbar={"outlinewidth": 0, "thickness": 10, "tickfont": {"size": 10}},
        xgap=1, ygap=1, hovertemplate=said + "<extra></extra>",
    )  # fmt: skip

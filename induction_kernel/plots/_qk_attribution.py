"""Maps of QK attribution: what a head's query reads, by what its key reads, in units of attention scores."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .._given import is_whole
from ..errors import Refused
from ._effect_map import DIVERGING
from ._style import escape, fitted, heading, need, of_prompts, prompts_in, words

__all__ = ["qk_map"]

REST = "all others"


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
    figure = go.Figure(_heat(tables, down, across))
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

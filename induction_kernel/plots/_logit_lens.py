"""`lens_map`: the logit lens of one prompt, layers downwards and tokens across (nostalgebraist 2020).

Draws the result of `scorers.logit_lens`: how well the right token can be read off the residual stream after each layer.
It runs no model; `_direct_effects` draws which component wrote the logit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._direct_effects import chosen_prompt
from ._effect_grid import Grid, number, token_labels, visible
from ._effect_map import DIVERGING, drawn
from ._style import escape, heading, need

__all__ = ["lens_map"]

SHOWN = {
    "probability": "probability",
    "logit": "logit, less the mean over the vocabulary,",
    "difference": "logit difference",
    "rank": "rank",
}
WRITTEN = 16  # columns in which the most probable token is written into the cells


def lens_map(
    results: xr.Dataset, *, prompt: int = 0, show: str = "probability", title: str | None = None
) -> go.Figure:
    """Draw what can be read off the residual stream of a prompt after each layer, at each of its tokens.

    The first row is the embedding. Up to 16 columns, the token with the highest logit is written into each cell; it is
    shown on hovering everywhere, with the right token, its probability and its rank.

    Args:
        results: what `scorers.logit_lens` returns.
        prompt: number of the prompt to draw.
        show: "probability", "logit", "rank" (coloured by its logarithm) or, of answers, "difference".
        title: replaces "model: probability of the next token after each layer" and the notes below it; plotly reads
            markup in it.

    Returns:
        A plotly figure as wide as its container, with one heat map `z[layer, position]`: probabilities, logits, or
        log10 of ranks.

    Raises:
        TypeError: if `results` is no Dataset; a prompt that is no whole number.
        Refused: if it lacks the variable or has no finite value of it; a prompt that is not there.
    """
    if show not in SHOWN:
        raise Refused(f"wanted show as one of {', '.join(map(repr, SHOWN))}, got {show!r}")
    need(results, show, "scorers.logit_lens")
    if set(results[show].dims) != {"prompt", "layer", "position"}:
        raise Refused(
            f"wanted {show!r} over (prompt, layer, position), as logit_lens gives it, got it over "
            f"({', '.join(map(str, results[show].dims))}): choose a prompt with prompt="
        )
    one = chosen_prompt(results, prompt)
    there = one[show].notnull().any(("prompt", "layer")).values
    need(one, show, "scorers.logit_lens")
    title_across, columns, places = token_labels(one.isel(position=there))
    layers = ["embedding" if layer < 0 else str(layer) for layer in one["layer"].values]
    values = one[show].isel(prompt=0).transpose("layer", "position").values[:, there]
    cells = xr.Dataset({"value": (("layer", "position"), values)})
    grid = Grid(cells, layers, columns, ("after layer", title_across))
    said = heading(one, *_said(one, show, prompt)) if title is None else title
    return drawn(grid, _heat(one, show, values, there, places), said)


def _heat(one: xr.Dataset, show: str, values: np.ndarray, there: np.ndarray, places: list[str]) -> go.Heatmap:
    """The coloured cells, with the most probable tokens, and the text of hovering."""
    top = None
    if {"top", "top_token"} <= set(one.coords):
        ids = one["top"].isel(prompt=0, position=there).transpose("layer", "position")
        top = one["top_token"].sel(top_id=ids).values
    z, scale, bar = _colours(show, values)
    heat = go.Heatmap(
        z=z,
        customdata=_hovered(one, there, top, places),
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        colorbar=bar
        | {
            "thickness": 10,
            "xpad": 6,
            "ticksuffix": " ",
            "outlinewidth": 0,
            "tickfont": {"size": 10},
            "ypad": 0,
        },
        **scale,
    )
    if top is not None and values.shape[1] <= WRITTEN:
        heat.text = [[escape(visible(str(token))) for token in row] for row in top]
        heat.texttemplate, heat.textfont = "%{text}", {"size": 10}
    return heat


def _colours(show: str, values: np.ndarray) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    """Values as they are drawn, the ends of their colours, and the colour bar."""
    bar: dict[str, Any] = {"title": {"text": show, "side": "right", "font": {"size": 12}}}
    if show == "probability":
        return values, {"zmin": 0, "zmax": 1, "colorscale": "Cividis"}, bar
    if show == "rank":
        logs = np.log10(values)
        ticks = list(range(int(np.ceil(np.nanmax(logs))) + 1))
        bar |= {"tickvals": ticks, "ticktext": [f"{10**tick:,}" for tick in ticks]}
        return logs, {"zmin": 0, "zmax": max(1.0, float(np.nanmax(logs))), "colorscale": "Cividis_r"}, bar
    reach = float(np.nanmax(np.abs(values))) or 1.0
    return values, {"zmin": -reach, "zmax": reach, "colorscale": DIVERGING}, bar


def _hovered(
    one: xr.Dataset, there: np.ndarray, top: np.ndarray | None, places: list[str]
) -> list[list[str]]:
    """What hovering says of each cell, `[layer, position]`, escaped."""
    known = {
        key: one[key].isel(prompt=0).transpose("layer", "position").values[:, there]
        for key in SHOWN
        if key in one
    }
    tokens = [str(token) for token in one["token"].values[0]] if "token" in one.coords else []
    right = str(one["right"].values[0]) if "right" in one.coords else None
    positions, out = np.nonzero(there)[0], []
    for row, layer in enumerate(one["layer"].values):
        lines = []
        for column, place in enumerate(places):
            following = int(positions[column]) + 1
            asked = right if right is not None else tokens[following] if following < len(tokens) else ""
            after = "the embedding" if layer < 0 else f"after layer {layer}"
            said = [f"<b>{after}, {escape(place)}</b>", f"right token {escape(repr(asked))}"]
            said += [f"{key} {number(float(each[row, column]))}" for key, each in known.items()]
            said += [] if top is None else [f"highest logit {escape(repr(str(top[row, column])))}"]
            lines.append("<br>".join(said))
        out.append(lines)
    return out


def _said(one: xr.Dataset, show: str, prompt: int) -> tuple[str, str]:
    """What is drawn, and of which prompt, escaped."""
    right = "of the next token"
    if one.attrs.get("on") == "answers":
        words = [repr(str(one[key].values[0])) for key in ("right", "wrong") if key in one.coords]
        right = f"of {' less '.join(words[: 2 if show == 'difference' else 1])}"
    text = f": {one['text'].values[0]}" if "text" in one.coords else ""
    return escape(f"{SHOWN[show]} {right} after each layer"), escape(f"logit lens, prompt {prompt}{text}")

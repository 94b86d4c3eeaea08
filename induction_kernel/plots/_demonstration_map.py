"""`demonstration_map`: the last token's attention over a few-shot prompt: start, demonstrations, query.

Draws the result of `demonstration_attention`, a mean over prompts (Han et al. 2025, section 5.1). It runs no model;
`kernel/_vote_view` shows single prompts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ..heads._names import HeadLike, as_heads
from ._style import escape, fitted, heading, need, of_prompts, prompts_in, tick

ENDS = ("start", "query")
# Cividis by the square root of the value: a value of t times the largest has the colour at sqrt(t).
BY_ROOT = [
    [at**2, colour]
    for at, colour in zip(np.linspace(0, 1, 10), plotly.colors.sequential.Cividis, strict=True)
]


def demonstration_map(
    attention: xr.Dataset, *, heads: HeadLike | Iterable[HeadLike] | None = None, title: str | None = None
) -> go.Figure:
    """Draw the last token's attention over the prompt, with a row for each layer (mean of its heads) or head.

    The start, each demonstration and the query have the same width, whatever their number of tokens. Colours follow
    the square root of the attention, since the start often gets most of it.

    Args:
        attention: what `demonstration_attention` returns: `attention[layer, head, part, point]`.
        heads: a row for each of these instead (`Head`, `(layer, head)`, "L5H1" or several).
        title: replaces "model: last token's attention over the prompt" and the notes below it; plotly reads markup
            in it.

    Returns:
        A plotly figure as wide as its container, with one heat map `z[row, place]`, in probability; a blank (NaN)
        column separates the parts.

    Raises:
        TypeError: if `attention` is no Dataset.
        Refused: if it lacks this attention, or these heads.
    """
    need(attention, "attention", "demonstration_attention")
    missing = {"layer", "head", "part", "point"} - set(attention["attention"].dims)
    if missing:
        raise Refused(
            f"wanted attention by layer, head, part and point, got it without {sorted(missing)}: pass the "
            "result of demonstration_attention unchanged"
        )
    values = attention["attention"].transpose("layer", "head", "part", "point")
    rows, names = _rows(values, heads)
    tall = int(np.clip(540, 14 * len(rows), 30 * len(rows)))
    parts = [str(part) for part in values["part"].values]
    figure = go.Figure(_heat(rows, names, parts, values["point"].values, tall))
    _axes(figure, names, parts, rows.shape[2], "layer" if heads is None else "head")
    mean = "mean over the heads of each layer and" if heads is None else "mean over"
    notes = (
        of_prompts(prompts_in(attention), mean),
        "each part from its first token to its last",
        "colour scale: square root",
    )
    said = heading(attention, "last token's attention over the prompt", *notes) if title is None else title
    left = 44 + 8 * max(len(name.removeprefix("layer ")) for name in names)
    return fitted(figure, said, max(70, tall), left=left, right=70)


def _heat(rows: np.ndarray, names: list[str], parts: list[str], points: np.ndarray, tall: int) -> go.Heatmap:
    """The coloured cells `[row, place]`, a blank column between parts, and the text of hovering."""
    blank = np.full((*rows.shape[:2], 1), np.nan)
    places = [
        f"{part if part in ENDS else f'demonstration {part}'}<br>{share:.0%} of the way"
        for part in parts
        for share in (*points, 1)
    ]
    bar = {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 10}, "ypad": 0, "xpad": 6}
    most = float(np.nanmax(rows)) or 1.0
    few = {"tickvals": [0, most], "ticktext": ["0", f"{most:.2g}"]}  # a low bar has no room for more
    return go.Heatmap(
        z=np.concatenate([rows, blank], 2).reshape(len(rows), -1)[:, :-1],
        zmin=0,
        zmax=most,  # plotly takes zmin only together with it
        colorscale=BY_ROOT,
        customdata=[[f"{name}, {place}" for place in places[:-1]] for name in names],
        hovertemplate="<b>%{customdata}</b><br>%{z:.4f}<extra></extra>",
        hoverongaps=False,
        ygap=1,
        colorbar=bar | ({"nticks": 5} if tall > 60 else few),
    )


def _axes(figure: go.Figure, names: list[str], parts: list[str], points: int, kind: str) -> None:
    """Parts of the prompt across, rows downwards."""
    middle = [at * (points + 1) + (points - 1) / 2 for at in range(len(parts))]
    figure.update_xaxes(tickvals=middle, ticktext=parts, showgrid=False, tickangle=0, tickfont={"size": 11})
    figure.update_xaxes(title={"text": "start, demonstrations and query", "standoff": 8})
    step = tick(len(names)) if kind == "layer" else 1
    labels = [name.removeprefix("layer ") for name in names]
    figure.update_yaxes(tickvals=list(range(0, len(names), step)), ticktext=labels[::step], showgrid=False)
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], title={"text": kind, "standoff": 8}, zeroline=False)


def _rows(values: xr.DataArray, heads: HeadLike | Iterable[HeadLike] | None) -> tuple[np.ndarray, list[str]]:
    """Rows `[row, part, point]` and their names, escaped."""
    if heads is None:
        return values.mean("head").values, [f"layer {at}" for at in values["layer"].values]
    chosen = as_heads(heads)
    known = {(int(layer), int(head)) for layer in values["layer"].values for head in values["head"].values}
    absent = [str(head) for head in chosen if (head.layer, head.head) not in known]
    if absent or not chosen:
        layers, last = values["layer"].values, int(values["head"].values.max())
        raise Refused(
            f"wanted heads 0 to {last} of layers {layers.min()} to {layers.max()}, which were measured; got "
            f"{absent or 'none'}"
        )
    rows = [values.sel(layer=head.layer, head=head.head).values for head in chosen]
    return np.stack(rows), [escape(str(head)) for head in chosen]

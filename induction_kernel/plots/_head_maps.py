"""Maps of all heads, layer by head: scores, effects, comparisons, several models.

Colours are cividis (Nuñez et al. 2018) for numbers that start at zero, purple to orange around chance for signed
ones: both read the same under the common colour-vision deficiencies. Intervals and marks are those of
`summarise`. It runs no model and draws no attention patterns (`_attention_view` does).
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ._composition import composition_map
from ._panels import Panel, domains, panels
from ._style import MIDDLE, NEGATIVE, POSITIVE, escape, finish, heading, tick, words

TOP = 56  # pixels above all panels


def head_map(scores: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw a number of every head, layers downwards and heads across; one panel for each scorer and model.

    A white dot marks the heads whose excess lies beyond the threshold of `summarise` (max statistic over all
    heads). Where no head could be tested, "not tested" stands above the panel; hovering over it says why. Hovering
    over a head shows name, score with interval, matched control, chance and rank. Scores that start at
    zero run from 0 to 1 (or their maximum, if larger); signed ones are centred on their chance; effects, logits and
    products of weights run to the largest there is.

    | result | what is drawn |
    |---|---|
    | any that `summarise` takes, or its summary | `mean` of every head; of `vote`, how often its vote is right |
    | several, joined with `xr.concat(..., "scorer")` or `xr.concat(..., "model", join="outer")` | a panel for each |
    | `compare` | the first, the second, and second less first |
    | `composition` | sender by receiver; several joined with `xr.concat(..., "scorer")`: a panel for each |

    Args:
        scores: one of these.
        title: replaces "model: method", the text above the figure.

    Returns:
        A plotly figure. Each panel has one heat map `z[layer, head]` (units of the score) and one set of
        marks; of composition, one heat map `z[sender, receiver]`.

    Raises:
        TypeError: if `scores` is no Dataset.
        Refused: if it holds nothing of heads; as `summarise`.
    """
    if (
        isinstance(scores, xr.Dataset)
        and {"score", "receiver"} <= set(scores.variables)
        and "receiver" in scores.dims
    ):
        return composition_map(scores, title=title)
    parts = panels(scores)
    shapes = [tuple(part.heads.sizes[dim] for dim in ("layer", "head")) for part in parts]
    cell = _cell(max(columns for _, columns in shapes), 240), _cell(max(rows for rows, _ in shapes), 540)
    places, width, height = domains([(cell[0] * columns, cell[1] * rows) for rows, columns in shapes])
    figure = go.Figure()
    for number, (part, domain) in enumerate(zip(parts, places, strict=True), 1):
        _panel(figure, number, part, _caption(part, parts), domain, min(cell))
    figure.update_xaxes(title={"text": "head", "standoff": 4}, showgrid=False, zeroline=False)
    figure.update_yaxes(title={"text": "layer", "standoff": 4}, showgrid=False, zeroline=False)
    finish(figure, _title(scores, parts) if title is None else title, width, height + TOP)
    return figure.update_layout(margin={"l": 0, "r": 0, "b": 0, "t": TOP})


def _caption(part: Panel, parts: list[Panel]) -> str:
    """What stands above a panel, where there are several."""
    names, models = ({getattr(each, key) for each in parts} for key in ("name", "model"))
    said = [words(part.name)] if len(names) > 1 else []
    said = [escape(part.model), *said] if len(models) > 1 else said
    bold = [f"<b>{': '.join(said)}</b>"] if said else []
    return " ".join([*bold, *(["<i>not tested</i>"] if _why_untested(part) else [])])


def _why_untested(part: Panel) -> str:
    """Why no head of a panel is tested; "" where any is, and where nothing says so."""
    if "tested" not in part.heads or bool(part.heads["tested"].any()):
        return ""
    return str(part.heads["untested"].item())


def _title(scores: xr.Dataset, parts: list[Panel]) -> str:
    """The model, if there is one, and what is drawn."""
    if scores.attrs.get("method") == "compare":
        r, overlap, k = float(scores["pearson"]), float(scores["overlap"]), scores.attrs.get("k")
        said = f"two scores compared: r = {r:.2f}, {overlap:.0%} of the {k} strongest in common"
        return heading(scores, said).replace(": ", ":<br>", 1)
    said = ", ".join(dict.fromkeys(words(part.name) for part in parts))
    if len({part.model for part in parts}) > 1:
        return said
    return heading(scores, said).replace(": ", ":<br>", 1)


def _panel(
    figure: go.Figure,
    number: int,
    part: Panel,
    caption: str,
    domain: tuple[tuple[float, float], tuple[float, float]],
    cell: int,
) -> None:
    """Add one heat map with its marks, axes and colour bar in the part `domain` (shares of width, height)."""
    (across, upwards), summary = domain, part.heads
    heat, marks = _heat(part), _marks(summary, cell)
    heat.colorbar = {
        "x": across[1],
        "xpad": 4,
        "y": sum(upwards) / 2,
        "len": upwards[1] - upwards[0],
        "ypad": 0,
    }
    heat.colorbar.update(
        thickness=10,
        outlinewidth=0,
        tickfont={"size": 10},
        nticks=5 if cell * summary.sizes["layer"] >= 60 else 2,
    )
    for trace in (heat, marks):
        figure.add_trace(trace.update(xaxis=f"x{number}", yaxis=f"y{number}"))
    columns, rows = (
        (at.min() - 0.5, at.max() + 0.5) for at in (summary["head"].values, summary["layer"].values)
    )
    figure.update_layout({
        f"xaxis{number}": {"domain": across, "anchor": f"y{number}", "range": columns,
                           "dtick": tick(summary.sizes["head"])},
        f"yaxis{number}": {"domain": upwards, "anchor": f"x{number}", "range": rows[::-1],  # downwards
                           "dtick": tick(summary.sizes["layer"])},
    })  # fmt: skip
    figure.add_annotation(
        text=caption,
        hovertext=escape(_why_untested(part)),
        x=across[0],
        y=upwards[1],
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        yshift=3,
        showarrow=False,
    )


def _heat(part: Panel) -> go.Heatmap:
    """The coloured squares `[layer, head]` of one panel, and what hovering says."""
    summary, z = part.heads, part.heads["mean"].values
    shown = ["name", "rank", "low", "high", "control", "chance", "excess", "threshold"]
    shown = [key for key in shown if key in summary.variables and not _empty(summary[key])]
    at = {
        key: f"%{{customdata[{index}]{'' if key in ('name', 'rank') else ':.3f'}}}"
        for index, key in enumerate(shown)
    }
    text = f"<b>{at.get('name', '')}</b><br>{part.word} %{{z:.3f}}"
    text += f" ({at['low']} to {at['high']})" if "low" in at else ""
    text += "".join(f"<br>{key} {at[key]}" for key in ("control", "chance") if key in at)
    if {"excess", "threshold"} <= at.keys():
        text += f"<br>excess {at['excess']}, threshold {at['threshold']}"
    elif "threshold" in at:
        text += f"<br>threshold {at['threshold']}"
    text += f"<br>rank {at['rank']} of {z.size}" if "rank" in at else ""
    filled = [summary[key].broadcast_like(summary["mean"]).transpose("layer", "head").values for key in shown]
    low, high, scale = _scale(z, float(summary["chance"].mean()) if "chance" in at else 0.0, part.reach)
    return go.Heatmap(
        z=z,
        x=summary["head"].values,
        y=summary["layer"].values,
        zmin=low,
        zmax=high,
        colorscale=scale,
        customdata=np.stack([_short(each) for each in filled], axis=-1),
        hovertemplate=text + "<extra></extra>",
        xgap=1,
        ygap=1,
    )


def _empty(values: xr.DataArray) -> bool:
    return values.dtype.kind == "f" and not np.isfinite(values.values).any()


def _short(values: np.ndarray) -> np.ndarray:
    """Objects that take little room in a page: numbers with four digits after the point."""
    return (np.round(values, 4) if values.dtype.kind == "f" else values).astype(object)


def _scale(z: np.ndarray, chance: float, reach: float | None) -> tuple[float, float, object]:
    """(lowest, highest, colour scale): from zero if unsigned, balanced around chance if signed; at least to `reach`."""
    values = z[np.isfinite(z)]
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if least >= 0 and not chance < 0:
        return 0.0, max(reach or 0.0, most) or 1.0, "Cividis"
    size = max(reach or 0.0, abs(least), abs(most)) or 1.0
    far = max(chance + size, size - chance)
    at = (chance + size) / (2 * size)
    ends = [
        (0.0, _mix(NEGATIVE, (chance + size) / far)),
        (at, _mix(NEGATIVE, 0.0)),
        (1.0, _mix(POSITIVE, (size - chance) / far)),
    ]
    return -size, size, ends


def _mix(colour: tuple[int, int, int], share: float) -> str:
    """`share` of a colour with the rest of the middle one."""
    mixed = (round(middle + share * (full - middle)) for full, middle in zip(colour, MIDDLE, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _marks(summary: xr.Dataset, cell: int) -> go.Scatter:
    """A dot on each head that passes the threshold."""
    passes = (
        summary["passes"].values == 1 if "passes" in summary else np.zeros(summary["mean"].shape, dtype=bool)
    )
    layers, heads = np.nonzero(passes)
    marker = {"size": max(5, cell // 3), "color": "white", "line": {"width": 1.5, "color": "black"}}
    x, y = summary["head"].values[heads], summary["layer"].values[layers]
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker=marker,
        hoverinfo="skip",
        showlegend=False,
        name="beyond the threshold",
    )


def _cell(count: int, room: int) -> int:
    """Pixels for each of `count` cells that share about `room` pixels."""
    return int(np.clip(room // count, 10, 32))

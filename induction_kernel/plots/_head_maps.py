"""`head_map`: a number for every head, layer by head: scores, effects, comparisons, several models.

Colours are cividis (Nuñez et al. 2018) for numbers that start at zero, and purple to orange around chance for signed
ones; both can be read with the common colour-vision deficiencies. Intervals and thresholds are those of `summarise`. It
runs no model and draws no attention patterns (`_attention_view` does).
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ._composition import composition_map
from ._figure import Figure
from ._panels import Panel, Places, above_panels, caption, colour_bar, in_a_row, panels, placed
from ._style import (
    MIDDLE,
    NEGATIVE,
    POSITIVE,
    counted,
    effect,
    entries,
    escape,
    fitted,
    heading,
    in_lines,
    of_prompts,
    prompts_in,
    tick,
    words,
)

CAPTION = {1: 44, 2: 20, 3: 13}  # letters in a line above one, two or three panels side by side


def head_map(scores: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw a number for every head, layers downwards and heads across, with a panel for each scorer and model.

    A white dot marks the heads that pass the threshold of `summarise` (max statistic over all heads). Where no head
    could be tested, "not tested" stands above the panel; hovering over it shows why. Hovering over a head shows its
    name, its score with interval, the matched control, chance and rank. Colours of scores that start at zero run from
    0 to 1 (or to their maximum, if larger); those of signed scores are centred on chance; those of effects, logits and
    products of weights end at the largest value.

    | result | what is drawn |
    |---|---|
    | any that `summarise` takes, or its summary | `mean` of every head; of `vote`, how often its vote is right |
    | several, joined with `xr.concat(..., "scorer")` or `xr.concat(..., "model", join="outer")` | a panel for each |
    | `compare` | the first, the second, and second less first |
    | `composition` | sender by receiver; several joined with `xr.concat(..., "scorer")`: a panel for each |

    Args:
        scores: one of these.
        title: replaces "model: method" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container. Each panel has one heat map `z[layer, head]` (units of the score) and
        one set of dots; of composition, one heat map `z[sender, receiver]`.

    Raises:
        TypeError: if `scores` is no Dataset.
        Refused: if it holds no values of heads; as `summarise`.
    """
    if (
        isinstance(scores, xr.Dataset)
        and {"score", "receiver"} <= set(scores.variables)
        and "receiver" in scores.dims
    ):
        return composition_map(scores, title=title)
    parts = panels(scores)
    shapes = [tuple(part.heads.sizes[dim] for dim in ("layer", "head")) for part in parts]
    cell = _cell(max(rows for rows, _ in shapes), 520)
    captions = [_caption(part, parts) for part in parts]
    above = max(above_panels(text) for text in captions)
    places = placed([(columns, cell * rows) for rows, columns in shapes], above=above)
    figure = Figure()
    for number, part in enumerate(parts, 1):
        _panel(figure, number, part, captions[number - 1], places, cell)
    figure.update_xaxes(title={"text": "head", "standoff": 4}, showgrid=False, zeroline=False, tickangle=0)
    figure.update_yaxes(showgrid=False, zeroline=False)
    said = _title(scores, parts) if title is None else title
    right = 56 if len(parts) == 1 else 24
    return fitted(
        figure,
        said,
        places.inside,
        legend=entries(figure),
        captions=above,
        left=56,
        right=right,
        below=places.below,
    )


def _caption(part: Panel, parts: list[Panel]) -> str:
    """Text above a panel: its name where there are several, and whether it is not tested."""
    names, models = ({getattr(each, key) for each in parts} for key in ("name", "model"))
    said = [words(part.name)] if len(names) > 1 else []
    said = [escape(part.model), *said] if len(models) > 1 else said
    bold = [f"<b>{'<br>'.join(in_lines(': '.join(said), CAPTION[in_a_row(len(parts))]))}</b>"] if said else []
    return " ".join([*bold, *(["<i>not tested</i>"] if _why_untested(part) else [])])


def _why_untested(part: Panel) -> str:
    """Why no head of a panel is tested; "" where one is, or where the reason is not known."""
    if "tested" not in part.heads or bool(part.heads["tested"].any()):
        return ""
    return str(part.heads["untested"].item())


def _title(scores: xr.Dataset, parts: list[Panel]) -> str:
    """The model, if there is one, what is drawn, and the notes below it."""
    if scores.attrs.get("method") == "compare":
        r, overlap, k = float(scores["pearson"]), float(scores["overlap"]), scores.attrs.get("k")
        said = f"two scores compared: r = {r:.2f}, {overlap:.0%} of the {k} strongest in common"
        return heading(scores, said, "hovering shows intervals of the difference")
    said = _measured(scores) or ", ".join(dict.fromkeys(words(part.name) for part in parts))
    several = len({part.model for part in parts}) > 1
    return heading(scores.assign_attrs(model="") if several else scores, said, *_notes(scores, parts))


def _measured(scores: xr.Dataset) -> str:
    """What an intervention did and what it is measured by, escaped; "" for scores."""
    said = effect(scores.attrs)
    return escape(said) if said != "effect" else ""


def _notes(scores: xr.Dataset, parts: list[Panel]) -> list[str]:
    """The number of prompts, the interval, and the threshold."""
    n = max([prompts_in(scores)] + [int(each.heads["n"].max()) for each in parts if "n" in each.heads])
    intervals = any("low" in each.heads and not _empty(each.heads["low"]) for each in parts)
    level = float(scores.attrs.get("confidence", 0.95))
    significance = float(parts[0].heads.attrs.get("level", 0.05))
    tested = [each for each in parts if "passes" in each.heads and bool((each.heads["passes"] >= 0).any())]
    none = bool(tested) and not any(bool((each.heads["passes"] == 1).any()) for each in tested)
    return [
        of_prompts(n) if intervals else "",
        f"hovering shows {level:.0%} intervals" if intervals else "",
        "no head passes the threshold" if none else "",
        f"threshold: {significance:.0%} level for all heads together" if tested and intervals else "",
    ]


def _panel(figure: go.Figure, number: int, part: Panel, said: str, places: Places, cell: int) -> None:
    """Add one heat map with its dots, axes and colour bar."""
    summary, place = part.heads, places.domains[number - 1]
    heat, marks = _heat(part), _marks(part, cell)
    heat.showlegend = False
    heat.colorbar = colour_bar(place, places.inside, len(places.domains) == 1)
    marks.showlegend = bool((summary["passes"] == 1).any()) if "passes" in summary else False
    marks.showlegend &= marks.name not in entries(figure)
    for trace in (heat, marks):
        figure.add_trace(trace.update(xaxis=f"x{number}", yaxis=f"y{number}"))
    columns, rows = (
        (at.min() - 0.5, at.max() + 0.5) for at in (summary["head"].values, summary["layer"].values)
    )
    across, upwards = place
    figure.update_layout({
        f"xaxis{number}": {"domain": across, "anchor": f"y{number}", "range": columns,
                           **counted(0, summary.sizes["head"])},
        f"yaxis{number}": {"domain": upwards, "anchor": f"x{number}", "range": rows[::-1],  # downwards
                           "dtick": tick(summary.sizes["layer"]),
                           "title": {"text": "layer" if places.first[number - 1] else "", "standoff": 4}},
    })  # fmt: skip
    caption(figure, said, place, escape(_why_untested(part)))


def _heat(part: Panel) -> go.Heatmap:
    """The coloured cells `[layer, head]` of one panel, and the text of hovering."""
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
    """Values as objects, numbers rounded to four decimals: they keep pages small."""
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
    """A colour mixed with the middle one, `share` of it."""
    mixed = (round(middle + share * (full - middle)) for full, middle in zip(colour, MIDDLE, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _marks(part: Panel, cell: int) -> go.Scatter:
    """A dot on each head that passes the threshold, with its entry in the legend."""
    summary = part.heads
    passes = (
        summary["passes"].values == 1 if "passes" in summary else np.zeros(summary["mean"].shape, dtype=bool)
    )
    layers, heads = np.nonzero(passes)
    marker = {
        "size": int(np.clip(cell // 3, 5, 10)),
        "color": "white",
        "line": {"width": 1.5, "color": "black"},
    }
    x, y = summary["head"].values[heads], summary["layer"].values[layers]
    weights = "low" not in summary or _empty(summary["low"])
    name = "exceeds all random draws" if weights else "passes the threshold"
    return go.Scatter(
        x=x, y=y, mode="markers", marker=marker, hoverinfo="skip", showlegend=False, name=name, legendgroup=name,
    )  # fmt: skip


def _cell(count: int, room: int) -> int:
    """Pixels for each of `count` rows that share about `room` pixels."""
    return int(np.clip(room // count, 12, 32))

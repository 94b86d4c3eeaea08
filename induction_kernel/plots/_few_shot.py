"""Figures of few-shot results: measurements with their intervals, and the last token's attention over the prompt.

`interval_plot` draws results along one dimension: the held-out table of the vote beside its controls, effects of
knock-outs, the few-shot phenomena. `demonstration_map` draws what `demonstration_attention` gives, a mean over prompts
(Han et al. 2025, section 5.1); `kernel/_vote_view` shows single prompts. They run no model; `_lines` draws results
along an axis.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ..errors import Refused
from ..heads._names import HeadLike, as_heads
from ._effect_grid import number
from ._figure import Figure
from ._lines import COLOURS, REPEATED, SYMBOLS, band, chance, dotted, indices, notes, unit
from ._style import entries, escape, fitted, heading, need, of_prompts, prompts_in, tick, words

ROW, LABEL = 28, 26  # pixels of a row, and letters in a line of its label
ENDS = ("start", "query")
# Cividis by the square root of the value: a value of t times the largest has the colour at sqrt(t).
BY_ROOT = [
    [at**2, colour]
    for at, colour in zip(np.linspace(0, 1, 10), plotly.colors.sequential.Cividis, strict=True)
]


def interval_plot(
    results: xr.Dataset,
    show: str | Sequence[str],
    *,
    over: str = "row",
    title: str | None = None,
) -> go.Figure:
    """Draw a dot with its interval for each index of one dimension, the first on top, with a panel for each variable.

    Intervals are the result's own (`<show>_low`, `<show>_high`) where it has them, else 95% intervals over prompts, or
    the range over seeds, draws, splits or folds.

    Args:
        results: a Dataset with one value for each index, such as the held-out table or effects of a knock-out.
        show: the variable, or several. Its dimensions: `over`, optionally `prompt` or one of `seed`, `draw`, `split`,
            `fold`, and at most one more, whose indices get colours.
        over: the dimension whose indices are the rows.
        title: replaces "model: variables" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with dots and bars `x`, rows `y`, and a dotted line at the chance of
        scores, agreement or accuracy where the result has it.

    Raises:
        TypeError: if `results` is no Dataset.
        Refused: if it lacks a variable, or the variable has other dimensions than those named above.
    """
    shown = [show] if isinstance(show, str) else list(show)
    if not shown:
        raise Refused("wanted at least one variable to show, got none")
    for variable in shown:
        _check(results, variable, over)
    figure = make_subplots(1, len(shown), figure=Figure(), shared_yaxes=True, horizontal_spacing=0.08)
    several = False
    for panel, variable in enumerate(shown, 1):
        traces = _dots(results, variable, over, panel)
        several |= len(traces) > 1
        figure.add_traces(traces, [1] * len(traces), [panel] * len(traces))
        figure.update_xaxes(title_text=unit(results, variable), row=1, col=panel)
        chance(figure, [results], variable, panel, "x")
    names = ["<br>".join(map(escape, wrap(html.unescape(name), LABEL))) for name in indices(results, over)]
    figure.update_xaxes(rangemode="tozero", title_standoff=8, tickangle=0)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], zeroline=False)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names)
    figure.update_yaxes(ticks="outside", ticklen=6, tickcolor="rgba(0, 0, 0, 0)")
    called = ", ".join(map(words, shown))
    marks = [*notes([results], shown[0], "bars"), dotted(figure)]
    said = heading(results, called, *marks) if title is None else title
    lines = [line for name in names for line in name.split("<br>")]
    tall = len(names) * max(ROW, 21 * (1 + max(name.count("<br>") for name in names)))
    legend = entries(figure) if several else []
    return fitted(figure, said, max(60, tall), legend=legend, left=26 + 7 * max(map(len, lines)))


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
    figure = Figure(_heat(rows, names, parts, values["point"].values, tall))
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


def list_plot(found: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw how often a list's last word is copied or translated: untouched, and without each set of heads.

    Of random heads there is the mean over the sets that stand for either set of heads, and a small point for each.

    Args:
        found: the result of `head_census.list_ablation`.
        title: replaces "model: lists copied and translated" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container: the probability of the right first token across, dots with 95%
        intervals over prompts, a row for each task.

    Raises:
        TypeError: if `found` is no Dataset.
        Refused: if it is another result.
    """
    need(found, "random", "list_ablation(model, token_heads, concept_heads)")
    need(found, "value", "list_ablation(model, token_heads, concept_heads)")
    parts = {"untouched": found["baseline"]}
    parts |= {str(mode): found["value"].sel(mode=mode, drop=True) for mode in found["mode"].values}
    drawn = {}
    for mode in map(str, found["mode"].values):
        name = mode.replace("without ", "random for ")
        drawn[name] = found["random"].isel(draw=np.flatnonzero(found["like"].values == mode))
        parts[name] = drawn[name].mean("draw")
    runs = xr.concat(list(parts.values()), "mode").assign_coords(mode=list(parts))
    shown = xr.Dataset({"probability": runs}, attrs=found.attrs)
    marks = notes([shown], "probability", "bars")
    said = heading(found, "lists copied and translated", *marks, "small: each set of random heads")
    figure = interval_plot(shown, "probability", title=said if title is None else title)
    means = figure.data[-len(drawn) :]
    for each, mean in zip(drawn.values(), means, strict=True):
        figure.add_trace(_draws(each, mean))
    figure.update_xaxes(title_text="probability of the right first token")
    return figure


def _check(results: xr.Dataset, show: str, over: str) -> None:
    need(results, show, "a measurement with this variable")
    dims = results[show].dims
    if over not in dims or len(_apart(results, show, over)) > 1:
        raise Refused(
            f"wanted {show!r} over {over!r}, with prompts or seeds and one more dimension at most; got it over "
            f"({', '.join(map(str, dims))}): choose with .sel or .isel, or name another over=..."
        )


def _apart(results: xr.Dataset, show: str, over: str) -> list[str]:
    return [str(dim) for dim in results[show].dims if dim not in (over, "prompt", *REPEATED)]


def _dots(results: xr.Dataset, show: str, over: str, panel: int) -> list[go.Scatter]:
    """The dots of a panel: a trace for each index of the coloured dimension, or one."""
    dims, names, traces = _apart(results, show, over), indices(results, over), []
    labels = indices(results, dims[0]) if dims else [""]
    for index, label in enumerate(labels):
        chosen = {dims[0]: index} if dims else {}
        mean, low, high = (each.isel(chosen).values for each in band(results, show))
        lower = (index - (len(labels) - 1) / 2) * min(0.25, 0.7 / len(labels))
        said = [
            name + (f"<br>{number(a)} to {number(b)}" if np.isfinite(a) else "")
            for name, a, b in zip(names, low, high, strict=True)
        ]
        dots = go.Scatter(
            x=mean,
            y=np.arange(len(mean)) + lower,
            mode="markers",
            marker={"color": f"rgb({COLOURS[index % 6]})", "size": 8, "symbol": SYMBOLS[index % 6]},
            error_x={"array": high - mean, "arrayminus": mean - low, "thickness": 1.5, "width": 0},
            name=label,
            legendgroup=label,
            showlegend=panel == 1 and bool(dims),
            customdata=said,
            hovertemplate=f"<b>{label}</b> %{{x:.3g}}<br>%{{customdata}}<extra></extra>",
        )
        traces.append(dots)
    return traces


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


def _draws(found: xr.DataArray, mean: Any) -> go.Scatter:
    """The points of each set of random heads, on the rows of their mean."""
    draws = found.mean("prompt").transpose("row", "draw").values
    small = {"size": 5, "color": mean.marker.color, "opacity": 0.4}
    points = go.Scatter(x=draws.ravel(), y=np.repeat(mean.y, draws.shape[1]), mode="markers", marker=small)
    return points.update(
        name="each set",
        legendgroup=mean.legendgroup,
        showlegend=False,
        hovertemplate="%{x:.3g}<extra></extra>",
    )

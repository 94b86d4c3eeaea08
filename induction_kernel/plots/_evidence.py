"""Figure of verdicts: every argument with the checks it rests on, each interval beside its threshold.

A row for each check on an axis of its own, in its own unit: shares, nats and p-values have no scale in common. It
judges nothing: the functions of `evidence` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import number
from ._style import escape, finish

COLOUR = {"holds": "0, 67, 136", "contradicted": "179, 88, 6"}  # of the verdict; else grey
GREY = "110, 110, 110"
WIDTH, AXIS = 1000, (400, 640)  # pixels across: the figure, and where the axes of the checks begin and end
TITLE, LINE, CHECK, BELOW = (
    34,
    17,
    46,
    14,
)  # pixels downwards: a name, a line of text, a check, between arguments


def evidence_plot(results: xr.Dataset | Iterable[xr.Dataset], *, title: str | None = None) -> go.Figure:
    """Draw the verdicts of arguments and the checks that they follow from.

    A check is a dot with its 95% interval on an axis of its own; the upright line is its threshold, the shaded side the
    one the whole interval has to lie on. Blue checks hold, orange ones are contradicted, grey ones are inconclusive.

    Args:
        results: what a function of `evidence` returned, or several of them, in the order to be drawn.
        title: replaces "evidence"; plotly reads markup in it.

    Returns:
        A plotly figure with a trace for each check (`x`: its value, with the interval as bars), named as the check.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if one has no verdict, or there is none.
    """
    parts = [results] if isinstance(results, xr.Dataset) else list(results)
    for part in parts:
        _check(part)
    if not parts:
        raise Refused("wanted the result of at least one argument, got none")
    texts = [_texts(part) for part in parts]
    heights = [
        TITLE + LINE * len(text) + CHECK * part.sizes["check"] + BELOW
        for part, text in zip(parts, texts, strict=True)
    ]
    figure, height = go.Figure(), 56 + sum(heights)
    finish(figure, "evidence" if title is None else title, WIDTH, height)
    figure.update_layout(margin={"l": 0, "r": 0, "t": 0, "b": 0})
    top, axis = 56, 1
    for part, text, tall in zip(parts, texts, heights, strict=True):
        _argument(figure, part, text, top, height)
        at = top + TITLE + LINE * len(text)
        for index in range(part.sizes["check"]):
            _row(figure, part.isel(check=index), axis, at + CHECK * index, height)
            axis += 1
        top += tall
    return figure


def _check(part: xr.Dataset) -> None:
    if not isinstance(part, xr.Dataset):
        raise TypeError(
            f"wanted Datasets of the arguments, such as co_occurrence returns, got {type(part).__name__}"
        )
    missing = [key for key in ("argument", "title", "claim", "verdict", "reason") if key not in part.attrs]
    if missing or "check" not in part.dims:
        raise Refused(
            "wanted the Dataset of an argument, with its checks and its verdict, got one with "
            f"{list(part.data_vars)}: pass what co_occurrence or another argument returned"
        )


def _texts(part: xr.Dataset) -> list[str]:
    """The lines below an argument's name: its claim, and why there are no checks where there are none."""
    said = [*wrap(str(part.attrs["claim"]), 130)]
    return said + ([] if part.sizes["check"] else wrap(str(part.attrs["reason"]), 130))


def _argument(figure: go.Figure, part: xr.Dataset, text: list[str], top: int, height: int) -> None:
    """Name, verdict and claim of an argument."""
    verdict = str(part.attrs["verdict"])
    colour = f"rgb({COLOUR.get(verdict, GREY)})"
    whose = f" · {escape(str(part.attrs['model']))}" if part.attrs.get("model") else ""
    name = f"<b>{escape(str(part.attrs['title']))}</b>{whose}: "
    name += f"<b><span style='color: {colour}'>{escape(verdict)}</span></b>"
    _write(figure, name, 12, top + 16, height, size=15)
    for line, words_of in enumerate(text):
        _write(figure, escape(words_of), 12, top + TITLE + LINE * line + 2, height, size=12, colour="#555")


def _row(figure: go.Figure, check: xr.Dataset, axis: int, top: int, height: int) -> None:
    """One check: its name, its dot and interval on an axis of its own, and the numbers."""
    value, low, high, threshold = (float(check[key]) for key in ("value", "low", "high", "threshold"))
    above, verdict = bool(check["above"]), str(check["verdict"].item())
    colour = f"rgb({COLOUR.get(verdict, GREY)})"
    name = str(check["check"].item())
    ends = _range([value, low, high, threshold])
    side = [threshold, ends[1]] if above else [ends[0], threshold]
    dot = go.Scatter(x=[value], y=[0], mode="markers", name=name, marker={"size": 9, "color": colour})
    if np.isfinite(low) and np.isfinite(high):
        dot.update(error_x={"array": [high - value], "arrayminus": [value - low], "thickness": 2, "width": 0})
    dot.update(xaxis=f"x{axis}", yaxis=f"y{axis}", hovertemplate="%{x:.4g}<extra></extra>")
    figure.add_trace(dot)
    across = {"domain": [AXIS[0] / WIDTH, AXIS[1] / WIDTH], "anchor": f"y{axis}", "range": ends, "nticks": 5}
    upwards = {"domain": [1 - (top + 22) / height, 1 - top / height], "anchor": f"x{axis}", "range": [-1, 1]}
    look = {"zeroline": False, "tickfont": {"size": 10}, "showgrid": False}
    look |= {"showline": True, "linecolor": "#bbb", "ticks": "outside", "ticklen": 3, "tickcolor": "#bbb"}
    figure.update_layout({f"xaxis{axis}": across | look, f"yaxis{axis}": upwards | {"visible": False}})
    place = {"xref": f"x{axis}", "yref": f"y{axis}", "y0": -1, "y1": 1, "layer": "below"}
    shade = {"type": "rect", "x0": side[0], "x1": side[1], "line": {"width": 0}}
    figure.add_shape({**place, **shade, "fillcolor": "rgba(0, 67, 136, 0.08)"})
    line = {
        "type": "line",
        "x0": threshold,
        "x1": threshold,
        "line": {"width": 1.5, "color": "#222"},
    }
    figure.add_shape({**place, **line})
    lines = wrap(name, 56)
    _write(figure, "<br>".join(map(escape, lines)), 28, top + 11, height, size=13)
    said = number(value) + (f" ({number(low)} to {number(high)})" if low <= high else "")
    said += f", {int(check['n'])} {check['of'].item()}" if int(check["n"]) else ""
    wanted = f"wanted {'above' if above else 'below'} {number(threshold)}"
    mark = f"<b><span style='color: {colour}'>{verdict}</span></b>"
    _write(figure, f"{said}<br>{wanted}: {mark}", AXIS[1] + 24, top + 11, height, size=12)


def _range(numbers: list[float]) -> list[float]:
    """The axis of a check: its value, interval and threshold with some room."""
    known = [each for each in numbers if np.isfinite(each)]
    least, most = min(known), max(known)
    room = 0.25 * (most - least) or 0.5 * abs(most) or 1.0
    return [least - room, most + room]


def _write(
    figure: go.Figure, text: str, left: int, middle: int, height: int, *, size: int, colour: str = "#222"
) -> None:
    """Text whose middle line is `middle` pixels below the top."""
    figure.add_annotation(
        text=text,
        x=left / WIDTH,
        y=1 - middle / height,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="middle",
        align="left",
        showarrow=False,
        font={"size": size, "color": colour},
    )

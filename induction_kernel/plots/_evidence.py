"""`evidence_plot`: verdicts of arguments with the checks they rest on, each interval beside its threshold.

Each check has an axis of its own, in its own unit: shares, nats and p-values have no scale in common. It judges
nothing: the functions of `evidence` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._effect_grid import number
from ._figure import Figure
from ._style import LINE as TITLE_LINE
from ._style import escape, finish, heading

COLOUR = {"holds": "0, 67, 136", "contradicted": "179, 88, 6"}  # of the verdict; else grey
GREY = "110, 110, 110"
# Pixels downwards: an argument's name, a line of text, an axis with its tick labels, the gap after a check.
NAME, LINE, AXIS, GAP = 26, 17, 40, 12
LETTERS = 50  # in a line of text: it fits 390 pixels


def evidence_plot(results: xr.Dataset | Iterable[xr.Dataset], *, title: str | None = None) -> go.Figure:
    """Draw the verdicts of arguments and the checks that they rest on.

    A check is a dot with its 95% interval on an axis of its own, below its name and numbers. The upright line is its
    threshold, and the whole interval has to lie on the shaded side. Blue checks hold, orange ones are contradicted,
    grey ones are inconclusive.

    Args:
        results: what a function of `evidence` returned, or several of them, in the order to be drawn.
        title: replaces "evidence" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with a trace for each check (`x`: its value, with the interval as
        bars), named as the check.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if one has no verdict, or there is none.
    """
    parts = [results] if isinstance(results, xr.Dataset) else list(results)
    for part in parts:
        _check(part)
    if not parts:
        raise Refused("wanted the result of at least one argument, got none")
    inside = sum(map(_tall, parts))
    notes = (
        "dots: values with 95% intervals",
        "lines: thresholds; whole intervals have to lie on the shaded side",
    )
    said = heading(xr.Dataset(), "evidence", *notes) if title is None else title
    above = round(48 + TITLE_LINE * said.count("<br>"))
    figure = finish(Figure(), said, None, above + inside)
    figure.update_layout(margin={"l": 14, "r": 14, "t": above, "b": 0})
    top, axis = 0, 1
    for part in parts:
        at = _argument(figure, part, top, inside)
        for index in range(part.sizes["check"]):
            at = _row(figure, part.isel(check=index), axis, at, inside)
            axis += 1
        top += _tall(part)
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


def _tall(part: xr.Dataset) -> int:
    """Pixels that an argument takes."""
    names = [wrap(str(name), LETTERS) for name in part["check"].values]
    rows = sum(LINE * (len(name) + 2) + AXIS + GAP for name in names)
    return NAME + LINE * len(_texts(part)) + 8 + rows + GAP


def _texts(part: xr.Dataset) -> list[str]:
    """The lines below an argument's name: its claim, and, where it has no checks, the reason."""
    model, claim = str(part.attrs.get("model") or ""), str(part.attrs["claim"])
    said = wrap(f"{model}: {claim}" if model else claim, LETTERS)
    return said + ([] if part.sizes["check"] else wrap(str(part.attrs["reason"]), LETTERS))


def _argument(figure: go.Figure, part: xr.Dataset, top: int, inside: int) -> int:
    """Write name, verdict and claim of an argument; return the pixel where its checks begin."""
    verdict = str(part.attrs["verdict"])
    name = f"<b>{escape(str(part.attrs['title']))}: {_coloured(verdict)}</b>"
    _write(figure, [name], 0, top, inside, size=15)
    lines = _texts(part)
    _write(figure, [escape(line) for line in lines], 0, top + NAME, inside, size=12, colour="#555")
    return top + NAME + LINE * len(lines) + 8


def _row(figure: go.Figure, check: xr.Dataset, axis: int, top: int, inside: int) -> int:
    """Draw one check, its name and numbers above its dot and interval; return the pixel where the next one begins."""
    value, low, high, threshold = (float(check[key]) for key in ("value", "low", "high", "threshold"))
    above, verdict, name = bool(check["above"]), str(check["verdict"].item()), str(check["check"].item())
    lines = wrap(name, LETTERS)
    _write(figure, [escape(line) for line in lines], 12, top, inside, size=13)
    said = number(value) + (f" ({number(low)} to {number(high)})" if low <= high else "")
    said += f", {int(check['n'])} {check['of'].item()}" if int(check["n"]) else ""
    wanted = f"wanted {'above' if above else 'below'} {number(threshold)}: <b>{_coloured(verdict)}</b>"
    _write(figure, [said, wanted], 12, top + LINE * len(lines), inside, size=12)
    dot = go.Scatter(x=[value], y=[0], mode="markers", name=name, xaxis=f"x{axis}", yaxis=f"y{axis}")
    dot.update(marker={"size": 9, "color": _colour(verdict)}, hovertemplate="%{x:.4g}<extra></extra>")
    if np.isfinite(low) and np.isfinite(high):
        dot.update(error_x={"array": [high - value], "arrayminus": [value - low], "thickness": 2, "width": 0})
    figure.add_trace(dot)
    start, ends = top + LINE * (len(lines) + 2) + 4, _range([value, low, high, threshold])
    _axis(figure, axis, ends, ((inside - start - 20) / inside, (inside - start) / inside))
    _threshold(figure, axis, threshold, [threshold, ends[1]] if above else [ends[0], threshold])
    return top + LINE * (len(lines) + 2) + AXIS + GAP


def _axis(figure: go.Figure, axis: int, ends: list[float], upwards: tuple[float, float]) -> None:
    """The two axes of a check."""
    across = {"domain": [0.03, 0.97], "anchor": f"y{axis}", "range": ends, "nticks": 5, "tickangle": 0}
    look = {"zeroline": False, "tickfont": {"size": 10}, "showgrid": False}
    look |= {"showline": True, "linecolor": "#bbb", "ticks": "outside", "ticklen": 3, "tickcolor": "#bbb"}
    unseen = {"domain": upwards, "anchor": f"x{axis}", "range": [-1, 1], "visible": False}
    figure.update_layout({f"xaxis{axis}": across | look, f"yaxis{axis}": unseen})


def _threshold(figure: go.Figure, axis: int, threshold: float, side: list[float]) -> None:
    """The line at the threshold of a check, and the shade on the side where its interval has to lie."""
    place = {"xref": f"x{axis}", "yref": f"y{axis}", "y0": -1, "y1": 1, "layer": "below"}
    shade = {"type": "rect", "x0": side[0], "x1": side[1], "line": {"width": 0}}
    figure.add_shape({**place, **shade, "fillcolor": "rgba(0, 67, 136, 0.08)"})
    line = {"type": "line", "x0": threshold, "x1": threshold, "line": {"width": 1.5, "color": "#222"}}
    figure.add_shape({**place, **line})


def _colour(verdict: str) -> str:
    return f"rgb({COLOUR.get(verdict, GREY)})"


def _coloured(verdict: str) -> str:
    return f"<span style='color: {_colour(verdict)}'>{escape(verdict)}</span>"


def _range(numbers: list[float]) -> list[float]:
    """The axis of a check: its value, interval and threshold with some room."""
    known = [each for each in numbers if np.isfinite(each)]
    least, most = min(known), max(known)
    room = 0.25 * (most - least) or 0.5 * abs(most) or 1.0
    return [least - room, most + room]


def _write(
    figure: go.Figure, lines: list[str], left: int, top: int, inside: int, *, size: int, colour: str = "#222"
) -> None:
    """Lines of text, `left` pixels from the left and `top` pixels below the upper end."""
    for at, line in enumerate(lines):
        figure.add_annotation(
            text=line,
            x=0,
            xshift=left,
            y=1 - (top + LINE * (at + 0.5)) / inside,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="middle",
            showarrow=False,
            font={"size": size, "color": colour},
        )

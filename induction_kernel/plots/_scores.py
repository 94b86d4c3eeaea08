"""`loss_plot`, the loss by position, and `score_plot`, one score of all heads against another.

They run no model. `head_map` is in `_head_maps`.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ..errors import Refused
from ._figure import Figure
from ._head_maps import head_map as head_map
from ._panels import panels
from ._style import fitted, heading, need, of_prompts, prompts_in, tick, words

BLUE, BAND = "rgb(0, 67, 136)", "rgba(0, 67, 136, 0.18)"


def loss_plot(loss: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw the mean loss by position, with the middle half of the prompts as a band.

    Repeated prompts are aligned: 0 on the axis is the first token of the second copy, which cannot be predicted, and 1
    the first token that can be copied. Other prompts start at their own position 1. Offsets that fewer than half of the
    prompts reach are left out. The band describes the prompts and is not an interval of the mean: where a few prompts
    have most of the loss, the mean lies above it.

    Args:
        loss: what `loss_by_position` returns: `loss[prompt, position]` in nats, coordinate `start[prompt]`.
        title: replaces "model: loss by position" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure with the traces "middle half of prompts" and "mean", in nats.

    Raises:
        TypeError: if `loss` is no Dataset.
        Refused: if it has no variable `loss[prompt, position]`, or no finite value.
    """
    need(loss, "loss", "loss_by_position")
    if set(loss["loss"].dims) != {"prompt", "position"}:
        raise Refused(
            f"wanted `loss` by prompt and position, got it over {loss['loss'].dims}: pass it without taking means; "
            ".isel(prompt=[0]) chooses one prompt and keeps the dimension"
        )
    starts = loss["start"].values if "start" in loss.coords else np.full(loss.sizes["prompt"], -1)
    aligned = bool((starts >= 0).all())
    offsets, values = _align(loss["loss"].transpose("prompt", "position").values, starts if aligned else None)
    mean, low, high = _band(values)
    band = go.Scatter(
        x=np.concatenate([offsets, offsets[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=BAND,
        line={"width": 0},
        hoverinfo="skip",
        name="middle half of prompts",
    )
    line = go.Scatter(x=offsets, y=mean, line={"color": BLUE, "width": 2}, name="mean", mode="lines+markers")
    line.update(marker={"size": 4}, hovertemplate="%{x}: %{y:.2f} nats<extra></extra>")
    figure = Figure([band, line])
    if aligned:
        figure.add_vline(x=0, line={"dash": "dot", "color": "#555"}, annotation_text="second copy starts")
    figure.update_xaxes(title_text="position of the predicted token", zeroline=False)
    figure.update_xaxes(title_standoff=8)
    figure.update_yaxes(title_text="loss (nats)", rangemode="tozero", title_standoff=8)
    over = of_prompts(prompts_in(loss))
    said = heading(loss, "loss by position", over, "shaded: the middle half of the prompts")
    return fitted(figure, said if title is None else title, 300)


def score_plot(a: xr.Dataset, b: xr.Dataset, *, title: str | None = None) -> go.Figure:
    """Draw one score against another, a point for each head: usually prefix matching against copying.

    Bars are the intervals of `summarise`, dashed lines the mean chance of each score, colours the layers. Heads that
    pass the threshold of `a` are diamonds, and the eight strongest of them carry their names; open circles are heads
    that could not be tested.

    Args:
        a: scores of one scorer (or their summary), along the x axis.
        b: scores of another one for the same heads, along the y axis.
        title: replaces "model: method against method" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure whose first trace holds one point for each head, in the units of the scores.

    Raises:
        TypeError: if one of the two is no Dataset.
        Refused: if one holds several scorers, or the two do not have the same heads.
    """
    (name_a, across), (name_b, upwards) = _single(a, "a"), _single(b, "b")
    if across["mean"].shape != upwards["mean"].shape:
        raise Refused(
            f"wanted two scores of the same heads, got layers and heads {across['mean'].shape} and "
            f"{upwards['mean'].shape}; score both on one model"
        )
    figure, dashed = Figure(_points(across, upwards, (words(name_a), words(name_b)))), False
    for axis, summary in (("x", across), ("y", upwards)):
        chance = float(summary["chance"].mean()) if "chance" in summary else np.nan
        if np.isfinite(chance):
            other = "y" if axis == "x" else "x"
            ends = {
                f"{axis}0": chance,
                f"{axis}1": chance,
                f"{other}0": 0,
                f"{other}1": 1,
                f"{other}ref": f"{other} domain",
            }
            figure.add_shape(ends, type="line", line={"dash": "dash", "width": 1, "color": "#888"})
            dashed = True
    figure.update_xaxes(title_text=words(name_a), zeroline=False, title_standoff=8)
    figure.update_yaxes(title_text=words(name_b), zeroline=False, title_standoff=8)
    said = (
        heading(a, f"{words(name_b)} against {words(name_a)}", *_notes(across, name_a, dashed))
        if title is None
        else title
    )
    return fitted(figure, said, 400, right=70)


def _notes(summary: xr.Dataset, name: str, dashed: bool) -> list[str]:
    """The number of prompts and the meaning of the marks, for the title."""
    n = int(summary["n"].max()) if "n" in summary else 0
    return [
        of_prompts(n),
        "bars: intervals" if n else "",
        "dashed: chance" if dashed else "",
        f"diamonds: heads that pass the threshold of {words(name)}"
        if bool((summary["passes"] == 1).any())
        else "",
    ]


def _points(across: xr.Dataset, upwards: xr.Dataset, axes: tuple[str, str]) -> go.Scatter:
    """One marker for each head of `[layer, head]` summaries, flattened layer by layer."""
    x, y = across["mean"].values.ravel(), upwards["mean"].values.ravel()
    names, passes, rank = (across[key].values.ravel() for key in ("name", "passes", "rank"))
    untested, passes = np.isnan(passes.astype(float)), passes == 1
    layers = np.repeat(across["layer"].values, across.sizes["head"])
    shown = {"thickness": 1, "width": 0, "color": "rgba(80, 80, 80, 0.35)"}
    return go.Scatter(
        x=x,
        y=y,
        mode="markers+text",
        text=[
            str(name) if ok and place <= 8 else ""
            for name, ok, place in zip(names, passes, rank, strict=True)
        ],
        textposition=np.where(rank % 2, "top center", "bottom center"),
        customdata=names,
        error_x=_bars(across) | shown,
        error_y=_bars(upwards) | shown,
        marker={
            "size": np.where(passes, 10, 7),
            "symbol": np.select([passes, untested], ["diamond", "circle-open"], "circle"),
            "color": layers,
            "colorscale": "Cividis",
            "line": {"width": 0.5, "color": "white"},
            "colorbar": {"title": {"text": "layer"}, "thickness": 12, "dtick": tick(across.sizes["layer"])},
        },
        hovertemplate=f"%{{customdata}}<br>{axes[0]} %{{x:.3f}}<br>{axes[1]} %{{y:.3f}}<extra></extra>",
        showlegend=False,
    )


def _bars(summary: xr.Dataset) -> dict[str, object]:
    """Distances from the mean to the two ends of the interval, as plotly wants them."""
    mean = summary["mean"].values.ravel()
    high, low = summary["high"].values.ravel() - mean, mean - summary["low"].values.ravel()
    return {"type": "data", "array": high, "arrayminus": low}


def _single(scores: xr.Dataset, which: str) -> tuple[str, xr.Dataset]:
    """(method, summary) of the only scorer."""
    found = panels(scores)
    if len(found) != 1:
        dim = "model" if len({part.model for part in found}) > 1 else "scorer"
        raise Refused(f"wanted one {dim} in {which}, got {len(found)}: choose one with .isel({dim}=0)")
    return found[0].name, found[0].heads


def _align(values: np.ndarray, starts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(offset of the predicted token, values `[prompt, offset]`), without offsets that few prompts reach."""
    prompts, length = values.shape
    first = np.zeros(prompts, int) if starts is None else starts.astype(int)
    offsets = np.arange(1 - first.max(), length + 1 - first.min())
    placed = np.full((prompts, len(offsets)), np.nan)
    for prompt in range(prompts):
        begin = 1 - first[prompt] - offsets[0]
        placed[prompt, begin : begin + length] = values[prompt]
    kept = np.isfinite(placed).sum(0) >= max(1, prompts / 2)
    return offsets[kept], placed[:, kept]


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and quartiles over prompts of `[prompt, offset]`; missing values are left out."""
    low, high = np.nanquantile(values, (0.25, 0.75), axis=0)
    return np.nanmean(values, axis=0), low, high

"""Figures of direct effects: bars by component, and heat maps by position or by source token.

Draws what `direct_effect` gives by component, by position and by key (Elhage et al. 2021, direct logit attribution), as
means over prompts or for one prompt. Purple is below zero, orange above. It runs no model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .._given import is_whole
from ..errors import Refused
from ..heads._names import names_of
from ._effect_grid import Grid, intervals, spread, token_labels
from ._effect_map import DIVERGING, drawn
from ._figure import Figure
from ._style import NEGATIVE, POSITIVE, escape, fitted, heading, need, of_prompts, prompts_in

__all__ = ["chosen_prompt", "direct_effect_map", "direct_effect_plot"]

ROW = 22  # pixels of a bar
TOTAL = "rgb(80, 80, 80)"


def direct_effect_plot(results: xr.Dataset, *, top: int = 20, title: str | None = None) -> go.Figure:
    """Draw what each component adds to the logit, the largest first, and the sum of all.

    Bars are means over prompts with 95% intervals; diamonds are the matched control, where there is one. Below the
    strongest components stand the others together, and the model's own logit (or difference of logits).

    Args:
        results: what `direct_effect(by=("component",))` returns.
        top: number of components drawn: those with the largest mean of either sign.
        title: replaces "model: direct effect ..., by component" and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with one set of bars `x[row]` in logits.

    Raises:
        TypeError: if `results` is no Dataset.
        Refused: if it is not by component alone, or has no finite value; if `top` is below 1.
    """
    _check(results, top)
    if "component" not in results["score"].dims or "position" in results["score"].dims:
        raise Refused(
            f"wanted direct effects by component, got them over ({', '.join(map(str, results['score'].dims))}): give "
            'by=("component",) to direct_effect; direct_effect_map draws positions and keys, head_map heads'
        )
    score = _by_prompt(results["score"]).transpose("prompt", "component").values
    order = np.argsort(-np.abs(np.nanmean(score, 0)), kind="stable")
    names, columns = _rows(results, score, order, top)
    figure = Figure(_bars(names, columns))
    if "control" in results:
        control = _by_prompt(results["control"]).transpose("prompt", "component").values
        figure.add_trace(_diamonds(*_rows(results.drop_vars("total", errors="ignore"), control, order, top)))
    figure.update_xaxes(title_text="logits", zerolinecolor="#555")
    labels = [escape(name) for name in names]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=labels, range=[len(names) - 0.4, -0.6])
    figure.update_yaxes(zeroline=False, showgrid=False)
    n, note = (
        prompts_in(results),
        f"the strongest {top} of {len(order)} components" if top < len(order) else "",
    )
    said = heading(results, _said(results), of_prompts(n), "lines: 95% intervals" if n > 1 else "", note)
    legend = ["matched control"] if "control" in results else []
    left = 26 + 7 * max(map(len, names))
    return fitted(figure, said if title is None else title, ROW * len(names), legend=legend, left=left)


def _rows(
    results: xr.Dataset, score: np.ndarray, order: np.ndarray, top: int
) -> tuple[list[str], np.ndarray]:
    """Names, and values `[prompt, row]`: the strongest components, the others together, the model's own logit."""
    chosen, others = order[:top], order[top:]
    names, columns = [str(name) for name in results["component"].values[chosen]], [score[:, chosen]]
    if len(others):
        names.append(f"{len(others)} other components")
        columns.append(score[:, others].sum(1, keepdims=True))
    if "total" in results:
        names.append("logit difference" if results.attrs.get("on") == "answers" else "logit")
        columns.append(np.atleast_1d(results["total"].values)[:, None])
    return names, np.concatenate(columns, 1)


def _bars(names: list[str], columns: np.ndarray) -> go.Bar:
    mean, low, high, n = intervals(columns)
    colours = [f"rgb{POSITIVE if value > 0 else NEGATIVE}" for value in mean]
    if names[-1].startswith("logit"):
        colours[-1] = TOTAL
    said = [[escape(name), spread(*cell)] for name, *cell in zip(names, low, high, n, strict=True)]
    return go.Bar(
        x=mean,
        y=np.arange(len(names)),
        orientation="h",
        marker={"color": colours},
        error_x={"array": high - mean, "arrayminus": mean - low, "thickness": 1, "width": 0},
        customdata=np.array(said, object),
        hovertemplate="<b>%{customdata[0]}</b><br>%{x:.3g} logits%{customdata[1]}<extra></extra>",
        showlegend=False,
    )


def _diamonds(names: list[str], columns: np.ndarray) -> go.Scatter:
    """The control of the same rows."""
    return go.Scatter(
        x=np.nanmean(columns, 0),
        y=np.arange(len(names)),
        mode="markers",
        marker={"symbol": "diamond-open", "size": 8, "color": "#222", "line": {"width": 1.5}},
        name="matched control",
        customdata=[escape(name) for name in names],
        hovertemplate="<b>%{customdata}</b><br>matched control %{x:.3g} logits<extra></extra>",
    )


def direct_effect_map(
    results: xr.Dataset, *, prompt: int | None = None, top: int = 20, title: str | None = None
) -> go.Figure:
    """Draw direct effects by position, or by source token, of the strongest components or heads.

    By key, a column is a token that heads read: an induction head lights up at the token after the earlier copy. By
    position, a column is the token at which the next one is predicted. Columns are labelled by their tokens, with "/…"
    where prompts differ, or by their numbers if prompts differ at more than half of them; columns that no prompt has
    are left out. Hovering shows the mean, its 95% interval over prompts and their number.

    Args:
        results: what `direct_effect` returns with by=("component", "position"), ("head", "position") or
            ("head", "key").
        prompt: number of one prompt to draw; None for the mean over prompts.
        top: number of rows: those with the largest mean of either sign in any column.
        title: replaces "model: direct effect ..." and the notes below it; plotly reads markup in it.

    Returns:
        A plotly figure as wide as its container, with one heat map `z[row, column]` in logits.

    Raises:
        TypeError: if `results` is no Dataset; a prompt that is no whole number.
        Refused: if it is not by position or key, or has no finite value; a prompt that is not there; `top` below 1.
    """
    _check(results, top)
    dims = set(map(str, results["score"].dims))
    dim = "key" if "key" in dims else "position"
    over = ("component",) if "component" in dims else ("layer", "head")
    if not {dim, *over} <= dims:
        raise Refused(
            f"wanted direct effects by position or key, got them over ({', '.join(map(str, results['score'].dims))}): "
            'give by=("component", "position"), ("head", "position") or ("head", "key") to direct_effect'
        )
    one = results if prompt is None else chosen_prompt(results, prompt)
    grid = _grid(one, over, dim, top)
    said = heading(one, _said(results), _whose(one, prompt), grid.note) if title is None else title
    figure = drawn(grid, _heat(grid), said)
    if dim == "key":
        figure.update_xaxes(title_text=grid.titles[1].replace("token", "source token"))
    return figure


def chosen_prompt(results: xr.Dataset, prompt: int) -> xr.Dataset:
    """One prompt of a result, which keeps the dimension."""
    n = results.sizes.get("prompt", 0)
    if not is_whole(prompt):
        raise TypeError(f"wanted prompt as a whole number, got {prompt!r}")
    if not 0 <= prompt < n:
        raise Refused(f"wanted a prompt from 0 to {n - 1}, got {prompt}")
    return results.isel(prompt=[int(prompt)])


def _grid(one: xr.Dataset, over: tuple[str, ...], dim: str, top: int) -> Grid:
    """The strongest rows, and the columns that have values."""
    score = _by_prompt(one["score"]).transpose("prompt", *over, dim).values
    score = score.reshape(len(score), -1, score.shape[-1])
    there = np.isfinite(score).any((0, 1))
    known = np.isfinite(score)
    mean = np.where(known, score, 0).sum(0) / np.maximum(known.sum(0), 1)
    order = np.argsort(-np.abs(mean[:, there]).max(1), kind="stable")[:top]
    chosen = score[:, order][:, :, there]
    cells = [each.reshape(chosen.shape[1:]) for each in intervals(chosen.reshape(len(chosen), -1))]
    title, labels, places = token_labels(one.isel({dim: there}), dim)
    names = _names(one, over)
    rows = [str(names[row]) for row in order]
    said = [spread(*cell) for cell in zip(*(each.flat for each in cells[1:]), strict=True)]
    parts = {"mean": cells[0], "said": np.array(said, object).reshape(cells[0].shape)}
    parts["name"] = np.array([[f"{row}, {place}" for place in places] for row in rows], object)
    kind = "heads" if len(over) > 1 else "components"
    note = f"the strongest {len(order)} of {len(names)} {kind}" if len(order) < len(names) else ""
    return Grid(
        xr.Dataset({key: (("row", dim), each) for key, each in parts.items()}),
        rows,
        labels,
        ("", title),
        note,
    )


def _names(one: xr.Dataset, over: tuple[str, ...]) -> np.ndarray:
    if over == ("component",):
        return one["component"].values
    return names_of(one["layer"].values, one["head"].values).ravel()


def _heat(grid: Grid) -> go.Heatmap:
    """The coloured cells, balanced around zero, and the text of hovering."""
    z, names, said = (grid.cells[key].values for key in ("mean", "name", "said"))
    reach = float(np.nanmax(np.abs(z))) or 1.0
    texts = [[escape(str(name)), text] for name, text in zip(names.flat, said.flat, strict=True)]
    bar: dict[str, Any] = {
        "title": {"text": "logits", "side": "right", "font": {"size": 12}},
        "thickness": 10,
    }
    return go.Heatmap(
        z=z,
        zmin=-reach,
        zmax=reach,
        colorscale=DIVERGING,
        customdata=np.array(texts, object).reshape(*z.shape, 2),
        hovertemplate="<b>%{customdata[0]}</b><br>%{z:.3g} logits%{customdata[1]}<extra></extra>",
        hoverongaps=False,
        xgap=int(len(grid.columns) <= 40),
        ygap=1,
        colorbar=bar
        | {"xpad": 6, "ticksuffix": " ", "outlinewidth": 0, "tickfont": {"size": 10}, "nticks": 5, "ypad": 0},
    )


def _check(results: Any, top: int) -> None:
    need(results, "score", "direct_effect")
    if not is_whole(top) or top < 1:
        raise Refused(f"wanted top >= 1 rows to draw, got {top!r}")


def _by_prompt(values: xr.DataArray) -> xr.DataArray:
    return values if "prompt" in values.dims else values.expand_dims("prompt")


def _said(results: xr.Dataset) -> str:
    """What is drawn, escaped; for one pair of answers with their words."""
    said = str(results.attrs.get("title", "direct effect"))
    words = [np.unique(results[key].values) for key in ("right", "wrong") if key in results.coords]
    if len(words) == 2 and all(len(each) == 1 for each in words):
        right, wrong = (repr(str(each[0])) for each in words)
        said = said.replace(
            "the right answer's logit less the wrong one's", f"the logit of {right} less that of {wrong}"
        )
    return escape(said)


def _whose(one: xr.Dataset, prompt: int | None) -> str:
    """The prompt drawn, or of how many prompts this is the mean, escaped."""
    if prompt is None:
        return of_prompts(prompts_in(one))
    text = str(one["text"].values[0]) if "text" in one.coords else ""
    return escape(f"prompt {prompt}: {text}" if text else f"prompt {prompt}")

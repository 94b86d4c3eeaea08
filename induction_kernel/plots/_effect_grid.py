"""The rows and columns that `effect_map` draws: labels, means and 95% intervals over prompts.

Checks the Dataset of a sweep and arranges its cells. It draws nothing and runs no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._names import names_of
from ..stats._means import mean_interval
from ..stats._shares import mean_share_interval
from ._style import escape, need

SHOWN = {"effect": "effect", "estimate": "estimated effect", "normalised": "normalised effect"}
BY: list[tuple[str, ...]] = [
    ("layer",),
    ("layer", "head"),
    ("layer", "position"),
    ("layer", "head", "position"),
]
LABELLED = 100  # positions that are labelled by their tokens; more are labelled by their numbers
SIGNS = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥"} | dict.fromkeys(" \u00a0\u3000", "␣"))


@dataclass(frozen=True)
class Grid:
    """Cells as rows and columns; names and labels are not yet escaped.

    Attributes:
        cells: `mean`, `said` (what hovering adds to it) and `name`, each `[row, column]`.
        rows: their labels, downwards.
        columns: their labels, across.
        titles: of the rows and of the columns.
        note: a further note below the title, or "".
    """

    cells: xr.Dataset
    rows: list[str]
    columns: list[str]
    titles: tuple[str, str]
    note: str = ""


def checked(results: xr.Dataset, show: str | None) -> str:
    """The variable to draw, after checking that it can be drawn."""
    if show is None:
        known = isinstance(results, xr.Dataset) and "effect" not in results and "estimate" in results
        show = "estimate" if known else "effect"
    if show not in SHOWN:
        raise Refused(f"wanted show as one of {', '.join(map(repr, SHOWN))}, got {show!r}")
    if isinstance(results, xr.Dataset) and show not in results and {"score", "mean"} & set(results.data_vars):
        raise Refused(
            f"wanted the Dataset of sweep, patch or attribution, which holds {show!r}; got scores, with "
            f"{list(results.data_vars)}: head_map draws them"
        )
    need(results, show, "patch" if show == "normalised" else "sweep, patch or attribution")
    over = tuple(map(str, results[show].dims))
    by = tuple(dim for dim in ("layer", "head", "position") if dim in over)
    if by not in BY or set(over) != {*by, "prompt"} - ({"prompt"} if show == "normalised" else set()):
        raise Refused(
            f"wanted {show!r} for each prompt, by layer, (layer, head), (layer, position) or (layer, head, "
            f"position), got it over ({', '.join(over)}): give by=(...) to sweep, patch or attribution, and choose a "
            "prompt with .isel(prompt=[0]), which keeps the dimension"
        )
    return show


def means(results: xr.Dataset, show: str) -> xr.Dataset:
    """`mean`, `low`, `high` of each cell over prompts, and `said`, what hovering shows besides the mean."""
    over = results["effect" if show == "normalised" and "effect" in results else show]
    by = [dim for dim in ("layer", "head", "position") if dim in over.dims]
    values = (over if "prompt" in over.dims else over.expand_dims("prompt")).transpose("prompt", *by).values
    shape, flat = values.shape[1:], values.reshape(len(values), -1).astype(np.float64)
    mean, low, high, n = (each.reshape(shape) for each in intervals(flat))
    said = [spread(*cell) for cell in zip(low.flat, high.flat, n.flat, strict=True)]
    drawn = mean
    if show == "normalised":
        drawn, unit = (
            results[show].transpose(*by).values,
            escape(f" {results.attrs.get('unit', '')}".rstrip()),
        )
        said = [f"<br>effect {number(at)}{unit}{rest}" for at, rest in zip(mean.flat, said, strict=True)]
    parts = {"mean": drawn, "low": low, "high": high, "said": np.array(said, object).reshape(shape)}
    coords = {dim: results[dim].values for dim in by}  # counts from 0 where there is no coordinate
    return xr.Dataset({key: (by, value) for key, value in parts.items()}, coords)


def intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, the ends of its 95% interval, and the number of finite values, of each column of `[prompt, cell]`.

    If all values are 0 or 1, and some are 1, the intervals are those of shares.
    """
    known = np.isfinite(values)
    shares = np.isin(values[known], (0.0, 1.0)).all() and bool((values[known] == 1).any())
    low, high = mean_share_interval(values) if shares else mean_interval(values)
    n = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(0) / n, low, high, n


def spread(low: float, high: float, n: int) -> str:
    """Interval, where there is one, and number of prompts, as text for hovering."""
    interval = f" ({number(low)} to {number(high)})" if np.isfinite(low) else ""
    return f"{interval}<br>{n} prompt{'' if n == 1 else 's'}"


def number(value: float) -> str:
    """Three digits, with a minus as plotly writes it."""
    return f"{value:.3g}".replace("-", "−")


def by_layer(results: xr.Dataset, cells: xr.Dataset, across: str) -> Grid:
    """Layers downwards, heads or positions across."""
    layers = [str(layer) for layer in cells["layer"].values]
    if across == "head":
        names, title = _names(results, cells), "head"
        if "name" not in results.coords and results.attrs.get("site") in ("k", "v"):
            title = "key/value head"
        columns = [str(head) for head in cells["head"].values]
    else:
        title, columns, places = token_labels(results)
        names = np.array([[f"layer {layer}, {place}" for place in places] for layer in layers], object)
    return Grid(cells.assign(name=(("layer", across), names)), layers, columns, ("layer", title))


def by_head_and_position(results: xr.Dataset, cells: xr.Dataset, top: int) -> Grid:
    """The strongest heads downwards, positions across."""
    title, columns, places = token_labels(results)
    heads = _names(results, cells).ravel()
    flat = {str(key): value.values.reshape(len(heads), -1) for key, value in cells.items()}
    size = np.where(np.isfinite(flat["mean"]), np.abs(flat["mean"]), -1.0).max(1)
    order = [int(row) for row in np.argsort(-size, kind="stable")[:top] if size[row] >= 0]
    names = np.array([[f"{heads[row]}, {place}" for place in places] for row in order], object)
    drawn = {key: value[order] for key, value in flat.items()} | {"name": names}
    found = int((size >= 0).sum())
    note = f"the strongest {len(order)} of {found} heads" if len(order) < found else ""
    chosen = xr.Dataset({key: (("row", "position"), value) for key, value in drawn.items()})
    return Grid(chosen, [str(heads[row]) for row in order], columns, ("", title), note)


def _names(results: xr.Dataset, cells: xr.Dataset) -> np.ndarray:
    """The name of each head `[layer, head]`."""
    named = results.coords.get("name")
    if named is not None and set(named.dims) == {"layer", "head"}:
        return named.transpose("layer", "head").values.astype(object)
    return names_of(cells["layer"].values, cells["head"].values).astype(object)


def token_labels(results: xr.Dataset, dim: str = "position") -> tuple[str, list[str], list[str]]:
    """(title of the axis, label of each position, its name on hovering), of positions along `dim`."""
    numbers = [str(at) for at in results[dim].values]
    token = results.coords.get("token")
    if token is None or set(token.dims) != {"prompt", dim}:
        return "position", numbers, [f"position {at}" for at in numbers]
    columns = token.transpose(dim, "prompt").values
    seen = [list(dict.fromkeys(visible(str(each)) for each in column if str(each))) for column in columns]
    places = []
    for at, some in zip(numbers, seen, strict=True):
        listed = ", ".join(some[:4]) + (", …" if len(some) > 4 else "")
        places.append(f"position {at}: {listed}" if some else f"position {at}")
    if len(seen) > LABELLED or 2 * sum(len(some) > 1 for some in seen) > len(seen):
        return "position", numbers, places
    labels = [
        some[0] + "/…" * (len(some) > 1) if some else at for at, some in zip(numbers, seen, strict=True)
    ]
    return "token", labels, places


def visible(token: str) -> str:
    """A short token of visible letters, without the space before it."""
    seen = token.translate(SIGNS)
    seen = seen.removeprefix("␣") if token.strip() else seen
    return seen if len(seen) <= 12 else seen[:11] + "…"

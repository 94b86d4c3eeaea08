"""The axis of training (tokens seen, logarithmic), and the runs in a Dataset of training curves.

Step 0 has no logarithm: it is drawn left of the first checkpoint that has one, with its own tick. Runs are the indices
of `model` and `seed`, one colour for each model. It draws no curve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from ..errors import Refused
from ._lines import COLOURS, indices

RUNS = ("model", "seed")


@dataclass(frozen=True)
class Run:
    """One run of training among others.

    Attributes:
        model: the name of its model, escaped; "" where there is one model.
        name: of the run, escaped; "" where there is one run.
        colour: "red, green, blue", the colour of the model.
        first: whether it is the first run of its model.
        data: its part of the Dataset, without the dimensions of runs.
        at: its coordinates, which select its part of other Datasets: {"model": "2-layer", "seed": 3}.
    """

    model: str
    name: str
    colour: str
    first: bool
    data: xr.Dataset
    at: dict[str, object]


def runs(data: xr.Dataset, variable: str) -> list[Run]:
    """The runs that have a finite value of `variable`."""
    dims = [dim for dim in RUNS if dim in data.dims]
    named = [indices(data, dim) for dim in dims]
    found: list[Run] = []
    for places in product(*(range(data.sizes[dim]) for dim in dims)):
        part = data.isel(dict(zip(dims, places, strict=True)), drop=True)
        if not np.isfinite(part[variable].values).any():
            continue
        labels = [names[at] for names, at in zip(named, places, strict=True)]
        model, index = (labels[0], places[0]) if "model" in dims else ("", 0)
        first = all(run.model != model for run in found)
        at = {dim: data[dim].values[place] for dim, place in zip(dims, places, strict=True)}
        found.append(Run(model, ", ".join(labels), COLOURS[index % len(COLOURS)], first, part, at))
    return found


def belonging(other: xr.Dataset, run: Run) -> xr.Dataset:
    """The part of another Dataset, such as that of the windows, that belongs to a run."""
    spread = [dim for dim in RUNS if dim in other.dims]
    missing = [dim for dim in spread if dim not in run.at or run.at[dim] not in other[dim].values]
    if missing:
        raise Refused(
            f"wanted the window of {run.name or 'this one run'}, got windows over {spread} without it: pass the "
            "phase_window of the same curves"
        )
    return other.sel({dim: run.at[dim] for dim in spread}, drop=True)


def tokens_of(data: xr.Dataset) -> np.ndarray:
    """Tokens seen at each checkpoint of one run, or the training steps where tokens are not known."""
    return data["tokens" if "tokens" in data.coords else "checkpoint"].values.astype(float)


def axis_of(data: xr.Dataset) -> tuple[str, np.ndarray]:
    """(title of the axis, all known numbers of tokens, sorted, each once)."""
    title = "tokens seen" if "tokens" in data.coords else "training step"
    known = np.unique(tokens_of(data))
    return title, known[np.isfinite(known)]


def places(tokens: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Places of these numbers of tokens on the axis; 0 is left of the smallest of `known` that is not 0."""
    return np.where(tokens == 0, zero(known), tokens)


def zero(known: np.ndarray) -> float:
    """The place of 0 on the logarithmic axis: left of the first checkpoint by twice the median step, at least."""
    positive = known[known > 0]
    if not len(positive):
        return 1.0
    step = float(np.median(positive[1:] / positive[:-1])) if len(positive) > 1 else 2.0
    return float(positive[0] / max(1.5, step**2))


def edges(at: np.ndarray) -> np.ndarray:
    """The borders between places on a logarithmic axis, one more than places."""
    if len(at) == 1:
        return at[0] * np.array([0.8, 1.25])
    between = np.sqrt(at[1:] * at[:-1])
    return np.concatenate([[at[0] ** 2 / between[0]], between, [at[-1] ** 2 / between[-1]]])


def layout(known: np.ndarray, room: float = 1.05) -> dict[str, object]:
    """The axis: logarithmic, with ticks at powers of ten (over few decades at 1, 2 and 5 times them) and at 0."""
    at = places(known, known)
    ticks = {float(mark): short(mark) for mark in _marks(at[at > (0 if known[0] > 0 else at[0])])}
    if known[0] == 0:
        ticks = {float(at[0]): "0"} | ticks
    ends = [float(np.log10(at[0] / room)), float(np.log10(at[-1] * room))]
    return {
        "type": "log",
        "range": ends,
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "tickangle": 0,
    }


def _marks(at: np.ndarray) -> Iterator[float]:
    if not len(at):
        return
    decades = range(int(np.floor(np.log10(at[0]))), int(np.ceil(np.log10(at[-1]))) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    for decade, step in product(decades, steps):
        if at[0] * 0.999 <= step * 10.0**decade <= at[-1] * 1.001:
            yield step * 10.0**decade


def short(tokens: float) -> str:
    """ "2M": a number of tokens, shortened."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.3g}"


def legend(found: list[Run]) -> list[str]:
    """The names in the legend: the models, where there are several."""
    models = list(dict.fromkeys(run.model for run in found))
    return models if len(models) > 1 else []

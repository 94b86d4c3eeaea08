"""A line of evidence as one object: its claim, how it is tested, how its result is drawn, what it leaves open.

An argument is put to the ground that a model gives: its weights, its training checkpoints, texts, a family of models.
It is *not defined* where it has no meaning on the model (`NotDefined`, nothing else), and inconclusive where something
is missing that it takes. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import plotly.graph_objects as go
import xarray as xr

from ..model._anatomy import Model

__all__ = ["NO_TEXTS", "Argument", "Ground", "Part", "SixArguments", "Table"]

NO_TEXTS = "wanted texts to measure the in-context-learning score on: give prompts=, or --text"


class Table(NamedTuple):
    """A table of words and numbers: `header`, and as many cells in each of `rows`."""

    header: list[str]
    rows: list[list[str]]


Part = str | Table | go.Figure | list[go.Figure]
"""What a result is drawn as: a paragraph of plain text, a table, a figure, or figures side by side."""


@dataclass(frozen=True)
class Argument:
    """One line of evidence.

    Attributes:
        name: of its result, and of the function that computes it: "co_occurrence".
        title: as it is printed: "1 Co-occurrence".
        claim: what holds if it holds, in one sentence.
        paper: what the paper found, and how strong it takes this evidence to be.
        limits: what it does not show.
        primary: the name of the check, or some words of it, that a sentence about the verdict speaks of first.
        run: the verdict on the ground that a model gives (`judged`, `inconclusive` or `not_defined`).
        draw: of everything found and this argument's result, the figures, tables and paragraphs behind the verdict,
            in order; the checks themselves are drawn by `evidence_plot`.
    """

    name: str
    title: str
    claim: str
    paper: str
    limits: str
    primary: str
    run: Callable[[Ground], xr.Dataset] = field(repr=False)
    draw: Callable[[SixArguments, xr.Dataset], Iterable[Part]] = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Ground:
    """What one model gives to put arguments to; each is measured once.

    Attributes:
        model: the model itself, at the end of its training.
        source: its name or folder; the model where it is at hand.
        steps: training checkpoints; none where there are no more than the model.
        texts: `prompts`, `early`, `late` (and `n`) of the in-context-learning score; empty where there are no texts.
        passages: a text to cut passages from; None where there is none.
        large: whether the model has so many heads that they are removed together only.
        curves: of `training_curves`; None without checkpoints or without texts.
        window: of `phase_window` in these curves; None where they are too few.
        families: curves of the family of models; None where there are none.
        family_windows: of `phase_window` in those.
        shipped: whether the families are those that come with the package.
        seed: of all prompts and draws.
        progress: show progress bars.
    """

    model: Model
    source: Any
    steps: list[int]
    texts: Mapping[str, Any]
    passages: str | None
    large: bool
    curves: xr.Dataset | None
    window: xr.Dataset | None
    families: xr.Dataset | None
    family_windows: xr.Dataset | None
    shipped: bool
    seed: int
    progress: bool


@dataclass(frozen=True, eq=False, repr=False)
class SixArguments:
    """What a model's arguments gave; see `six_arguments`.

    Attributes:
        model: its name.
        arguments: those it was put through, in order.
        results: argument's name -> its Dataset, in the same order.
        curves: of `training_curves`; None without checkpoints or without texts to measure on.
        window: of `phase_window` in these curves.
        families: the curves that arguments about a family of models rest on; None where there are none.
        family_windows: of `phase_window` in those.
        seed: of all prompts and draws.
    """

    model: str
    arguments: tuple[Argument, ...]
    results: dict[str, xr.Dataset]
    curves: xr.Dataset | None
    window: xr.Dataset | None
    families: xr.Dataset | None
    family_windows: xr.Dataset | None
    seed: int

    def datasets(self) -> dict[str, xr.Dataset]:
        """All there are by their names: for files, `xarray.DataTree.from_dict(found.datasets())`."""
        more = {name: getattr(self, name) for name in ("curves", "window", "families", "family_windows")}
        return self.results | {name: each for name, each in more.items() if each is not None}

    def __repr__(self) -> str:
        said = ", ".join(f"{name}: {each.attrs['verdict']}" for name, each in self.results.items())
        return f"SixArguments({self.model}, {said})"

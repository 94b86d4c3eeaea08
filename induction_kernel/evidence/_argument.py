"""An argument as one object: its claim, what the paper says of it, its limits, how it is tested and how it is drawn.

`six_arguments` gathers what a model offers (`Inputs`: checkpoints, texts, curves, a family of models), calls `run` of
every argument on it, and keeps the verdicts (`SixArguments`), which `report` draws with `draw`. Nothing is computed
here: verdicts are made in `_verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from .._given import refused_arguments
from ..errors import Refused
from ..model._anatomy import Model

__all__ = ["NO_TEXTS", "Argument", "Inputs", "Part", "SixArguments", "Table"]

NO_TEXTS = "wanted texts to measure the in-context-learning score on: give prompts=, or --text"


@dataclass(frozen=True)
class Table:
    """A table on the page: words and numbers as text.

    Attributes:
        header: the titles of the columns.
        rows: the cells of each row, as many as there are titles.

    Raises:
        Refused: a row with more or fewer cells than there are titles.
    """

    header: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise Refused(
                    f"wanted rows of {len(self.header)} cells, one for each title in {self.header}, got {row}"
                )


Part = str | Table | go.Figure | list[go.Figure]
"""What `draw` yields: a paragraph of plain text, a table, a figure, or a list of figures to stand side by side."""


@dataclass(frozen=True)
class Argument:
    """One line of evidence: a claim, how it is tested on a model, and how the result is shown.

    To write one, give it a function `run` that measures something on the model and returns
    `judge(argument, [Check(...), ...])`: a check is a number with its interval and a threshold, and the claim holds if
    every check does. `six_arguments(source, arguments=[...])` runs it, and the page prints what is written here.

    Attributes:
        name: the name of its result, a plain word such as "co_occurrence"; for the six of the paper also the name of
            the function in `ik.evidence` that computes it.
        title: the heading on the page, such as "1 Co-occurrence".
        claim: what is claimed, in one sentence.
        paper: what the paper found, and how strong it takes this evidence to be; a paragraph of the page.
        limits: what it does not show; a paragraph of the page.
        primary: which check the page gives first: its name or some words of it; the first check where no name has them.
        run: `Inputs -> Dataset`, the verdict on one model: what `judge`, `inconclusive` or `not_defined` returns. It
            may raise `errors.NotDefined` where the claim has no meaning on the model.
        draw: `(SixArguments, Dataset) -> parts`, what the page shows below the verdict, in order: strings (paragraphs),
            `Table`s, plotly Figures, or lists of Figures side by side. The checks are drawn anyway; return `[]` for
            nothing more.
        source: the paper it is from, as results cite it: "Olsson et al. 2022"; "" for one from no paper.

    Raises:
        TypeError: a text that is no string, `run` not a function of one argument, `draw` not one of two.
        Refused: a name that is no plain word, or an empty title, claim, `paper` or `limits`.

    Source: the six arguments of Olsson et al. 2022.
    """

    name: str
    title: str
    claim: str
    paper: str
    limits: str
    primary: str
    run: Callable[[Inputs], xr.Dataset] = field(repr=False)
    draw: Callable[[SixArguments, xr.Dataset], Iterable[Part]] = field(repr=False)
    source: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "title", "claim", "paper", "limits", "primary", "source"):
            text = getattr(self, key)
            if not isinstance(text, str):
                raise TypeError(f"wanted {key} as a string, got {type(text).__name__}")
            if not text.strip() and key not in ("primary", "source"):
                raise Refused(f"wanted {key} as a text that pages can print, got {text!r}: write a sentence")
        if not self.name.isidentifier():
            raise Refused(
                f"wanted name as a plain word of letters, digits and underscores, such as 'co_occurrence', got "
                f"{self.name!r}"
            )
        _check_function("run", self.run, 1, "the inputs")
        _check_function("draw", self.draw, 2, "all results and its own")


def _check_function(name: str, function: Any, n: int, takes: str) -> None:
    if not callable(function):
        raise TypeError(f"wanted {name} as a function of {takes}, got {type(function).__name__}")
    signature = refused_arguments(function, n)
    if signature is not None:
        raise TypeError(f"wanted {name} as a function of {takes}, got one that takes {signature}")


@dataclass(frozen=True, eq=False, repr=False)
class Inputs:
    """What the arguments are tested on: one model, and all that was measured or given for it. `six_arguments` makes it.

    Attributes:
        model: the model; of a run with checkpoints, at the end of training.
        source: what `six_arguments` was given: a name, a folder, or the model itself.
        steps: the training checkpoints; empty where there are none.
        texts: `prompts`, `early`, `late` (and `n`) of the in-context-learning score, as keyword arguments; empty where
            there are no texts to measure it on.
        passages: the text that passages are cut from; None where none was given.
        large: whether the model has over 64 heads: heads are then removed together only.
        curves: what `training_curves` returned; None without checkpoints or without texts.
        window: what `phase_window` found in these curves; None where there are too few checkpoints.
        families: curves of a family of models, over `model`; None where there are none.
        family_windows: what `phase_window` found in those.
        shipped: whether the families are those that come with the package.
        seed: for all prompts and draws.
        progress: whether to show progress bars.
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
    """The verdicts of all arguments on one model, and the curves they rest on; what `six_arguments` returns.

    Attributes:
        model: the model's name.
        arguments: the arguments that were tested, in order.
        results: name of an argument -> its Dataset (see `judge`), in the same order.
        curves: what `training_curves` returned; None without checkpoints or without texts to measure on.
        window: what `phase_window` found in these curves; None where there are too few checkpoints.
        families: curves of the family of models; None where there are none.
        family_windows: what `phase_window` found in those.
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
        """Name -> Dataset, of all that are not None: for files, `xarray.DataTree.from_dict(found.datasets())`."""
        more = {name: getattr(self, name) for name in ("curves", "window", "families", "family_windows")}
        return self.results | {name: each for name, each in more.items() if each is not None}

    def __repr__(self) -> str:
        said = ", ".join(f"{name}: {each.attrs['verdict']}" for name, each in self.results.items())
        return f"SixArguments({self.model}, {said})"

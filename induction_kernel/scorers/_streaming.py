"""Many heads scored in one pass: what is read of a layer's patterns is reduced before the next layer comes.

The pass ends in the last layer needed and computes no logits; reductions are in float32 or better. Scorers choose which
entries of a pattern count (`_attention_scorer`, `_labels`); `_pattern_entries` reads them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from .._given import is_whole
from ..errors import Refused
from ..heads._names import names_of
from ..model._anatomy import Model, sizes
from ..model._runs import batches, progress_bar
from ..model._self_check import is_causal
from ..prompts._prompts import Prompts, measured_on
from ..replay._lane_record import Way
from ._pattern_entries import (
    Entries,
    Reads,
    attends,
    check_sound,
    cost_of,
    entries_in,
    read_entries,
    taken,
    way_to_read,
)

__all__ = ["Board", "averaged", "chosen_layers", "labelled", "observed"]

Index = Int[Tensor, " entry"]


class Scorer(Protocol):
    """What `observed` needs of a scorer: the entries it reads, what it computes from them, and chance."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def paper(self) -> str: ...
    @property
    def matched(self) -> bool: ...
    @property
    def tested(self) -> bool: ...

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads: ...
    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor: ...


def observed(
    model: Model,
    prompts: Prompts,
    scorers: Sequence[Scorer],
    *,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Several scorers in one pass over the prompts, and one over each control that they have."""
    board, length = Board(model, prompts, scorers, layers), prompts.tokens.shape[1]
    way = way_to_read(model, prompts, board.layers)
    parts = batches(len(prompts), length, batch_size=batch_size, cost=cost_of(model, way.name, length))
    runs = _runs(model, prompts, scorers)
    with progress_bar(len(prompts) * len(runs), progress=progress, unit="run") as bar:
        for rows in parts:
            for part, (*_, tokens) in zip(board.parts(rows, runs), runs, strict=True):

                def put(
                    layer: int, values: Tensor, sound: bool, part: Part = part, n: int = len(tokens[rows])
                ) -> None:
                    board.put(part, layer, values, sound=sound)
                    bar.update(n / len(board.layers))

                read_entries(
                    model, prompts[rows], part.entries, board.layers, put, lane=way.name, tokens=tokens[rows]
                )
    return board.dataset(way)


class Run(NamedTuple):
    """A pass over the prompts, or over a control of theirs."""

    name: str  # "score" or "control"
    scorers: list[int]  # which read it
    tokens: Tensor


def _runs(model: Model, prompts: Prompts, scorers: Sequence[Scorer]) -> list[Run]:
    """The prompts; their matched control; and the control of each scorer that makes its own by `replaced`."""
    runs = [Run("score", list(range(len(scorers))), prompts.tokens)]
    matched = [i for i, scorer in enumerate(scorers) if scorer.matched]
    if prompts.control is not None and matched:
        runs.append(Run("control", matched, prompts.control))
    own = {i: make for i, scorer in enumerate(scorers) if (make := getattr(scorer, "replaced", None))}
    return runs + [Run("control", [i], make(model, prompts)) for i, make in own.items()]


class Part(NamedTuple):
    """What one pass over some prompts reads, for which scorers."""

    rows: slice
    entries: Entries
    counts: list[int]  # entries of each scorer
    made: list[tuple[int, dict[str, Any]]]  # scorer -> variables, as in `Reads`


class Board:
    """The scores of one observation, filled in layer by layer."""

    def __init__(
        self, model: Model, prompts: Prompts, scorers: Sequence[Scorer], layers: Iterable[int] | None = None
    ) -> None:
        self.model: Model = model
        self.prompts: Prompts = prompts
        self.scorers: Sequence[Scorer] = scorers
        self.layers: list[int] = chosen_layers(model, layers)
        self.causal: bool = is_causal(model)
        chances = [scorer.chance(prompts, causal=self.causal) for scorer in scorers]
        self.chance: np.ndarray = torch.stack(chances).numpy()
        self.variables: dict[str, np.ndarray] = {}
        self.seen: set[int] = set()
        self.broken: set[int] = set()

    def parts(self, rows: slice, runs: Sequence[Run]) -> list[Part]:
        """What each of these passes reads, for some of the prompts."""
        reads = [scorer.reads(self.prompts[rows], causal=self.causal) for scorer in self.scorers]
        parts = []
        for run, at, _ in runs:
            entries, counts = entries_in([reads[i] for i in at])
            made = [(i, dict(reads[i].made) if run == "score" else {run: reads[i].made["score"]}) for i in at]
            parts.append(Part(rows, entries, counts, made))
        return parts

    def read(self, part: Part, layer: int, pattern: Tensor) -> None:
        """Reduce one layer's pattern of some prompts."""
        sound = attends(pattern, self.prompts.lengths[part.rows])
        self.put(part, layer, taken(pattern, part.entries), sound=sound)

    def put(self, part: Part, layer: int, values: Tensor, *, sound: bool) -> None:
        """Reduce one layer's values `[entry, head]` of some prompts."""
        for (i, made), of_scorer in zip(part.made, values.split(part.counts), strict=True):
            for name, make in made.items():
                self._variable(name)[i, part.rows, self.layers.index(layer)] = make(of_scorer).numpy()
        self.seen.add(layer)
        if not sound:
            self.broken.add(layer)

    def _variable(self, name: str) -> np.ndarray:
        shape = (len(self.scorers), len(self.prompts), len(self.layers), sizes(self.model).n_heads)
        return self.variables.setdefault(name, np.full(shape, np.nan))

    def dataset(self, way: Way) -> xr.Dataset:
        """Everything read, labelled; dimension `scorer` first.

        Raises:
            Refused: attention that is not finite.
        """
        check_sound(self.broken)
        out = labelled(self.model, self.prompts, self.layers, self.variables, self.chance, self.scorers)
        return out.assign_attrs(way.attrs)


def averaged(
    values: Float[Tensor, "entry head"], prompt: Index, weight: Float[Tensor, " prompt"], n: int
) -> Float[Tensor, "prompt head"]:
    """`[entry, head]` summed by prompt and weighted: `[prompt, head]`, summed in float64."""
    total = torch.zeros(n, values.shape[1], dtype=torch.float64)
    return total.index_add_(0, prompt, values.double()) * weight[:, None]


def labelled(
    model: Model,
    prompts: Prompts,
    layers: list[int],
    variables: dict[str, np.ndarray],
    chance: np.ndarray,
    scorers: Sequence[Any],
) -> xr.Dataset:
    """Score arrays `[scorer, prompt, layer, head]` and `chance [scorer, prompt]` as a labelled Dataset."""
    n_heads = sizes(model).n_heads
    starts = (
        prompts.starts().numpy() - int(prompts.bos)
        if prompts.control is not None
        else np.zeros(len(prompts), int)
    )
    names = names_of(layers, range(n_heads))
    texts = [" ".join(text.split())[:80] for text in prompts.text(model)]
    return xr.Dataset(
        {name: (("scorer", "prompt", "layer", "head"), value) for name, value in variables.items()}
        | {"chance": (("scorer", "prompt"), chance)},
        coords={
            "scorer": [scorer.name for scorer in scorers],
            "tested": ("scorer", [scorer.tested for scorer in scorers]),
            "prompt": np.arange(len(prompts)),
            "layer": layers,
            "head": np.arange(n_heads),
            "name": (("layer", "head"), names),
            "text": ("prompt", np.array(texts)),
            "period": ("prompt", starts),
        },
        attrs={
            "method": ", ".join(scorer.name for scorer in scorers),
            "title": "; ".join(scorer.title or scorer.name for scorer in scorers),
            "paper": "; ".join(dict.fromkeys(scorer.paper for scorer in scorers if scorer.paper)),
            "unit": "probability",
            **measured_on(model, prompts),
        },
    )


def chosen_layers(model: Model, layers: Iterable[int] | None) -> list[int]:
    """The layers asked for, in order; all of them for None.

    Raises:
        TypeError: not a list of whole numbers.
        Refused: none, or one that the model does not have.
    """
    n_layers = sizes(model).n_layers
    if layers is not None and (
        isinstance(layers, str)
        or not isinstance(layers, Iterable)
        or not all(map(is_whole, layers := list(layers)))
    ):
        raise TypeError(f"wanted layers as a list of whole numbers, got {layers!r}")
    wanted = sorted(set(range(n_layers) if layers is None else map(int, layers)))
    if not wanted or wanted[0] < 0 or wanted[-1] >= n_layers:
        raise Refused(f"wanted layers from 0 to {n_layers - 1}, got {wanted}")
    return wanted

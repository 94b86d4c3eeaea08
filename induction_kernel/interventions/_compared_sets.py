"""The sets of heads of an ablation curve: the k strongest heads, and random sets from the same layers for each k.

`_ablation` ablates them; a set that is there twice is run once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from .._given import is_whole
from ..errors import NotDefined, Refused
from ..heads._choice import random_sets, top_heads
from ..heads._names import Head, some_heads
from ..model._anatomy import Model, sizes
from ._plan import Cell

__all__ = ["Sets", "cells_of", "checked_heads", "compared_sets", "ranked_heads"]


@dataclass(frozen=True)
class Sets:
    """The heads of an ablation curve.

    Attributes:
        ranked: all heads, strongest first.
        counts: numbers of heads that are ablated together.
        drawn: for each count, the random sets that are compared with it.
        control: "same layer" or "any layer".
        seed: of the draw.
    """

    ranked: list[Head]
    counts: list[int]
    drawn: list[list[list[Head]]]
    control: str
    seed: int

    @property
    def groups(self) -> list[list[Head]]:
        """The sets to ablate: the strongest heads for each count, then all random sets."""
        return [self.ranked[:k] for k in self.counts] + [heads for sets in self.drawn for heads in sets]


def compared_sets(
    model: Model,
    ranked: list[Head],
    ks: Iterable[int] | int | None,
    *,
    controls: int,
    seed: int,
    control: str = "same layer",
) -> Sets:
    """The numbers of heads to ablate together, and the random sets to compare with each.

    Raises:
        Refused: ks that are not whole numbers from 1 to the number of heads.
        NotDefined: a layer with too few other heads.
    """
    if ks is None:
        return _as_many_as_compare(model, ranked, controls=controls, control=control, seed=seed)
    given = list(ks) if isinstance(ks, Iterable) else [ks]
    counts = sorted({int(k) for k in given if is_whole(k)})
    if not counts or len(counts) < len(set(given)) or counts[0] < 1 or counts[-1] > len(ranked):
        raise Refused(f"wanted ks from 1 to {len(ranked)} heads, got {ks!r}")
    options: dict[str, Any] = {"exclude": ranked[: counts[-1]], "seed": seed, "control": control}
    drawn = [random_sets(model, like=ranked[:k], n=controls, **options) for k in counts]
    return Sets(ranked, counts, drawn, control, seed)


def _as_many_as_compare(model: Model, ranked: list[Head], *, controls: int, control: str, seed: int) -> Sets:
    """Sets for k = 1, 2, 4, ... as long as the layers have enough other heads."""
    powers = [2**i for i in range(len(ranked).bit_length())]
    for last in range(len(powers), 1, -1):
        try:
            return compared_sets(model, ranked, powers[:last], controls=controls, control=control, seed=seed)
        except NotDefined:  # a layer has too few other heads
            continue
    return compared_sets(model, ranked, powers[:1], controls=controls, control=control, seed=seed)


def cells_of(groups: Sequence[Sequence[Head]]) -> tuple[list[Cell], list[int]]:
    """A cell for each different set of heads, and for each group the index of its cell: what repeats is run once."""
    places: dict[frozenset[Head], int] = {}
    index = [places.setdefault(frozenset(heads), len(places)) for heads in groups]
    return [_cell(sorted(heads)) for heads in places], index


def _cell(heads: Sequence[Head]) -> Cell:
    layers = {head.layer for head in heads}
    return Cell({layer: tuple(each.head for each in heads if each.layer == layer) for layer in layers})


def ranked_heads(model: Model, scores: Any) -> list[Head]:
    """All heads by score, strongest first; or the heads in the order given."""
    if isinstance(scores, xr.Dataset):
        return top_heads(scores, None)
    ordered = isinstance(scores, Sequence) or hasattr(scores, "tolist") or hasattr(scores, "columns")
    if isinstance(scores, str) or not ordered:
        raise TypeError(f"wanted scores of heads, or heads strongest first, got {type(scores).__name__}")
    given = checked_heads(model, scores)
    if len(given) < len(scores):
        raise Refused(
            f"wanted each head once, got {len(scores)} heads, some of them repeated: pass "
            f"{' '.join(map(str, given))}"
        )
    return given


def checked_heads(model: Model, heads: Any) -> list[Head]:
    """The heads given: at least one, all of which the model has."""
    size = sizes(model)
    return some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)

"""`demonstration_attention`: the last token's attention along the few-shot prompt, averaged over prompts.

Prompts differ in length, so each part is resampled to 30 points before averaging (Han et al. 2025, section 5.1). Parts
are the start (what is before the first demonstration, such as BOS), each demonstration from its first token to the end
of its label, and the query (everything after the last label); separators between demonstrations are in no part. Point p
of a part of n tokens is at position p (n - 1) / (points - 1) in it, with linear interpolation between tokens. Points
are values of the attention at positions; the attention that a whole part gets is its `mass`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
from ..model._self_check import foreign_hooks
from ..prompts._prompts import FewShotPrompts, measured_on
from ..replay._lane_record import Way
from ..scorers._labels import label_attention
from ..scorers._pattern_entries import (
    Entries,
    attends,
    check_sound,
    cost_of,
    read_entries,
    taken,
    way_to_read,
)
from ..scorers._streaming import chosen_layers

__all__ = ["AttentionAlong", "demonstration_attention"]


def demonstration_attention(
    model: Model,
    prompts: Any = None,
    *,
    points: int = 30,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Every head's attention from the last token to the whole prompt, in parts that are resampled to equal length.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts; None for `word_episodes(model)`.
        points: number of points in each part, at least 2.
        layers: only these; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a progress bar if it takes longer than two seconds.

    Returns:
        Dataset over `part` ("start", "1", "2", ... for the demonstrations, "query"): `attention[layer, head, part,
        point]`, a probability in [0, 1], the mean over the `n[part]` prompts that have the part (NaN if none has);
        `mass[layer, head, part]`, the attention summed over the part's tokens, averaged over all prompts (the masses of
        a head sum to 1 less its attention to separators). The coordinate `point` is 0 at a part's first token and 1 at
        its last.

    Raises:
        TypeError: not a model, or not prompts.
        Refused: fewer than 2 points, prompts without demonstrations, attention that is not finite.

    Source: Han et al. 2025, section 5.1.
    """
    if not is_whole(points) or points < 2:
        raise Refused(f"wanted at least 2 points for each part, as a whole number, got {points!r}")
    ready = label_attention.ready(model, prompts)
    wanted = chosen_layers(model, layers)
    along = AttentionAlong(model, ready, points, wanted)
    length, way = ready.tokens.shape[1], way_to_read(model, ready, wanted)
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost_of(model, way.name, length))
    with progress_bar(len(ready), progress=progress, unit="prompt") as bar:
        for rows in parts:
            batch = ready[rows]

            def read(layer: int, values: Tensor, sound: bool, batch: FewShotPrompts = batch) -> None:
                along.add(layer, values, sound, batch)
                bar.update(len(batch) / len(wanted))

            read_entries(model, batch, _last_rows(batch), wanted, read, lane=way.name)
    return along.dataset(way)


class AttentionAlong:
    """The last token's attention along prompts, summed over prompts, batch by batch.

    `demonstration_attention` uses it, and `answered` in `fewshot`, which measures several things in one pass.
    """

    def __init__(self, model: Model, prompts: FewShotPrompts, points: int, layers: list[int]) -> None:
        """Prepare for these prompts; arguments are as in `demonstration_attention`."""
        self.model, self.prompts, self.points, self.layers = model, prompts, points, layers
        self.sites, self.n_prompts = {"pattern": set(layers)}, len(prompts)
        n_parts, n_heads = _parts(prompts).shape[1], sizes(model).n_heads
        self._total = np.zeros((len(layers), n_parts, points, n_heads))
        self._mass = np.zeros((len(layers), n_parts, n_heads))
        self._broken = set[int]()

    def reader(self, batch: FewShotPrompts) -> Callable[[str, int, Tensor], None]:
        """A function that takes every layer's patterns in this batch."""
        entries, edited = _last_rows(batch), bool(foreign_hooks(self.model))

        def read(_: str, layer: int, pattern: Tensor) -> None:
            sound = attends(pattern, batch.lengths, edited=edited)
            self.add(layer, taken(pattern, entries), sound, batch)

        return read

    def add(self, layer: int, values: Tensor, sound: bool, batch: FewShotPrompts) -> None:
        """Add the attention of a batch, `values[entry, head]` at the entries of `_last_rows`."""
        if not sound:
            self._broken.add(layer)
        along, inside = resampled(values.double(), batch, self.points)
        self._total[self.layers.index(layer)] += along.numpy()
        self._mass[self.layers.index(layer)] += inside.numpy()

    def dataset(self, way: Way) -> xr.Dataset:
        """The Dataset that `demonstration_attention` returns; `way` says how attention was read."""
        check_sound(self._broken)
        places, n_heads = _parts(self.prompts), self._mass.shape[2]
        n = (places[..., 1] > places[..., 0]).sum(0).numpy()
        names = names_of(self.layers, range(n_heads))
        with np.errstate(invalid="ignore"):
            mean = self._total.transpose(0, 3, 1, 2) / n[:, None]
        return xr.Dataset(
            {
                "attention": (("layer", "head", "part", "point"), mean),
                "mass": (("layer", "head", "part"), self._mass.transpose(0, 2, 1) / len(self.prompts)),
                "n": ("part", n),
            },
            coords={
                "layer": self.layers,
                "head": np.arange(n_heads),
                "part": ["start", *map(str, range(1, len(n) - 1)), "query"],
                "point": np.linspace(0, 1, self.points),
                "name": (("layer", "head"), names),
            },
            attrs={
                "method": "demonstration_attention",
                "unit": "probability",
                "paper": "Han et al. 2025, section 5.1",
                **way.attrs,
                **measured_on(self.model, self.prompts),
            },
        )


def _parts(prompts: FewShotPrompts) -> Int[Tensor, "prompt part 2"]:
    """First position of the start, of each demonstration and of the query, and one past the last; equal if empty."""
    found = prompts.demonstrations
    spans = torch.where(found.mask[..., None], found.spans, 0)
    first = found.spans[..., 0].masked_fill(~found.mask, prompts.tokens.shape[1]).amin(1)
    start = torch.stack([torch.zeros_like(first), first], -1)
    query = torch.stack([spans[..., 1].amax(1), prompts.lengths], -1)
    return torch.cat([start[:, None], spans, query[:, None]], 1)


def _last_rows(prompts: FewShotPrompts) -> Entries:
    """The entries of the patterns from the last token to every token, prompt after prompt."""
    real = torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None]
    prompt, key = real.nonzero(as_tuple=True)
    return Entries(prompt, (prompts.lengths - 1)[prompt], key)


def resampled(
    values: Float[Tensor, "entry head"], prompts: FewShotPrompts, points: int
) -> tuple[Float[Tensor, "part point head"], Float[Tensor, "part head"]]:
    """The values at `_last_rows` summed over prompts: resampled along each part, and totalled over each part."""
    parts = _parts(prompts)
    lengths = parts[..., 1] - parts[..., 0]
    there = lengths > 0
    slot, lengths = there.nonzero()[:, 1], lengths[there]
    begin = ((prompts.lengths.cumsum(0) - prompts.lengths)[:, None] + parts[..., 0])[there]
    place = torch.arange(points).double() / (points - 1) * (lengths[:, None] - 1)
    lower = place.floor().long()
    share = (place - lower)[..., None]
    upper = torch.minimum(lower + 1, (lengths - 1)[:, None])
    along = (1 - share) * values[begin[:, None] + lower] + share * values[begin[:, None] + upper]
    up_to = torch.cat([values.new_zeros(1, values.shape[1]), values.cumsum(0)])
    inside = up_to[begin + lengths] - up_to[begin]
    return (
        values.new_zeros(parts.shape[1], *along.shape[1:]).index_add_(0, slot, along),
        values.new_zeros(parts.shape[1], values.shape[1]).index_add_(0, slot, inside),
    )

"""Where in the demonstrations does the last token look? Its attention along each of them, averaged over prompts.

Han et al. 2025, section 5.1: demonstrations differ in length, so each is resampled to 30 points before prompts are
averaged. Point p of a demonstration of n tokens lies at p (n - 1) / (points - 1) of its tokens, between which attention
is interpolated linearly: the first point is its first token, the last one the last of its label. Points are values of
the attention, not shares of it: their sum is not the demonstration's mass (`demonstration_weights` pools that).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..errors import Refused
from ..heads import Head
from ..heads.naming import is_whole
from ..model import Model, batches, progress_bar, sizes
from ..prompts import Prompts
from ..prompts.batch import measured_on
from ..scorers.labels import demonstrations_of, entries_of, label_attention
from ..scorers.reading import check_sound, cost_of, read_entries, way_to_read
from ..scorers.streaming import chosen_layers

__all__ = ["demonstration_attention"]


def demonstration_attention(
    model: Model,
    prompts: Any = None,
    *,
    points: int = 30,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The last token's attention along each demonstration, resampled and averaged over prompts, for every head.

    One pass a batch; what is kept of a prompt is added up at once.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts; None for `word_episodes(model)`.
        points: each demonstration is resampled to, at least 2.
        layers: only these.
        batch_size: prompts a forward pass; None to fit the memory.
        progress: a bar where it takes longer than two seconds.

    Returns:
        Dataset with `attention[layer, head, demonstration, point]` (probability, in [0, 1]), the mean over the
        prompts that have the demonstration, and `n[demonstration]`, how many have; coordinates `point`, 0 at a
        demonstration's first token and 1 at its last, and `name[layer, head]`.

    Raises:
        Refused: fewer than 2 points, prompts without demonstrations, attention that is not finite.

    Source: Han et al. 2025, section 5.1.
    """
    if not is_whole(points) or points < 2:
        raise Refused(f"wanted at least 2 points a demonstration, got {points!r}")
    ready = label_attention.ready(model, prompts)
    found, wanted, size = demonstrations_of(ready), chosen_layers(model, layers), sizes(model)
    total = np.zeros((len(wanted), found.mask.shape[1], points, size.n_heads))
    length, way = ready.tokens.shape[1], way_to_read(model, ready, wanted)
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost_of(model, way.name, length))
    broken = set[int]()
    with progress_bar(len(parts) * len(wanted), progress=progress) as bar:
        for rows in parts:
            batch = ready[rows]

            def read(layer: int, values: Tensor, sound: bool, batch: Prompts = batch) -> None:
                if not sound:
                    broken.add(layer)
                total[wanted.index(layer)] += resampled(values, batch, points).numpy()
                bar.update()

            read_entries(model, batch, entries_of(batch, "sum"), wanted, read, lane=way.name)
    check_sound(broken)
    n = found.mask.sum(0).numpy()
    names = np.array([[str(Head(layer, head)) for head in range(size.n_heads)] for layer in wanted])
    with np.errstate(invalid="ignore"):
        mean = total.transpose(0, 3, 1, 2) / n[:, None]
    return xr.Dataset(
        {
            "attention": (("layer", "head", "demonstration", "point"), mean),
            "n": ("demonstration", n),
        },
        coords={
            "layer": wanted,
            "head": np.arange(size.n_heads),
            "demonstration": np.arange(len(n)),
            "point": np.linspace(0, 1, points),
            "name": (("layer", "head"), names),
        },
        attrs={
            "method": "demonstration_attention",
            "unit": "probability",
            "paper": "Han et al. 2025, section 5.1",
            **way.attrs,
            **measured_on(model, ready),
        },
    )


def resampled(
    values: Float[Tensor, "entry head"], prompts: Prompts, points: int
) -> Float[Tensor, "demonstration point head"]:
    """The values at `entries_of`, resampled along each demonstration and summed over prompts, in float64."""
    found = demonstrations_of(prompts)
    slot = found.mask.nonzero()[:, 1]
    lengths = (found.spans[..., 1] - found.spans[..., 0])[found.mask]
    begin = lengths.cumsum(0) - lengths  # entries lie demonstration after demonstration
    place = torch.arange(points).double() / (points - 1) * (lengths[:, None] - 1)
    lower = place.floor().long()
    share = (place - lower)[..., None]
    upper = torch.minimum(lower + 1, (lengths - 1)[:, None])
    values = values.double()
    along = (1 - share) * values[begin[:, None] + lower] + share * values[begin[:, None] + upper]
    return values.new_zeros(found.mask.shape[1], *along.shape[1:]).index_add_(0, slot, along)

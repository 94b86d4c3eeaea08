"""What is lost without heads: each of the model's in turn, those shown, and the strongest together?

The ablations of the report, on as many prompts as the size of the model allows. How they are computed says
`interventions`, how they are worded and drawn `wording` and `page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from .heads._names import Head
from .interventions._ablation import ablate, ablation_curve, shares_lost
from .interventions._engine import sweep
from .metrics._standard import repeat_loss
from .model._anatomy import Model, sizes
from .prompts._prompts import Prompts

__all__ = ["DRAWS", "Removed", "comparable", "removed_from"]

DRAWS = 20  # random sets of other heads, for comparison with the chosen ones
WORK = 8e12  # parameters x tokens that the runs of a figure may take: a minute or two on two cores
FEWEST = 4  # prompts for an ablation, however large the model


@dataclass(frozen=True)
class Removed:
    """What is lost without heads: each in turn, those shown, them together, and the strongest together."""

    every: xr.Dataset  # a sweep: effect[prompt, layer, head]
    single: dict[Head, xr.Dataset]  # share, share_low, share_high
    joint: xr.Dataset  # likewise, with control_share[draw] where there are controls
    curve: xr.Dataset | None
    some: int  # prompts of all but `every`


def removed_from(
    model: Model, held: Prompts, order: list[Head], count: int, seed: int, progress: bool
) -> Removed:
    """Ablations on the shortest of the prompts; `order` has the `count` heads shown first."""
    size, most = sizes(model), comparable(order, sizes(model).n_heads)
    ks = sorted({2**i for i in range(most.bit_length())} | ({count} if count <= most else set()))
    few = _affordable(model, held, size.n_layers * size.n_heads)
    some = _affordable(model, held, len(ks) * (1 + DRAWS))
    every = sweep(model, few, progress=progress)
    alone = every if len(some) == len(few) else sweep(model, some, heads=order[:count], progress=progress)
    without = repeat_loss(model, some)["without"].values
    values = np.stack([alone.sel(layer=head.layer, head=head.head)["value"].values for head in order[:count]])
    shares = shares_lost(values, alone["baseline"].values, without, seed)
    single = [xr.Dataset({key: each[i] for key, each in shares.items()}) for i in range(count)]
    curve = None
    if most:
        curve = ablation_curve(model, some, order, ks=ks, controls=DRAWS, seed=seed, progress=progress)
    if curve is not None and count in ks:
        joint = curve.sel(k=count)
    else:
        joint = ablate(model, some, order[:count], progress=progress)
    return Removed(every, dict(zip(order[:count], single, strict=True)), joint, curve, len(some))


def comparable(order: Sequence[Head], n_heads: int) -> int:
    """The most heads, strongest first, whose layers have as many others."""
    taken: dict[int, int] = {}
    for count, head in enumerate(order):
        taken[head.layer] = taken.get(head.layer, 0) + 1
        if 2 * taken[head.layer] > n_heads:
            return count
    return len(order)


def _affordable(model: Model, prompts: Prompts, cells: int) -> Prompts:
    """As many prompts, shortest first, as so many edited runs can be had on for `WORK`."""
    size = sizes(model)
    weights = 12 * size.n_layers * size.d_model**2 + size.d_model * size.d_vocab
    tokens = prompts.lengths * torch.arange(1, len(prompts) + 1)
    count = max(FEWEST, int((tokens * cells * weights <= WORK).sum()))
    return prompts[:count].narrowed()

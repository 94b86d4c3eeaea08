"""Ablations for the page about a model: every head alone, the heads shown together, and the strongest together.

On as many prompts as the size of the model allows. Where the map of all heads and the curve use the same prompts, all
ablations are one run of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
import torch
import xarray as xr

from ..heads._names import Head
from ..interventions._ablation import curve_of, groups_removed, joint_of
from ..interventions._compared_sets import Sets, compared_sets
from ..interventions._edits_from_runs import Mean
from ..interventions._engine import Found, labelled, sweep
from ..interventions._intervention import Intervention
from ..interventions._plan import planned
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts
from ..stats._ratios import shares_lost

__all__ = ["DRAWS", "Removed", "comparable", "removed_from"]

DRAWS = 20  # random sets of other heads, for comparison with the chosen ones
WORK = 8e12  # parameters x tokens of all runs of a figure, at most: a minute or two on two cores
FEWEST = 4  # prompts of an ablation, at least


@dataclass(frozen=True)
class Removed:
    """Results of the ablations.

    Attributes:
        every: the sweep of all heads, `effect[prompt, layer, head]`.
        single: `share`, `share_low` and `share_high` of each head shown.
        joint: the same of these heads together, with `control_share[draw]` where there are random heads.
        curve: the ablation curve of the strongest heads; None where there are no others to compare with.
        some: number of prompts of all but `every`.
    """

    every: xr.Dataset
    single: dict[Head, xr.Dataset]
    joint: xr.Dataset
    curve: xr.Dataset | None
    some: int


def removed_from(
    model: Model, held: Prompts, order: list[Head], count: int, seed: int, progress: bool
) -> Removed:
    """Run the ablations on the shortest prompts; the first `count` heads of `order` are those shown."""
    size, most, shown = sizes(model), comparable(order, sizes(model).n_heads), order[:count]
    ks = sorted({2**i for i in range(most.bit_length())} | ({count} if count <= most else set()))
    few = _affordable(model, held, size.n_layers * size.n_heads)
    some = _affordable(model, held, len(ks) * (1 + DRAWS))
    sets = compared_sets(model, order, ks, controls=DRAWS, seed=seed) if most else None
    same = len(few) == len(some)
    alone = list(starmap(Head, np.ndindex(size.n_layers, size.n_heads))) if same else shown
    found, curve, joint = _in_one_run(model, some, alone, sets, shown, seed, progress)
    every = _as_sweep(model, some, alone, found) if same else sweep(model, few, progress=progress)
    values = found.values[[alone.index(head) for head in shown]]
    shares = shares_lost(values, found.baseline, found.without, seed)
    single = [xr.Dataset({key: each[i] for key, each in shares.items()}) for i in range(count)]
    return Removed(every, dict(zip(shown, single, strict=True)), joint, curve, len(some))


def comparable(order: Sequence[Head], n_heads: int) -> int:
    """How many heads of `order` can be removed such that their layers still have as many others."""
    taken: dict[int, int] = {}
    for count, head in enumerate(order):
        taken[head.layer] = taken.get(head.layer, 0) + 1
        if 2 * taken[head.layer] > n_heads:
            return count
    return len(order)


def _in_one_run(
    model: Model, prompts: Prompts, alone: list[Head], sets: Sets | None, shown: list[Head], seed: int, progress: bool
) -> tuple[Found, xr.Dataset | None, xr.Dataset]:  # fmt: skip
    """Ablate heads alone, the strongest together where there are others to compare with, and those shown together."""
    of_curve = [] if sets is None else sets.groups
    apart = sets is None or len(shown) not in sets.counts
    groups = [*([head] for head in alone), *of_curve, *([shown] if apart else [])]
    found, attrs = groups_removed(model, prompts, groups, progress=progress)
    first, last = len(alone), len(alone) + len(of_curve)
    curve = None if sets is None else curve_of(model, _part(found, slice(first, last)), sets, attrs)
    if apart or curve is None:
        joint = joint_of(model, _part(found, slice(last, None)), shown, seed, attrs)
    else:
        joint = curve.sel(k=len(shown))
    return _part(found, slice(first)), curve, joint


def _part(found: Found, cells: slice) -> Found:
    return replace(found, values=found.values[cells])


def _as_sweep(model: Model, prompts: Prompts, heads: list[Head], found: Found) -> xr.Dataset:
    """The result of `sweep`, from a run that ablated every head alone, in order."""
    removal = Intervention(Mean(), "z", repeat_loss)
    plan = planned(model, removal, by=("layer", "head"), length=prompts.tokens.shape[1])
    assert [cell.touched for cell in plan.cells] == [{head.layer: (head.head,)} for head in heads]
    return labelled(model, prompts, plan, found, removal)


def _affordable(model: Model, prompts: Prompts, cells: int) -> Prompts:
    """The first prompts (the shortest), as many as `WORK` allows for so many edited runs."""
    size = sizes(model)
    weights = 12 * size.n_layers * size.d_model**2 + size.d_model * size.d_vocab
    tokens = prompts.lengths * torch.arange(1, len(prompts) + 1)
    count = max(FEWEST, int((tokens * cells * weights <= WORK).sum()))
    return prompts[:count].narrowed()

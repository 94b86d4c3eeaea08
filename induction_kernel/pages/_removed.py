"""Ablations for the page about a model: every head alone, the heads shown together, and the strongest together.

Where the map of all heads and the curve use the same prompts, all
ablations are one run of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
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
from ._costs import Amounts

__all__ = ["Removed", "comparable", "removed_from", "with_map"]


@dataclass(frozen=True)
class Removed:
    """Results of the ablations.

    Attributes:
        every: the sweep of all heads, `effect[prompt, layer, head]`; None where it is left out.
        single: `share`, `share_low` and `share_high` of each head shown.
        joint: the same of these heads together, with `control_share[draw]` where there are random heads.
        curve: the ablation curve of the strongest heads; None where there are no others to compare with, or where it
            is left out.
        some: number of prompts of all but `every`.
    """

    every: xr.Dataset | None
    single: dict[Head, xr.Dataset]
    joint: xr.Dataset
    curve: xr.Dataset | None
    some: int


def removed_from(
    model: Model, held: Prompts, order: list[Head], count: int, amounts: Amounts, seed: int, progress: bool
) -> Removed:
    """Run the ablations on the shortest prompts; the first `count` heads of `order` are those shown.

    The map of all heads is part of it only where it is on the same prompts.
    """
    size, most, shown = sizes(model), comparable(order, sizes(model).n_heads), order[:count]
    ks = sorted(
        {2**i for i in range(most.bit_length()) if amounts.curve} | ({count} if count <= most else set())
    )
    some, same = _shortest(held, amounts.some), amounts.some == amounts.every
    sets = compared_sets(model, order, ks, controls=amounts.draws, seed=seed) if ks else None
    alone = list(starmap(Head, np.ndindex(size.n_layers, size.n_heads))) if same else shown
    found, curve, joint = _in_one_run(model, some, alone, sets, shown, seed, progress)
    every = _as_sweep(model, some, alone, found) if same else None
    values = found.values[[alone.index(head) for head in shown]]
    shares = shares_lost(values, found.baseline, found.without, seed)
    single = [xr.Dataset({key: each[i] for key, each in shares.items()}) for i in range(count)]
    return Removed(
        every, dict(zip(shown, single, strict=True)), joint, curve if amounts.curve else None, len(some)
    )


def with_map(
    model: Model, held: Prompts, removed: Removed | None, n_prompts: int, progress: bool
) -> Removed | None:
    """The results with the map of all heads, on the shortest `n_prompts`; as they are if they have it, or are none."""
    if removed is None or removed.every is not None:
        return removed
    return replace(removed, every=sweep(model, _shortest(held, n_prompts), progress=progress))


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


def _shortest(prompts: Prompts, count: int) -> Prompts:
    """The first prompts, which are the shortest."""
    return prompts[:count].narrowed()

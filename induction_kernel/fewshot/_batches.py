"""Batches of few-shot prompts: those with the same demonstrations together, which are then run once.

`_one_pass` runs a batch. The demonstrations are most of a prompt's tokens, so prompts that share them take a third of
the time; see `replay/_shared_prefix`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from ..model._anatomy import Model, sizes
from ..model._runs import batches
from ..prompts._prompts import FewShotPrompts
from ..replay._lane_record import Way, not_used
from ..replay._shared_prefix import why_not_shared
from ..scorers._pattern_entries import cost_of
from ._one_pass import narrowed

__all__ = ["groups_of", "in_batches"]

SHARERS = 4  # fewest prompts whose demonstrations are run once for all


def groups_of(
    model: Model, prompts: FewShotPrompts, todo: np.ndarray, sites: Collection[str]
) -> tuple[list[tuple[np.ndarray, bool]], Way]:
    """The prompts in groups, each with whether all of it have the same demonstrations; and how the groups are run.

    Args:
        model: the model to run.
        prompts: the few-shot prompts.
        todo: indices of those to run.
        sites: the sites that will be read.
    """
    ends = prompts.demonstrations.spans[..., 1].amax(1).tolist()
    alike: dict[tuple[int, ...], list[int]] = {}
    for i in todo.tolist():
        alike.setdefault(tuple(prompts.tokens[i, : ends[i]].tolist()), []).append(i)
    several = [np.array(group) for group in alike.values() if len(group) >= SHARERS]
    if not several:
        why = f"no {SHARERS} prompts to run have the same demonstrations in the same order"
        return [(todo, False)], Way("model", not_used("prefix", why))
    longest = max(several, key=lambda group: int(prompts.lengths[group].max()))
    order = np.argsort(-prompts.lengths[longest].numpy(), kind="stable")
    checked = narrowed(prompts[torch.as_tensor(longest[order])])
    if why := why_not_shared(model, checked.tokens, checked.lengths, sites):
        return [(todo, False)], Way("model", why)
    rest = np.setdiff1d(todo, np.concatenate(several))
    return [*((group, True) for group in several), (rest, False)], Way("prefix")


def in_batches(
    model: Model, prompts: FewShotPrompts, groups: Sequence[tuple[np.ndarray, bool]], batch_size: int | None
) -> Iterator[tuple[np.ndarray, bool]]:
    """Indices of the prompts of each batch, in each group by length and of a size that its longest fits."""
    for group, shared in groups:
        order = group[np.argsort(prompts.lengths[group].numpy(), kind="stable")]
        longest = int(prompts.lengths[order[-1]]) if len(order) else 1
        cost = longest * cost_of(model, "patterns", longest)
        if (
            shared
        ):  # of whole prompts there are only patterns: a set that is cut runs its demonstrations twice
            own = longest - int(prompts.demonstrations.spans[order[-1], :, 1].amax())
            cost = max(longest**2 * sizes(model).n_heads, own * cost_of(model, "entries", own))
        for rows in batches(len(order), 1, batch_size=batch_size, cost=cost):
            yield order[rows], shared

"""The choice of the lane that runs a sweep on a model: a lane is used only if it agrees with whole runs of the model.

A lane is a way of running layers again: from the model's parameters (`Decoder`), or by its own blocks (`Blocks`). For
random edits of random tokens it must give what whole runs with hooks give, and for the longest of the given prompts the
model's own untouched run (`_lane_checks`). The outcome is remembered while the model keeps the same parts. A check that
passed also holds for other models of the same structure (the next checkpoint of a training run, a model loaded again);
one that failed is made again for them, since the cause may be the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..model._anatomy import Model, kept_as_it_was
from ..model._self_check import foreign_hooks, made_of, self_check
from ..model._structure import structure_of
from ..prompts._prompts import Prompts
from ..replay._blocks import Blocks
from ..replay._decoder import Decoder
from ..replay._lane import Lane
from ..replay._lane_record import Way, refused, tried
from ..replay._layers import supports
from ..replay._rows import whole_rows
from ._intervention import Intervention
from ._lane_checks import apart, differs, lane_looseness, untouched

__all__ = ["Chosen", "chosen_lane", "on_batch"]

_REASONS: WeakKeyDictionary[Any, dict[tuple[Any, ...], str]] = WeakKeyDictionary()
"""Model -> check -> why it failed; empty if it passed."""
_NOT_MADE_FOR_IT = (
    "it is made for HookedTransformers with standard decoder blocks, and for Bridges of GPT-2, GPT-J, GPT-NeoX, Llama, "
    "Qwen2 and TransformerLens' own layers (in float64 if attention is too)"
)
_PASSED: set[tuple[Any, ...]] = set()
"""The checks that passed, each with the structure of its model."""


@dataclass(frozen=True)
class Chosen(Way):
    """The lane that was chosen.

    Attributes:
        lane: its class; None for whole runs of the model.
        slower: the lanes that are left if this one is not right on the prompts.
        structure: of the model, told once for each choice.
        length: tokens of the longest prompt on which it has been compared with the model.
    """

    lane: type[Lane] | None = None
    slower: Sequence[type[Lane]] = ()
    structure: str | None = None
    length: int = 0


def chosen_lane(
    model: Model,
    intervention: Intervention,
    *,
    among: Sequence[type[Lane]] = (Decoder, Blocks),
    because: str = "",
    progress: bool = False,
) -> Chosen:
    """The fastest lane that is right on this model; `on_batch` runs it.

    Args:
        model: the model.
        intervention: what will be edited, and what is held fixed.
        among: the lanes to choose from, fastest first.
        because: why still faster lanes are not used.
        progress: a bar if a check takes longer than two seconds.

    Returns:
        The lane, or whole runs if none is right or the user's own hooks are on the model; and why no faster lane.
    """
    if hooks := foreign_hooks(model):
        why = f"there are hooks on {', '.join(hooks[:3])}, which act only in whole runs"
        return Chosen("model", refused(model, None, why, failed=False))
    self_check(model)
    reasons = [because] if because else []
    with kept_as_it_was(model):
        structure = structure_of(model)
        for number, lane in enumerate(among):
            if lane is Decoder and not supports(model):
                why = _NOT_MADE_FOR_IT
                reasons.append(refused(model, lane.name, why, failed=False))
                continue
            key = (lane, intervention.site, intervention.hold)
            why = _known(
                model, structure, key, lambda lane=lane: differs(model, lane, intervention, progress)
            )
            if not why:
                return Chosen(lane.name, " ".join(reasons), lane, among[number + 1 :], structure)
            reasons.append(refused(model, lane.name, why))
    return Chosen("model", " ".join(reasons))


def on_batch(
    model: Model, chosen: Chosen, prompts: Prompts, intervention: Intervention
) -> tuple[Chosen, Lane | None]:
    """The chosen lane, run on these prompts; a slower one, or None for whole runs of the model, if it is not right."""
    if chosen.lane is None:
        return chosen, None
    made: list[Lane] = []
    with kept_as_it_was(model):
        why = tried(lambda: _differs_here(model, chosen, prompts, made))
    if not why:
        length = max(chosen.length, int(prompts.lengths.max()))
        return replace(chosen, length=length), made[0]
    reasons = [chosen.reason, refused(model, chosen.name, why)]
    because = " ".join(each for each in reasons if each)
    made.clear()
    slower = chosen_lane(model, intervention, among=chosen.slower, because=because)
    return on_batch(model, slower, prompts, intervention)


def _known(model: Model, structure: str | None, key: tuple[Any, ...], find: Callable[[], str]) -> str:
    """The outcome of the check `find` under this key: remembered, passed on a model of this structure, or found now."""
    known, of_model = _REASONS.setdefault(model, {}), (*key, made_of(model))
    if of_model not in known:
        of_structure = (*key, structure)
        known[of_model] = "" if of_structure in _PASSED else tried(find)
        if not known[of_model] and structure is not None:
            _PASSED.add(of_structure)
    return known[of_model]


def _differs_here(model: Model, chosen: Chosen, prompts: Prompts, made: list[Lane]) -> str:
    """Why the lane, added to `made`, is not right on these prompts; empty if it gives the untouched run of the longest.

    Prompts that are no longer than some that were compared in the same call are not compared.
    """
    assert chosen.lane is not None
    lane = chosen.lane(model, prompts.tokens, prompts.lengths)
    made.append(lane)
    longest = int(prompts.lengths.argmax())
    tokens = prompts.tokens[longest : longest + 1, : int(prompts.lengths[longest])]
    if tokens.shape[1] > chosen.length:
        key = (chosen.lane, tuple(tokens[0].tolist()), chosen.structure)
        if key not in _PASSED:
            whole = untouched(model, tokens)
            what = f"the last residual stream of the untouched run of {tokens.shape[1]} tokens"
            mine = lane.final[longest : longest + 1, : tokens.shape[1]]
            if why := apart(what, whole, mine, lane_looseness(model)):
                return why
            if chosen.structure is not None:  # else nothing can be remembered of models of this structure
                _PASSED.add(key)
    return _why_not_widened(model, chosen, prompts.tokens, prompts.lengths) if chosen.lane is Blocks else ""


def _why_not_widened(model: Model, chosen: Chosen, tokens: Tensor, lengths: Tensor) -> str:
    """Why a block cannot run this many prompts twice over; its arguments are repeated by what their shapes suggest."""
    tokens = tokens[:, :7]
    padded = bool((lengths < lengths.max()).any())
    lengths = torch.full((len(tokens),), tokens.shape[1])
    lengths[0] -= int(padded and tokens.shape[1] > 1)

    def find() -> str:
        lane = Blocks(model, tokens, lengths)
        twice = lane.resid_pre(0)[None].expand(2, -1, -1, -1)
        both, once = (lane.step(0, whole_rows(rows)).views[0] for rows in (twice, twice[:1]))
        what = f"layer 0 of {len(tokens)} prompts run twice over"
        return apart(what, once.expand_as(both), both, lane_looseness(model))

    return _known(model, chosen.structure, ("widened", len(tokens), padded), find)

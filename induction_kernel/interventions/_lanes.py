"""The choice of the lane that runs a sweep on a model: a lane is used only if it agrees with whole runs of the model.

A lane is a way of running layers again: from the model's parameters (`Decoder`), or by its own blocks (`Blocks`). For
random edits of random tokens it must give the logits of whole runs with hooks, and for the longest of the given prompts
the model's own untouched run. The outcome is remembered while the model keeps the same parts. A check that passed also
holds for other models of the same structure (the next checkpoint of a training run); one that failed is made again for
them, since the cause may be the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..metrics._metric import as_metric, reading_of
from ..model._anatomy import Model, full_precision, kept_as_it_was, sizes
from ..model._runs import progress_bar, stream
from ..model._self_check import foreign_hooks, made_of, self_check
from ..model._structure import structure_of
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..replay._blocks import Blocks
from ..replay._decoder import Decoder
from ..replay._lane import Lane
from ..replay._lane_record import Way, refused, tried
from ..replay._layers import looseness, supports
from ..replay._rows import whole_rows
from ._activations import HEAD_SITES, New
from ._batch import Job, found_by_cell
from ._intervention import Intervention
from ._plan import Cell

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
    """

    lane: type[Lane] | None = None


def chosen_lane(
    model: Model,
    prompts: Prompts,
    intervention: Intervention,
    *,
    among: Sequence[type[Lane]] = (Decoder, Blocks),
) -> Chosen:
    """The fastest lane that is right on this model and on the longest of these prompts.

    Args:
        model: the model.
        prompts: the prompts that will be run.
        intervention: what will be edited, and what is held fixed.
        among: the lanes to choose from, fastest first.

    Returns:
        The lane, or whole runs if none is right or the user's own hooks are on the model; and why no faster lane.
    """
    if hooks := foreign_hooks(model):
        why = f"there are hooks on {', '.join(hooks[:3])}, which act only in whole runs"
        return Chosen("model", refused(model, None, why, failed=False))
    self_check(model)
    reasons = []
    with kept_as_it_was(model):
        for lane in among:
            if lane is Decoder and not supports(model):
                why = _NOT_MADE_FOR_IT
                reasons.append(refused(model, lane.name, why, failed=False))
                continue
            why = _why_not(model, lane, intervention) or _why_not_here(model, lane, prompts)
            if not why:
                return Chosen(lane.name, " ".join(reasons), lane)
            reasons.append(refused(model, lane.name, why))
    return Chosen("model", " ".join(reasons))


def on_batch(model: Model, chosen: Chosen, prompts: Prompts) -> Chosen:
    """The chosen lane, or whole runs if the model's blocks cannot run this batch's number of prompts twice over."""
    if chosen.lane is not Blocks:
        return chosen
    why = _why_not_widened(model, prompts.tokens, prompts.lengths)
    if not why:
        return chosen
    reasons = [chosen.reason, refused(model, Blocks.name, why)]
    return Chosen("model", " ".join(each for each in reasons if each))


def _known(model: Model, key: tuple[Any, ...], find: Callable[[], str]) -> str:
    """The outcome of the check `find` under this key: remembered, passed on a model of this structure, or found now."""
    known, of_model = _REASONS.setdefault(model, {}), (*key, made_of(model))
    if of_model not in known:
        of_structure = (*key, structure_of(model))
        known[of_model] = "" if of_structure in _PASSED else tried(find)
        if not known[of_model] and of_structure[-1] is not None:
            _PASSED.add(of_structure)
    return known[of_model]


def _why_not(model: Model, lane: type[Lane], intervention: Intervention) -> str:
    """Why the lane is not right for edits at this site; empty if it gives the logits of whole runs with hooks."""
    key = (lane, intervention.site, intervention.hold)
    return _known(model, key, lambda: _differs(model, lane, intervention))


def _why_not_here(model: Model, lane: type[Lane], prompts: Prompts) -> str:
    """Why the lane is not right on these prompts; empty if it gives the model's untouched run on the longest."""
    longest = int(prompts.lengths.argmax())
    tokens = prompts.tokens[longest : longest + 1, : int(prompts.lengths[longest])]
    what = f"the last residual stream of the untouched run of {tokens.shape[1]} tokens"

    def find() -> str:
        seen: list[Tensor] = []
        last = {sizes(model).n_layers - 1}
        stream(
            model, tokens, lambda site, layer, resid: seen.append(resid), {"resid_post": last}, lengths=None
        )
        return _apart(what, seen[0], lane(model, tokens, None).final, _loose(model))

    if (structure := structure_of(model)) is None:
        return tried(find)  # the structure of this model has no hash, so nothing can be remembered
    key = (lane, tuple(tokens[0].tolist()), structure)
    why = "" if key in _PASSED else tried(find)
    if not why:
        _PASSED.add(key)
    return why


def _why_not_widened(model: Model, tokens: Tensor, lengths: Tensor) -> str:
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
        return _apart(what, once.expand_as(both), both, _loose(model))

    return _known(model, ("widened", len(tokens), padded), find)


def _loose(model: Model) -> float:
    """Tolerance relative to the largest number; in bfloat16, in which the layers' roundings add up, more than usual.

    Two orders of the same sums were 0.026 apart after 8 and 16 layers, as far as either was from float32.
    """
    return 0.05 if model.W_U.dtype == torch.bfloat16 else looseness(model)


def _apart(what: str, whole: Tensor, mine: Tensor, loose: float) -> str:
    """What differs and by how much; empty if the two agree up to rounding."""
    if whole.shape != mine.shape:
        return f"{what} has shape {list(mine.shape)}, wanted {list(whole.shape)}"
    largest = float(whole.abs().max())
    apart = float((whole - mine).abs().max())
    if apart <= loose * (1 + largest):
        return ""
    return f"{what} differs by {apart:.2g} from whole runs, in which the largest number is {largest:.2g}"


def _differs(model: Model, lane: type[Lane], intervention: Intervention) -> str:
    """How the lane's logits differ from those of whole runs with hooks, for random edits of random tokens, or empty."""
    size, site, generator = sizes(model), intervention.site, torch.Generator().manual_seed(0)
    length, last = min(7, size.n_ctx), size.n_layers - 1
    middle = last // 2  # another layer follows, if there is more than one
    prompts = as_prompts(
        model, torch.randint(size.d_vocab, (2, length), generator=generator), lengths=[length] * 2
    )
    heads = (0,) if site in HEAD_SITES else None
    new = dict.fromkeys(range(size.n_layers), _random(site, length, size, generator))
    one = Cell({middle: heads})
    groups = {
        f"in layer {middle}, two runs in a batch": [one, one],
        f"in layer {last}": [Cell({last: heads})],
        f"in layer {middle} at position {length // 2}": [Cell({middle: heads}, length // 2)],
    }
    for where, cells in groups.items():
        whole, mine = (_logits(model, prompts, cells, new, intervention, of) for of in (None, lane))
        if len(whole) != len(mine):
            return f"an edit of {site} {where} changes logits only in the lane, or only in whole runs"
        for a, b in zip(whole, mine, strict=True):
            if why := _apart(f"a logit with {site} edited {where}", a, b, _loose(model)):
                return why
    return ""


def _logits(
    model: Model,
    prompts: Prompts,
    cells: list[Cell],
    new: dict[int, New],
    intervention: Intervention,
    lane: type[Lane] | None,
) -> list[Tensor]:
    """Logits of the untouched run and of each cell (edited run); a lane runs the cells together."""
    whole = as_metric(lambda logits, _: logits[:, 0, 0])
    job = Job(model, prompts, intervention, new, reading_of(whole, prompts), None, 0)
    with progress_bar(0, progress=False) as bar:
        clean, _, found = found_by_cell(job, cells, lane, len(cells) * prompts.tokens.numel(), bar)
        return [full_precision(each) for each in (clean, *(logits for _, logits in found))]


def _random(site: str, length: int, size: Any, generator: torch.Generator) -> New:
    """A new value at the site: half the activation plus noise; for patterns, uniform attention."""
    if site == "pattern":
        row = torch.ones(length, length).tril()
        return New(0.0, row / row.sum(-1, keepdim=True))
    shape = (length, 1, size.d_head) if site in HEAD_SITES else (length, size.d_model)
    return New(0.5, torch.randn(shape, generator=generator, dtype=torch.float32))

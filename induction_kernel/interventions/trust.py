"""Which way of doing layers again is right on this very model? A lane is used only after it has shown that it is.

On random edits of random tokens it must give the logits of whole hooked runs, and on the longest of the prompts at hand
the model's own untouched run. What was found is remembered for as long as the model is made of the same parts.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..metrics import as_metric, reading
from ..model import Model, foreign_hooks, full_precision, made_of, progress_bar, sizes, stream
from ..prompts import Prompts, as_prompts
from ..replay.blocks import Blocks
from ..replay.decoder import Decoder
from ..replay.layers import looseness, supports
from .edits import HEAD_SITES, New
from .jobs import Hold, Job, run_batch
from .plan import Cell
from .together import Lane

__all__ = ["lane_of", "right_here", "widens"]

_TRUSTED: WeakKeyDictionary[Any, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


def lane_of(model: Model, site: str, hold: Hold) -> type[Lane] | None:
    """The fastest way of doing layers again that is right on this model; None for whole runs."""
    if foreign_hooks(model):
        return None
    known, parts = _TRUSTED.setdefault(model, {}), made_of(model)
    for lane in (Decoder, Blocks) if supports(model) else (Blocks,):
        key = (lane, site, hold, parts)
        if key not in known:
            known[key] = _agrees(model, lane, site, hold)
        if known[key]:
            return lane
    return None


def right_here(model: Model, prompts: Prompts, lane: type[Lane] | None) -> type[Lane] | None:
    """The lane if it gives the model's own untouched run on the longest of these very prompts; else the next."""
    if lane is None:
        return None
    longest = int(prompts.lengths.argmax())
    tokens = prompts.tokens[longest : longest + 1, : int(prompts.lengths[longest])]
    seen: list[Tensor] = []
    last = sizes(model).n_layers - 1
    stream(model, tokens, lambda site, layer, resid: seen.append(resid), {"resid_post": {last}}, lengths=None)
    for each in (lane, Blocks) if lane is Decoder else (lane,):
        apart = (each(model, tokens, None).final - seen[0]).abs()
        if bool((apart <= looseness(model) * (1 + seen[0].abs().max())).all()):
            return each
    return None


def widens(model: Model, tokens: Tensor, lengths: Tensor) -> bool:
    """Whether a block can do as many prompts twice over: what it was given is widened by the shape it has."""
    tokens = tokens[:, :7]
    padded = bool((lengths < lengths.max()).any())
    lengths = torch.full((len(tokens),), tokens.shape[1])
    lengths[0] -= int(padded and tokens.shape[1] > 1)
    known, key = _TRUSTED.setdefault(model, {}), ("widens", len(tokens), padded, made_of(model))
    if key not in known:
        try:
            lane = Blocks(model, tokens, lengths)
            twice = lane.resid_pre(0)[None].expand(2, -1, -1, -1)
            both, once = (lane.step(0, rows, 0) for rows in (twice, twice[:1]))
            known[key] = bool(((both - once).abs() <= looseness(model) * (1 + once.abs().max())).all())
        except (IndexError, RuntimeError, TypeError, ValueError):
            known[key] = False  # whole runs can
    return known[key]


def _agrees(model: Model, lane: type[Lane], site: str, hold: Hold) -> bool:
    """Whether the lane gives the logits of whole hooked runs, on random edits of random tokens."""
    size, generator = sizes(model), torch.Generator().manual_seed(0)
    length, middle = min(7, size.n_ctx), size.n_layers // 2
    prompts = as_prompts(
        model, torch.randint(size.d_vocab, (2, length), generator=generator), lengths=[length] * 2
    )
    heads = (0,) if site in HEAD_SITES else None
    new = dict.fromkeys(range(size.n_layers), _random(site, length, size, generator))
    one = Cell({middle: heads})
    groups = [
        [one, one],
        [Cell({size.n_layers - 1: heads})],
        [Cell({middle: heads}, length // 2)],
    ]  # two widen a batch

    loose = looseness(model)
    try:
        for cells in groups:
            whole, mine = (_logits(model, prompts, cells, new, site, hold, of) for of in (None, lane))
            if len(whole) != len(mine):
                return False  # a cell moves something in one of them alone
            pairs = zip(whole, mine, strict=True)
            if any(bool(((a - b).abs() > loose * (1 + a.abs().max())).any()) for a, b in pairs):
                return False
        return True
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # the lane cannot do this model at all; a whole run can, or says why not


def _logits(
    model: Model, prompts: Prompts, cells: list[Cell], new: dict[int, New], site: str, hold: Hold,
    lane: type[Lane] | None,
) -> list[Tensor]:  # fmt: skip
    """Logits of the untouched run and of each cell's, which a lane runs together."""
    kept: list[Tensor] = []

    def keep(logits: Tensor, _: Prompts) -> Tensor:
        kept.append(full_precision(logits))
        return torch.zeros(len(logits))

    job = Job(model, prompts, new, site, hold, reading(as_metric(keep), prompts), None, 0)
    with progress_bar(0, progress=False) as bar:
        run_batch(job, cells, lane, len(cells) * prompts.tokens.numel(), bar)
    return kept


def _random(site: str, length: int, size: Any, generator: torch.Generator) -> New:
    if site == "pattern":
        row = torch.ones(length, length).tril()
        return New(0.0, row / row.sum(-1, keepdim=True))
    shape = (length, 1, size.d_head) if site in HEAD_SITES else (length, size.d_model)
    return New(0.5, torch.randn(shape, generator=generator))

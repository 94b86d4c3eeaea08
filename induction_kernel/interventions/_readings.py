"""Readings of the final residual stream: the logits or log-probabilities that a metric wants, and no others.

What a metric wants of a batch is a `metrics.Reading`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..metrics import Reading
from ..model._anatomy import full_precision
from ..replay._lane import Lane

__all__ = ["found_in"]

_BLOCK = 128  # rows whose whole logits are had at once


def found_in(
    lane: Lane, rows: Tensor, wanted: Reading, start: int = 0, clean: Tensor | None = None
) -> Iterator[Tensor]:
    """What the metric finds in each cell, `[prompt, read, target]`, on the CPU.

    Args:
        lane: unembeds.
        rows: `[cell, prompt, read, d_model]`, the final stream at the positions read.
        wanted: what is read.
        start: positions before it are those of `clean`.
        clean: what was found in the untouched run.
    """
    fresh = wanted.there & (wanted.positions >= start)
    if bool(fresh.all()):
        yield from _read(lane, rows, wanted, fresh)
        return
    for found in _read(lane, rows, wanted, fresh):
        old = torch.full((), torch.nan, dtype=found.dtype) if clean is None else clean
        kept = torch.where(fresh[..., None], found, old)
        yield kept if wanted.metric.reads is None else kept.masked_fill(~wanted.there[..., None], torch.nan)


def _read(lane: Lane, rows: Tensor, wanted: Reading, fresh: Tensor) -> Iterator[Tensor]:
    if wanted.ids is None:
        for cells in rows.split(max(1, _BLOCK // rows[0, ..., 0].numel())):
            yield from full_precision(lane.logits(cells)).cpu()
        return
    ids = wanted.ids.to(rows.device)
    if not wanted.metric.normalised:
        yield from full_precision(lane.target_logits(rows, ids)).cpu()
        return
    needed = fresh.to(rows.device)
    kept, targets = (
        rows[:, needed][:, :, None],
        ids[needed][:, None],
    )  # [cell, entry, 1, d_model], [entry, 1, target]
    logits = full_precision(lane.target_logits(kept, targets))
    out = logits.new_zeros(len(rows), *ids.shape)
    out[:, needed.to(out.device)] = (logits - lane.log_sum_exp(kept)[..., None])[:, :, 0]
    yield from out.cpu()

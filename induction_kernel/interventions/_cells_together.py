"""Edited runs in one widened batch: each run joins at its first edited layer and is read only where the metric reads.

A widened batch holds the prompts once for each cell (edited run), `[cell, prompt, position, ...]`. A lane runs the
layers again, from the model's parameters or by its own blocks. `_plan` chooses the cells that share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..metrics._metric import Reading
from ..model._anatomy import full_precision
from ..replay._blocks import at_positions
from ..replay._capture import Taps
from ..replay._lane import Lane
from ._changes import changed, new_of, taps_at
from ._widened_batch import NO_ROWS, Rows, WidenedBatch, found_at_the_end, joined, reach_the_end

__all__ = ["found_in", "run_together"]

_BLOCK = 128  # rows whose logits over the whole vocabulary are in memory at once


def run_together(batch: WidenedBatch, group: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Each cell of the group that changes anything, and what the metric reads in it, `[prompt, read, target]`."""
    lane, start = batch.lane, batch.start
    reads = batch.wanted.positions.clamp(min=start).to(lane.final.device)
    fewer = reads.shape[1] < batch.wanted.prompts.tokens.shape[1] - start
    whole = narrow = NO_ROWS
    for layer in range(min(batch.cells[i].first for i in group), lane.n_layers):
        joining = [i for i in group if batch.cells[i].first == layer]
        at = reads if fewer and layer == lane.n_layers - 1 else None
        if joining and reach_the_end(batch, layer, joining):
            yield from found_at_the_end(batch, layer, joining)
            joining = []
        whole, narrow = _layer(batch, layer, whole, narrow, joining, at)
    if whole.ids:
        rows = whole.stream if fewer else at_positions(whole.stream, reads - start)
        found = found_in(lane, rows, batch.wanted, start, batch.clean)
        yield from zip(whole.ids, found, strict=True)


def _layer(
    batch: WidenedBatch, layer: int, whole: Rows, narrow: Rows, joining: list[int], reads: Tensor | None
) -> tuple[Rows, Rows]:
    """The whole and the narrow rows (see `Rows`) after the layer, with the cells that join in it."""
    after = narrow_after = NO_ROWS
    additions = batch.additions(joining) if joining else None
    if additions is not None:
        after, narrow_after = joined(batch, additions, layer, joining, reads)
    elif joining:
        entering = _entering(batch, layer, joining)
        if entering.stream.shape[2] < batch.wanted.prompts.tokens.shape[1] - batch.start:
            narrow += entering
        else:
            whole += entering
    held = batch.lane.pattern(layer) if batch.intervention.hold and (whole.ids or narrow.ids) else None
    if whole.ids:
        after += _stepped(batch, layer, whole, reads, held)
    if narrow.ids:
        stream = batch.lane.step(layer, narrow.stream, batch.start, reads=reads, held=held)
        after += Rows(narrow.ids, stream)
    return after, narrow_after


def _entering(batch: WidenedBatch, layer: int, joining: list[int]) -> Rows:
    """The stream that enters the first edited layer of these cells, from the first position run again.

    It is narrow (see `Rows`) if only one position of the stream before the layer is edited, and then already edited.
    """
    clean, start = batch.lane.resid_pre(layer)[None], batch.start
    one = batch.cells[joining[0]]
    alone = one.position is not None and one.new is None and start < clean.shape[2] - 1
    if batch.site == "resid_pre" and alone and batch.lane.saves_positions:
        here = slice(start, start + 1)
        new = changed(clean[0, :, here], batch.new[layer], batch.site, here, clean.shape[2])
        return Rows(joining, new[None].expand(len(joining), -1, -1, -1))
    return Rows(joining, clean[:, :, start:].expand(len(joining), -1, -1, -1))


def _stepped(batch: WidenedBatch, layer: int, rows: Rows, reads: Tensor | None, held: Tensor | None) -> Rows:
    """Whole rows after the layer, with the edits that cells make in it."""
    lane, site, start = batch.lane, batch.site, batch.start
    cells = [batch.cells[i] for i in rows.ids]
    touching = [cell for cell in cells if layer in cell.touched]
    if not touching:
        return Rows(rows.ids, lane.step(layer, rows.stream, start, reads=reads, held=held))
    in_logs = lane.taps_log_pattern and new_of(touching[0], batch.new, layer).removed is not None
    taps: Taps = taps_at(cells, batch.new, site, layer, start, in_logs=in_logs)
    stream = taps[site](rows.stream) if site == "resid_pre" else rows.stream
    inside = {} if site in ("resid_pre", "resid_post") else taps
    stream = lane.step(layer, stream, start, taps=inside, held=held)
    stream = taps[site](stream) if site == "resid_post" else stream
    return Rows(rows.ids, stream if reads is None else at_positions(stream, reads - start))


def found_in(
    lane: Lane, rows: Tensor, wanted: Reading, start: int = 0, clean: Tensor | None = None
) -> Iterator[Tensor]:
    """What the metric reads in each cell, `[prompt, read, target]`, on the CPU.

    Args:
        lane: the lane that unembeds the rows.
        rows: `[cell, prompt, read, d_model]`, the final stream at the positions read.
        wanted: what is read.
        start: what is read at positions before it is taken from `clean`.
        clean: what is read in the untouched run.
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
    """What is read in each cell, `[prompt, read, target]`; meaningful only where `fresh`."""
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

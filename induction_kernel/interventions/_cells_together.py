"""Edited runs in one widened batch: each run joins at its first edited layer and is read only where the metric reads.

A widened batch holds the prompts once for each cell (edited run), `[cell, prompt, position, ...]`. A lane runs the
layers again, from the model's parameters or by its own blocks. `_plan` chooses the cells that share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..metrics._metric import Reading
from ..model._anatomy import full_precision
from ..replay._capture import Taps
from ..replay._lane import Lane
from ..replay._rows import NO_ROWS, Part, Rows, at_positions
from ._changes import changed, new_of, taps_at
from ._plan import Cell
from ._widened_batch import WidenedBatch, found_at_the_end, joined, reach_the_end

__all__ = ["found_in", "run_together"]

_BLOCK = 128  # rows whose logits over the whole vocabulary are in memory at once


def run_together(batch: WidenedBatch, group: Sequence[int], bar: Any) -> Iterator[tuple[int, Tensor]]:
    """Each cell of the group that changes anything, and what the metric reads in it, `[prompt, read, target]`.

    The bar advances by one per prompt and cell, with each layer by the part of its cells in what all layers run.
    """
    lane, reads = batch.lane, batch.wanted.positions
    layers_run = sum(lane.n_layers - batch.cells[i].first for i in group)
    runs = len(group) * len(batch.wanted.prompts)
    rows = NO_ROWS
    for layer in range(min(batch.cells[i].first for i in group), lane.n_layers):
        joining = [i for i in group if batch.cells[i].first == layer]
        at_the_end = [i for i in joining if reach_the_end(batch, layer, i)]
        if at_the_end:
            yield from found_at_the_end(batch, layer, at_the_end)
            joining = [i for i in joining if i not in at_the_end]
        rows = _layer(batch, layer, rows, joining, reads if layer == lane.n_layers - 1 else None)
        bar.update(runs * sum(batch.cells[i].first <= layer for i in group) / layers_run)
    if rows.parts:
        yield from _found(batch, rows)


def _found(batch: WidenedBatch, rows: Rows) -> Iterator[tuple[int, Tensor]]:
    """Each cell and what the metric reads in it; cells for which the same positions are new are read together."""
    wanted, together = batch.wanted, dict[tuple[bool, ...], tuple[list[Part], list[Tensor]]]()
    for part, view in zip(rows.parts, rows.views, strict=True):
        at = (wanted.positions - part.start).clamp(min=0)
        fresh = tuple((wanted.positions >= part.start).flatten().tolist())
        parts, views = together.setdefault(fresh, ([], []))
        parts.append(part)
        views.append(at_positions(view, at) if view.shape[2] == batch.length - part.start else view)
    for parts, views in together.values():
        ids = [i for part in parts for i in part.ids]
        found = found_in(batch.lane, torch.cat(views), wanted, parts[0].start, batch.clean)
        yield from zip(ids, found, strict=True)


def _layer(batch: WidenedBatch, layer: int, rows: Rows, joining: list[int], reads: Tensor | None) -> Rows:
    """The rows after the layer, with the cells that join in it."""
    adding = [i for i in joining if batch.can_add(i)]
    after = joined(batch, layer, adding, reads) if adding else NO_ROWS
    if len(adding) < len(joining):
        rows += _entering(batch, layer, [i for i in joining if not batch.can_add(i)])
    if not rows.parts:
        return after
    held = batch.lane.pattern(layer) if batch.intervention.hold else None
    taps = [_taps_of(batch, layer, part) for part in rows.parts]
    return batch.lane.step(layer, rows, reads=reads, taps=taps, held=held) + after


def _entering(batch: WidenedBatch, layer: int, joining: list[int]) -> Rows:
    """The stream that enters the first edited layer of these cells, from the first position run again.

    A part is narrow if only one position of the stream before the layer is edited, and then already edited. Cells in
    which that changes nothing are left out.
    """
    clean = batch.lane.resid_pre(layer)
    of_stream = batch.site == "resid_pre" and batch.lane.saves_positions

    def alone(cell: Cell) -> bool:
        return of_stream and cell.position is not None and cell.new is None

    new = clean
    if any(alone(batch.cells[i]) for i in joining):
        new = changed(clean, batch.new[layer], batch.site, slice(0, batch.length), batch.length)
        moved = (new != clean).any(2).any(0).tolist()
        joining = [i for i in joining if moved[batch.starts[i]] or not alone(batch.cells[i])]
    parts, views = batch.parts(joining, alone), []
    for part in parts:
        here = slice(part.start, part.start + part.at.shape[1])
        views.append((new if part.is_narrow else clean)[None, :, here].expand(len(part.ids), -1, -1, -1))
    return Rows.of(parts, len(clean), views) if parts else NO_ROWS


def _taps_of(batch: WidenedBatch, layer: int, part: Part) -> Taps:
    """The edits that cells of a part make in the layer; a narrow part has been edited before."""
    cells = [batch.cells[i] for i in part.ids]
    touching = [cell for cell in cells if layer in cell.touched]
    if part.is_narrow or not touching:
        return {}
    in_logs = batch.lane.taps_log_pattern and new_of(touching[0], batch.new, layer).removed is not None
    return taps_at(cells, batch.new, batch.site, layer, part.start, in_logs=in_logs)


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
    kept = rows[:, needed][:, :, None]  # [cell, entry, 1, d_model]
    logs = lane.log_probabilities(kept, ids[needed][:, None])
    out = logs.new_zeros(len(rows), *ids.shape)
    out[:, needed.to(out.device)] = logs[:, :, 0]
    yield from out.cpu()

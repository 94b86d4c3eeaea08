"""A widened batch (the prompts once for each edited run), and edits whose change is added to the untouched run.

A cell is one edited run. An edit after attention (z, attn_out, resid_mid) only adds to the stream after attention, and
one after the MLP (mlp_out, resid_post) only adds to the layer's output: if the lane, the way of running layers again,
keeps the untouched activations, the layer's attention is not run again. If a single head of the last layer is edited
and no MLP reads it, the final stream changes in only d_head dimensions, and the logits are computed from these. Any
other edit runs its layer again in `_cells_together`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..metrics._metric import Reading
from ..replay._lane import Additions, Lane
from ..replay._rows import NO_ROWS, Part, Rows, at_positions, leaving
from ._activations import New
from ._changes import changed, new_of
from ._intervention import Intervention
from ._plan import Cell

__all__ = ["WidenedBatch", "found_at_the_end", "joined", "reach_the_end"]


@dataclass(frozen=True, eq=False)
class WidenedBatch:
    """Cells that are run together, each from the position on where it may differ from the untouched run.

    Attributes:
        lane: the way of running layers again, from the model's parameters or by its own blocks.
        cells: all cells of the sweep.
        starts: the first position at which each differs (0 if the lane runs whole prompts).
        intervention: what is edited and what is held fixed.
        new: layer -> new value of the activation.
        wanted: what the metric reads.
        clean: what it reads in the untouched run.
    """

    lane: Lane
    cells: Sequence[Cell]
    starts: Sequence[int]
    intervention: Intervention
    new: dict[int, New]
    wanted: Reading
    clean: Tensor

    @property
    def site(self) -> str:
        """The site of the edit."""
        return self.intervention.site

    def heads_of(self, layer: int, ids: Sequence[int]) -> list[list[int]]:
        """The heads that each of these cells edits in a layer."""
        return [list(self.cells[i].touched[layer] or ()) for i in ids]

    @property
    def length(self) -> int:
        """The number of positions."""
        return self.lane.final.shape[1]

    @property
    def additions(self) -> Additions:
        """The lane, whose untouched activations edits are added to: see `can_add`."""
        found = self.lane.additions(self.site)
        assert found is not None, "no edit can be added"
        return found

    def can_add(self, index: int) -> bool:
        """Whether the cell's edit can be added to the untouched stream; if not, its layer must run again."""
        cell = self.cells[index]
        return len(cell.touched) == 1 and self.lane.additions(self.site) is not None

    def parts(self, ids: Sequence[int], narrow: Callable[[Cell], bool]) -> list[Part]:
        """These cells by their start; those that are `narrow` have a row only there, unless it is the last position."""
        found: dict[tuple[int, bool], list[int]] = {}
        for i in ids:
            start = self.starts[i]
            found.setdefault((start, start < self.length - 1 and narrow(self.cells[i])), []).append(i)
        return [
            Part(of_part, start, torch.arange(start, start + 1 if alone else self.length)[None], alone)
            for (start, alone), of_part in found.items()
        ]


def joined(batch: WidenedBatch, layer: int, joining: list[int], reads: Tensor | None) -> Rows:
    """The rows after the layer in which these cells join; cells that change nothing are left out."""
    delta = _added(batch, layer, batch.parts(joining, lambda cell: cell.position is not None))
    if delta.parts and layer == batch.lane.n_layers - 1:
        delta = _that_move(_at_the_end(delta, reads, batch.length))
    return batch.additions.after(layer, batch.site, delta) if delta.parts else NO_ROWS


def _at_the_end(delta: Rows, reads: Tensor | None, length: int) -> Rows:
    """The changes at the positions that leave the last layer."""
    ends = [leaving(part, reads, length) for part in delta.parts]
    views = []
    for part, end, view in zip(delta.parts, ends, delta.views, strict=True):
        at = end.at.to(view.device)
        if part.is_narrow:
            views.append(view * (at == part.start)[None, :, :, None])
        else:
            views.append(
                view if part.at is end.at else at_positions(view, (at - part.start).expand(view.shape[1], -1))
            )
    return Rows.of(ends, delta.n_prompts, views)


def _added(batch: WidenedBatch, layer: int, parts: Sequence[Part]) -> Rows:
    """The cells that change anything, and what each adds to the stream."""
    whole = batch.additions.untouched(layer, batch.site)
    everywhere = slice(0, batch.length)
    moved: dict[
        int, tuple[New, Tensor]
    ] = {}  # by a new value's identity; holding the value keeps that its own
    views = []
    for part in parts:
        alike: dict[int, list[int]] = {}
        for row, i in enumerate(part.ids):
            new = new_of(batch.cells[i], batch.new, layer)
            alike.setdefault(id(new), []).append(row)
            if id(new) not in moved:
                moved[id(new)] = new, changed(whole, new, batch.site, everywhere, batch.length) - whole
        pieces = [
            _written(batch, layer, moved[key][1][:, _span(part)], [part.ids[row] for row in rows])
            for key, rows in alike.items()
        ]
        order = torch.tensor([row for rows in alike.values() for row in rows]).argsort().to(whole.device)
        views.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces)[order])
    return _that_move(Rows.of(parts, len(whole), views))


def _written(batch: WidenedBatch, layer: int, moved: Tensor, ids: Sequence[int]) -> Tensor:
    """What each of these cells adds to the stream, `[cell, prompt, position, d_model]`, if the activation moves so."""
    if batch.site != "z":
        return moved[None].expand(len(ids), -1, -1, -1)
    additions, of_cells = batch.additions, batch.heads_of(layer, ids)
    if all(len(heads) == 1 for heads in of_cells):
        return additions.written_by_heads(layer, moved, [head for heads in of_cells for head in heads])
    return torch.stack([additions.written_by_heads(layer, moved, heads).sum(0) for heads in of_cells])


def _span(part: Part) -> slice:
    """The positions of a part's rows, which are consecutive."""
    return slice(part.start, part.start + part.at.shape[1])


def _that_move(delta: Rows) -> Rows:
    """The cells whose change is not zero, and their changes."""
    moves = (delta.flat != 0).any(1)
    if bool(moves.all()):
        return delta
    parts, views = [], []
    for part, view, of_part in zip(delta.parts, delta.views, delta.with_flat(moves).views, strict=True):
        does = of_part.flatten(1).any(1)
        ids = [i for i, moving in zip(part.ids, does.tolist(), strict=True) if moving]
        if ids:
            parts.append(replace(part, ids=ids))
            views.append(view[does])
    return Rows.of(parts, delta.n_prompts, views) if parts else NO_ROWS


def reach_the_end(batch: WidenedBatch, layer: int, index: int) -> bool:
    """Whether a cell edits a single head whose output the final norm reads, for a metric of log-probabilities."""
    cell = batch.cells[index]
    if not batch.can_add(index) or batch.site != "z" or batch.wanted.ids is None or cell.new is not None:
        return False
    single = len(cell.touched[layer] or ()) == 1
    many = cell.position is None and batch.wanted.metric.normalised
    return single and many and batch.additions.adds_to_the_end(layer)


def found_at_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each of these cells, and what the metric reads in it, `[prompt, read, target]`."""
    additions, wanted, final = batch.additions, batch.wanted, batch.lane.final
    assert wanted.ids is not None  # checked in `reach_the_end`
    needed = (wanted.there & (wanted.positions >= batch.starts[joining[0]])).to(final.device)
    prompt = torch.arange(len(needed), device=needed.device)[:, None].expand(needed.shape)[needed]
    at = wanted.positions.to(needed.device)[needed]
    heads = [head for of_cell in batch.heads_of(layer, joining) for head in of_cell]
    z = additions.untouched(layer, "z")
    moved = (changed(z, batch.new[layer], "z", slice(0, z.shape[1]), z.shape[1]) - z)[prompt, at][:, heads]
    resid, ids = final[prompt, at], wanted.ids.to(needed.device)[needed]
    logs = additions.log_probabilities_of_heads(layer, resid, moved, heads, ids)
    for index, of_cell in zip(joining, logs.cpu(), strict=True):
        found = batch.clean.clone()
        found[needed.cpu()] = of_cell.to(found)
        yield index, found

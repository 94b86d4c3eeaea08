"""A widened batch (the prompts once for each edited run), and edits whose change is added to the untouched run.

A cell is one edited run. An edit after attention (z, attn_out, resid_mid) only adds to the stream after attention, and
one after the MLP (mlp_out, resid_post) only adds to the layer's output: if the lane, the way of running layers again,
keeps the untouched activations, the layer's attention is not run again. If a single head of the last layer is edited
and no MLP reads it, the final stream changes in only d_head dimensions, and the logits are computed from these. Any
other edit runs its layer again in `_cells_together`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics._metric import Reading
from ..replay._blocks import at_positions
from ..replay._lane import Additions, Lane
from ._activations import New
from ._changes import changed
from ._intervention import Intervention
from ._plan import Cell

__all__ = ["NO_ROWS", "Rows", "WidenedBatch", "found_at_the_end", "joined", "reach_the_end"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Cells and their residual stream.

    Whole rows have all positions from the batch's `start` on, `[cell, prompt, position, d_model]`; narrow rows only
    `start`, `[cell, prompt, 1, d_model]`, because they do not differ from the untouched run later.

    Attributes:
        ids: the cells, by index.
        stream: their residual stream.
    """

    ids: list[int]
    stream: Tensor

    def __add__(self, other: Rows) -> Rows:
        if not self.ids or not other.ids:
            return other if not self.ids else self
        return Rows(self.ids + other.ids, torch.cat([self.stream.to(other.stream.device), other.stream]))


NO_ROWS = Rows([], torch.empty(0))


@dataclass(frozen=True, eq=False)
class WidenedBatch:
    """Cells that differ from the untouched run at `start` or later.

    Attributes:
        lane: the way of running layers again, from the model's parameters or by its own blocks.
        cells: all cells of the sweep.
        intervention: what is edited and what is held fixed.
        new: layer -> new value of the activation.
        wanted: what the metric reads.
        clean: what it reads in the untouched run.
        start: the first position run again.
    """

    lane: Lane
    cells: Sequence[Cell]
    intervention: Intervention
    new: dict[int, New]
    wanted: Reading
    clean: Tensor
    start: int

    @property
    def site(self) -> str:
        """The site of the edit."""
        return self.intervention.site

    def heads_of(self, layer: int, ids: Sequence[int]) -> list[list[int]]:
        """The heads that each of these cells edits in a layer."""
        return [list(self.cells[i].touched[layer] or ()) for i in ids]

    def additions(self, ids: Sequence[int]) -> Additions | None:
        """The lane, if these cells' edits can be added to its untouched stream; None if the layer must run again."""
        simple = all(len(self.cells[i].touched) == 1 and self.cells[i].new is None for i in ids)
        return self.lane.additions(self.site) if simple else None


def joined(
    batch: WidenedBatch, additions: Additions, layer: int, joining: list[int], reads: Tensor | None
) -> tuple[Rows, Rows]:
    """Whole and narrow rows after the layer in which these cells join; cells that change nothing are left out."""
    lane, start = batch.lane, batch.start
    length, is_narrow = len(lane.final[0]), batch.cells[joining[0]].position is not None
    here = slice(start, start + 1 if is_narrow else length)
    ids, delta = _added(batch, additions, layer, joining, here)
    place = torch.arange(here.start, here.stop, device=delta.device)
    at = place[None].expand(delta.shape[1], -1)
    if reads is not None:
        at = reads
        at_start = (reads == start)[None, :, :, None]
        delta = delta * at_start if is_narrow else at_positions(delta, reads - start)
        ids, delta = _that_move(ids, delta)
    if not ids:
        return NO_ROWS, NO_ROWS
    if batch.site in ("mlp_out", "resid_post"):
        stream = at_positions(additions.untouched(layer, "resid_post")[None], at) + delta
    else:
        stream = additions.after_attention(layer, delta, at)
    if not is_narrow or reads is not None:
        return Rows(ids, stream), NO_ROWS
    if layer < lane.n_layers - 1:
        return NO_ROWS, Rows(ids, stream)
    untouched = lane.final[None, :, start + 1 :].expand(len(ids), -1, -1, -1)
    return Rows(ids, torch.cat([stream, untouched], 2)), NO_ROWS


def _added(
    batch: WidenedBatch, additions: Additions, layer: int, joining: list[int], here: slice
) -> tuple[list[int], Tensor]:
    """The cells that change anything, and what each adds to the stream, `[cell, prompt, position, d_model]`."""
    whole = additions.untouched(layer, batch.site)
    old = whole[:, here]
    moved = changed(old, batch.new[layer], batch.site, here, whole.shape[1]) - old
    if batch.site != "z":
        return _that_move(joining, moved[None].expand(len(joining), -1, -1, -1))
    heads = batch.heads_of(layer, joining)
    if all(len(each) == 1 for each in heads):
        one_each = [head for each in heads for head in each]
        return _that_move(joining, additions.written_by_heads(layer, moved, one_each))
    added = [additions.written_by_heads(layer, moved, each).sum(0) for each in heads]
    return _that_move(joining, torch.stack(added))


def _that_move(ids: list[int], delta: Tensor) -> tuple[list[int], Tensor]:
    """The cells whose change is not zero, and their changes."""
    moves = (delta != 0).flatten(1).any(1)
    if bool(moves.all()):
        return ids, delta
    return [i for i, does in zip(ids, moves.tolist(), strict=True) if does], delta[moves]


def reach_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> bool:
    """Whether each cell edits a single head whose output the final norm reads, for a metric of log-probabilities."""
    additions = batch.additions(joining)
    if additions is None or batch.site != "z" or batch.wanted.ids is None:
        return False
    single = all(len(heads) == 1 for heads in batch.heads_of(layer, joining))
    many = batch.cells[joining[0]].position is None and batch.wanted.metric.normalised
    return single and many and additions.adds_to_the_end(layer)


def found_at_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each of these cells, and what the metric reads in it, `[prompt, read, target]`."""
    additions, wanted, final = batch.additions(joining), batch.wanted, batch.lane.final
    assert additions is not None and wanted.ids is not None  # noqa: PT018  # checked in `reach_the_end`
    needed = (wanted.there & (wanted.positions >= batch.start)).to(final.device)
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

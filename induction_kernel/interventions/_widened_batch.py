"""A widened batch: cells that differ from the untouched run at one position or later, and edits that are only added.

Behind attention (z, attn_out) what a cell changes is added to what attention wrote; behind the MLP, to the layer's
output: no attention of their own layer is run again, where the lane keeps the untouched activations. Of single heads of
the last layer only d_head numbers change before the final norm, so logits start from those. All else runs in
`_cells_together`.
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
    """Cells and their residual stream, `[cell, prompt, position, d_model]`.

    Whole from the batch's `start` on, or narrow, `[cell, prompt, 1, d_model]`, where only position `start` differs.
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
        lane: does layers again.
        cells: all of them.
        intervention: what is edited and what is held.
        new: layer -> what becomes of the activation there.
        wanted: what the metric reads.
        clean: what it found in the untouched run.
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
        """Where the edit is made."""
        return self.intervention.site

    def heads_of(self, layer: int, ids: Sequence[int]) -> list[list[int]]:
        """The heads that each of these cells edits in a layer."""
        return [list(self.cells[i].touched[layer] or ()) for i in ids]

    def additions(self, ids: Sequence[int]) -> Additions | None:
        """How the edits of these cells are added to the untouched stream; None where their layers are done again."""
        simple = all(len(self.cells[i].touched) == 1 and self.cells[i].new is None for i in ids)
        return self.lane.additions(self.site) if simple else None


def joined(
    batch: WidenedBatch, additions: Additions, layer: int, joining: list[int], reads: Tensor | None
) -> tuple[Rows, Rows]:
    """Whole and narrow rows after the layer, of the cells that change anything."""
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
    """The cells that change anything and what they add, `[cell, prompt, position, d_model]`."""
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
    moves = (delta != 0).flatten(1).any(1)
    if bool(moves.all()):
        return ids, delta
    return [i for i, does in zip(ids, moves.tolist(), strict=True) if does], delta[moves]


def reach_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> bool:
    """Whether these are single heads whose output the final norm reads, and every word's probability is wanted."""
    additions = batch.additions(joining)
    if additions is None or batch.site != "z" or batch.wanted.ids is None:
        return False
    single = all(len(heads) == 1 for heads in batch.heads_of(layer, joining))
    many = batch.cells[joining[0]].position is None and batch.wanted.metric.normalised
    return single and many and additions.adds_to_the_end(layer)


def found_at_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each of these cells and what the metric finds in it, `[prompt, read, target]`."""
    additions, wanted, final = batch.additions(joining), batch.wanted, batch.lane.final
    assert additions is not None and wanted.ids is not None  # noqa: PT018  # `reach_the_end` looked
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

"""Cells whose edit is added to the untouched stream: no attention of their own layer is run again.

Behind attention (z, attn_out) what a cell changes is added to what attention wrote; behind the MLP, to the layer's
output. A lane that keeps the untouched activations can do that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay._blocks import at_positions
from ..replay._lane import Additions
from ._changes import changed
from ._widened_batch import NO_ROWS, Rows, WidenedBatch

__all__ = ["joined"]


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

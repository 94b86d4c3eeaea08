"""How do many runs share one batch? Cells join as their layer comes and are read where the metric reads.

Everything here is of one batch of prompts and one lane (`replay`); positions before `start` are those of the
untouched run. Which cells run together says `_plan`; what a sweep is, `_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Refused
from ..metrics import Reading
from ..model._anatomy import full_precision
from ..replay._blocks import Blocks, at_positions
from ..replay._capture import Taps
from ..replay._decoder import Decoder
from ._edits import New
from ._plan import Cell

__all__ = ["Lane", "Together", "found_in", "tap"]

Lane = Blocks | Decoder

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}  # by which a row may miss 1; a Bridge's is of float32
_BLOCK = 128  # rows whose whole logits are had at once


@dataclass(frozen=True, eq=False)
class _Rows:
    """Cells and their residual stream, `[cell, prompt, position, d_model]`."""

    ids: list[int]
    stream: Tensor

    def __add__(self, other: _Rows) -> _Rows:
        if not self.ids or not other.ids:
            return other if not self.ids else self
        return _Rows(self.ids + other.ids, torch.cat([self.stream.to(other.stream.device), other.stream]))


_NONE = _Rows([], torch.empty(0))


@dataclass(frozen=True, eq=False)
class Together:
    """Cells that differ from the untouched run at `start` or later.

    Rows are whole, `[cell, prompt, position >= start, d_model]`, or narrow, `[cell, prompt, 1, d_model]`, where only
    position `start` differs.

    Attributes:
        lane: does layers again.
        cells: all of them.
        new: layer -> what becomes of `site` there.
        site: what is edited.
        hold: whether patterns are held.
        wanted: what the metric reads.
        clean: what it found in the untouched run.
        start: the first position run again.
    """

    lane: Lane
    cells: Sequence[Cell]
    new: dict[int, New]
    site: str
    hold: bool
    wanted: Reading
    clean: Tensor
    start: int

    def run(self, group: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Each cell of the group that changes anything, with what the metric found, `[prompt, read, target]`."""
        n_layers, after = self.lane.n_layers, self.wanted.prompts.tokens.shape[1] - self.start
        reads = self.wanted.positions.clamp(min=self.start).to(self.lane.final.device)
        fewer = reads.shape[1] < after
        whole = narrow = _NONE
        for layer in range(min(self.cells[i].first for i in group), n_layers):
            joining = [i for i in group if self.cells[i].first == layer]
            at = reads if fewer and layer == n_layers - 1 else None
            if self._reaches_the_end(layer, joining):
                yield from self._found_at_the_end(layer, joining)
                joining = []
            whole, narrow = self._layer(layer, whole, narrow, joining, at)
        if whole.ids:
            rows = whole.stream if fewer else at_positions(whole.stream, reads - self.start)
            found = found_in(self.lane, rows, self.wanted, self.start, self.clean)
            yield from zip(whole.ids, found, strict=True)

    def _layer(
        self, layer: int, whole: _Rows, narrow: _Rows, joining: list[int], reads: Tensor | None
    ) -> tuple[_Rows, _Rows]:
        after = narrow_after = _NONE
        if joining and self._joins_after(joining):
            after, narrow_after = self._joined(layer, joining, reads)
        elif joining:
            entering = self._entering(layer, joining)
            if entering.stream.shape[2] < self.wanted.prompts.tokens.shape[1] - self.start:
                narrow += entering
            else:
                whole += entering
        held = self.lane.pattern(layer) if self.hold and (whole.ids or narrow.ids) else None
        if whole.ids:
            after += self._stepped(layer, whole, reads, held)
        if narrow.ids:
            stream = self.lane.step(layer, narrow.stream, self.start, reads=reads, held=held)
            after += _Rows(narrow.ids, stream)
        return after, narrow_after

    def _reaches_the_end(self, layer: int, joining: list[int]) -> bool:
        """Whether these are single heads whose output the final norm reads, and every word's probability is wanted."""
        if not (joining and self.site == "z" and self._joins_after(joining) and self.wanted.ids is not None):
            return False
        assert isinstance(self.lane, Decoder)  # `_joins_after` looked
        single = all(len(self.cells[i].touched[layer] or ()) == 1 for i in joining)
        many = self.cells[joining[0]].position is None and self.wanted.metric.normalised
        return single and many and self.lane.adds_to_the_end(layer)

    def _found_at_the_end(self, layer: int, joining: list[int]) -> Iterator[tuple[int, Tensor]]:
        assert isinstance(self.lane, Decoder)  # `_joins_after` looked
        assert self.wanted.ids is not None  # `_reaches_the_end` looked
        needed = (self.wanted.there & (self.wanted.positions >= self.start)).to(self.lane.final.device)
        prompt = torch.arange(len(needed), device=needed.device)[:, None].expand(needed.shape)[needed]
        at = self.wanted.positions.to(needed.device)[needed]
        heads = [head for i in joining for head in self.cells[i].touched[layer] or ()]
        z = self.lane.untouched(layer, "z")
        moved = (_changed(z, self.new[layer], "z", slice(0, z.shape[1]), z.shape[1]) - z)[prompt, at][
            :, heads
        ]
        resid, ids = self.lane.final[prompt, at], self.wanted.ids.to(needed.device)[needed]
        logs = self.lane.log_probabilities_of_heads(layer, resid, moved, heads, ids)
        for index, of_cell in zip(joining, logs.cpu(), strict=True):
            found = self.clean.clone()
            found[needed.cpu()] = of_cell.to(found)
            yield index, found

    def _joins_after(self, joining: list[int]) -> bool:
        """Whether these cells join behind the layer's attention, or behind the layer."""
        if any(len(self.cells[i].touched) > 1 or self.cells[i].new is not None for i in joining):
            return False
        return isinstance(self.lane, Decoder) and self.site in (
            "z", "attn_out", "resid_mid", "mlp_out", "resid_post",
        )  # fmt: skip

    def _entering(self, layer: int, joining: list[int]) -> _Rows:
        """Cells whose edit is in or before the layer."""
        clean = self.lane.resid_pre(layer)[None]
        one = self.cells[joining[0]]
        alone = one.position is not None and one.new is None and self.start < clean.shape[2] - 1
        if self.site == "resid_pre" and alone and self.lane.saves_positions:
            here = slice(self.start, self.start + 1)
            new = _changed(clean[0, :, here], self.new[layer], self.site, here, clean.shape[2])
            return _Rows(joining, new[None].expand(len(joining), -1, -1, -1))
        return _Rows(joining, clean[:, :, self.start :].expand(len(joining), -1, -1, -1))

    def _stepped(self, layer: int, rows: _Rows, reads: Tensor | None, held: Tensor | None) -> _Rows:
        """Whole rows after the layer, with the edits of the cells that touch it."""
        if not any(layer in self.cells[i].touched for i in rows.ids):
            return _Rows(rows.ids, self.lane.step(layer, rows.stream, self.start, reads=reads, held=held))
        cells = [self.cells[i] for i in rows.ids]
        in_logs = isinstance(self.lane, Decoder) and self.new[layer].removed is not None
        change = tap(cells, self.new, self.site, layer, self.start, in_logs=in_logs)
        stream = change(rows.stream) if self.site == "resid_pre" else rows.stream
        inside = "log_pattern" if in_logs else self.site
        taps: Taps = {} if self.site in ("resid_pre", "resid_post") else {inside: change}
        stream = self.lane.step(layer, stream, self.start, taps=taps, held=held)
        stream = change(stream) if self.site == "resid_post" else stream
        return _Rows(rows.ids, stream if reads is None else at_positions(stream, reads - self.start))

    def _joined(self, layer: int, joining: list[int], reads: Tensor | None) -> tuple[_Rows, _Rows]:
        """Whole and narrow rows after the layer, of cells that change what is added to the untouched stream."""
        length, is_narrow = len(self.lane.final[0]), self.cells[joining[0]].position is not None
        here = slice(self.start, self.start + 1 if is_narrow else length)
        ids, delta = self._added(layer, joining, here)
        place = torch.arange(here.start, here.stop, device=delta.device)
        at = place[None].expand(delta.shape[1], -1)
        if reads is not None:
            at = reads
            at_start = (reads == self.start)[None, :, :, None]
            delta = delta * at_start if is_narrow else at_positions(delta, reads - self.start)
            ids, delta = _that_move(ids, delta)
        if not ids:
            return _NONE, _NONE
        assert isinstance(self.lane, Decoder)  # `_joins_after` looked
        if self.site in ("mlp_out", "resid_post"):
            stream = at_positions(self.lane.untouched(layer, "resid_post")[None], at) + delta
        else:
            stream = self.lane.after_attention(layer, delta, at)
        if not is_narrow or reads is not None:
            return _Rows(ids, stream), _NONE
        if layer < self.lane.n_layers - 1:
            return _NONE, _Rows(ids, stream)
        untouched = self.lane.final[None, :, self.start + 1 :].expand(len(ids), -1, -1, -1)
        return _Rows(ids, torch.cat([stream, untouched], 2)), _NONE

    def _added(self, layer: int, joining: list[int], here: slice) -> tuple[list[int], Tensor]:
        """The cells that change anything and what they add, `[cell, prompt, position, d_model]`."""
        assert isinstance(self.lane, Decoder)  # `_joins_after` looked
        whole = self.lane.untouched(layer, self.site)
        old = whole[:, here]
        moved = _changed(old, self.new[layer], self.site, here, whole.shape[1]) - old
        if self.site != "z":
            return _that_move(joining, moved[None].expand(len(joining), -1, -1, -1))
        heads = [list(self.cells[i].touched[layer] or ()) for i in joining]
        if all(len(each) == 1 for each in heads):
            one_each = [head for each in heads for head in each]
            return _that_move(joining, self.lane.written_by_heads(layer, moved, one_each))
        added = [self.lane.written_by_heads(layer, moved, each).sum(0) for each in heads]
        return _that_move(joining, torch.stack(added))


def _that_move(ids: list[int], delta: Tensor) -> tuple[list[int], Tensor]:
    moves = (delta != 0).flatten(1).any(1)
    if bool(moves.all()):
        return ids, delta
    return [i for i, does in zip(ids, moves.tolist(), strict=True) if does], delta[moves]


def tap(
    cells: Sequence[Cell], new: dict[int, New], site: str, layer: int, start: int, *, in_logs: bool = False
) -> Callable[[Tensor], Tensor]:
    """What these cells do to the activation of a layer, `[cell, prompt, position >= start, ...]`.

    With `in_logs` it is the logarithm of a pattern: there a knock-out leaves what softmax would have rounded away.
    """

    def change(activation: Tensor) -> Tensor:
        out = activation.clone()
        for row, cell in enumerate(cells):
            if layer not in cell.touched:
                continue
            of_cell = (new if cell.new is None else cell.new)[layer]
            positions = out.shape[3 if site == "pattern" else 2]
            here = slice(start, start + positions)
            where = slice(0, positions)
            if cell.position is not None:
                here, where = (
                    slice(cell.position, cell.position + 1),
                    slice(cell.position - start, cell.position - start + 1),
                )
            length = out.shape[4] if site == "pattern" else start + positions
            heads = cell.touched[layer]
            if site == "pattern":
                assert heads is not None
                before = activation[row, :, :, where]
                part = _changed(before, of_cell, site, here, length, in_logs=in_logs)[:, list(heads)]
                _check_left(before[:, list(heads)], part, layer, here.start)
                out[row][:, list(heads), where] = part
            elif heads is None:
                out[row][:, where] = _changed(activation[row, :, where], of_cell, site, here, length)
            else:
                part = _changed(activation[row, :, where], of_cell, site, here, length)
                out[row][:, where, list(heads)] = part[:, :, list(heads)]
        return out

    return change


def _changed(old: Tensor, new: New, site: str, here: slice, length: int, *, in_logs: bool = False) -> Tensor:
    """`scale * old + value` at positions `here` of `length`; a pattern's knocked-out entries taken away."""
    dim = 2 if site == "pattern" else 1
    shape = [*old.shape[:dim], length, *old.shape[dim + 1 :]]

    def part(value: Tensor) -> Tensor:
        return value.expand(shape).narrow(dim, here.start, old.shape[dim])

    if new.removed is not None:
        removed = part(new.removed.to(old.device))
        if in_logs:
            return old.masked_fill(removed, -torch.inf).log_softmax(-1)
        left = old.masked_fill(removed, 0)
        # An attention sink, where a model has one, takes part in the softmax and is no key of the row.
        sink = 1 - full_precision(old).sum(-1, keepdim=True)
        sink = torch.where(sink > _ROUNDING.get(old.dtype, 5e-3), sink, 0).to(left)
        return left / (left.sum(-1, keepdim=True) + sink)
    value = part(new.value.to(old))
    return value if new.scale == 0 else new.scale * old + value


def _check_left(old: Tensor, new: Tensor, layer: int, first: int) -> None:
    """Refused where a query of `[prompt, head, query >= first, key]` has lost all it attended to.

    Its past is not all that it can see where a layer has a window, which only the run itself shows.
    """
    nothing = (new.isnan() & ~old.isnan()).any(-1)
    if bool(nothing.any()):
        raise Refused(
            f"query {first + int(nothing.nonzero()[0, 2])} would be left with nothing to attend to in layer {layer}: "
            "all it sees there (of a local layer only a window) is knocked out; keep a key within the window"
        )


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

"""Edits made on an activation of one layer: `scale * old + value` in each cell, and knock-out in a pattern.

A cell is one edited run. A tap is a function that gets an activation and returns its replacement; those made here are
used in widened batches (the prompts once for each cell) and in whole runs. `_edits` computes the new values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import full_precision
from ._activations import New
from ._plan import Cell

__all__ = ["changed", "new_of", "tap", "taps_at"]

_ROUNDING = {
    torch.float64: 1e-6,
    torch.float32: 1e-5,
}  # how far a row's sum may be from 1; a Bridge's softmax may be float32


def taps_at(
    cells: Sequence[Cell], new: Mapping[int, New], site: str, layer: int, start: int, *, in_logs: bool = False
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The taps of these cells in a layer: `tap` at the site, and at z one that adds `New.instead` if there is any."""
    change = tap(cells, new, site, layer, start, in_logs=in_logs)
    here = {row: cell for row, cell in enumerate(cells) if layer in cell.touched}
    instead = {row: new_of(cell, new, layer).instead for row, cell in here.items()}
    instead = {row: value for row, value in instead.items() if value is not None}
    if not instead:
        return {"log_pattern" if in_logs else site: change}
    gone: list[Tensor] = []

    def on_pattern(pattern: Tensor) -> Tensor:
        after = change(pattern)
        gone.append((pattern - after).sum(-1).transpose(2, 3)[..., None])  # [cell, prompt, query, head, 1]
        return after

    def on_z(z: Tensor) -> Tensor:
        given = z.new_zeros(len(z), 1, 1, *z.shape[3:])
        for row, value in instead.items():
            given[row] = value.to(z)
        return z + gone[-1] * given

    return {site: on_pattern, "z": on_z}


def tap(
    cells: Sequence[Cell], new: Mapping[int, New], site: str, layer: int, start: int, *, in_logs: bool = False
) -> Callable[[Tensor], Tensor]:
    """A tap that makes these cells' edits on the activation of a layer, `[cell, prompt, position >= start, ...]`.

    With `in_logs` the activation is the logarithm of a pattern: a knock-out then keeps entries that the softmax rounds
    to 0.
    """

    def change(activation: Tensor) -> Tensor:
        out = activation.clone()
        for row, cell in enumerate(cells):
            if layer not in cell.touched:
                continue
            of_cell = new_of(cell, new, layer)
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
                part = changed(before, of_cell, site, here, length, in_logs=in_logs)[:, list(heads)]
                _check_left(before[:, list(heads)], part, layer, here.start)
                out[row][:, list(heads), where] = part
            elif heads is None:
                out[row][:, where] = changed(activation[row, :, where], of_cell, site, here, length)
            else:
                part = changed(activation[row, :, where], of_cell, site, here, length)
                out[row][:, where, list(heads)] = part[:, :, list(heads)]
        return out

    return change


def new_of(cell: Cell, new: Mapping[int, New], layer: int) -> New:
    """The new value of a layer's activation in this cell: the cell's own, or the sweep's."""
    return (new if cell.new is None else cell.new)[layer]


def changed(old: Tensor, new: New, site: str, here: slice, length: int, *, in_logs: bool = False) -> Tensor:
    """`scale * old + value` at positions `here` of `length`; or a pattern without its knocked-out entries."""
    dim = 2 if site == "pattern" else 1
    shape = [*old.shape[:dim], length, *old.shape[dim + 1 :]]

    def part(value: Tensor) -> Tensor:
        return value.expand(shape).narrow(dim, here.start, old.shape[dim])

    if new.removed is not None:
        removed = part(new.removed.to(old.device))
        if in_logs:
            return old.masked_fill(removed, -torch.inf).log_softmax(-1)
        left = old.masked_fill(removed, 0)
        # An attention sink, if the model has one, takes part in the softmax but is not a key of the row.
        sink = 1 - full_precision(old).sum(-1, keepdim=True)
        sink = torch.where(sink > _ROUNDING.get(old.dtype, 5e-3), sink, 0).to(left)
        return left / (left.sum(-1, keepdim=True) + sink)
    value = part(new.value.to(old))
    if isinstance(new.scale, Tensor):
        return part(new.scale.to(old.dtype).to(old.device)) * old + value  # float64 is not on every device
    return value if new.scale == 0 else new.scale * old + value


def _check_left(old: Tensor, new: Tensor, layer: int, first: int) -> None:
    """Raise Refused if a query of `[prompt, head, query >= first, key]` has nothing left to attend to.

    In a layer with a sliding window a query attends to a part of its past only, which the run itself shows.
    """
    nothing = (new.isnan() & ~old.isnan()).any(-1)
    if bool(nothing.any()):
        raise Refused(
            f"query {first + int(nothing.nonzero()[0, 2])} would be left with nothing to attend to in layer {layer}: "
            "every key it can attend to there (in a local layer, those in its window) is knocked out; keep one of them"
        )

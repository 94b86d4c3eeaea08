"""Changes of activations: what the edits of cells make of the activation of one layer, and knock-out in a pattern.

Taps for widened batches and for whole runs alike; what the new values are say `_edits`.
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

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}  # by which a row may miss 1; a Bridge's is of float32


def taps_at(
    cells: Sequence[Cell], new: Mapping[int, New], site: str, layer: int, start: int, *, in_logs: bool = False
) -> dict[str, Callable[[Tensor], Tensor]]:
    """All that these cells do in a layer: `tap` at the site, and at z what stands in for attention taken away."""
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
    """What these cells do to the activation of a layer, `[cell, prompt, position >= start, ...]`.

    With `in_logs` it is the logarithm of a pattern: there a knock-out leaves what softmax would have rounded away.
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
    """What becomes of a layer's activation in this cell: its own new value, or the sweep's."""
    return (new if cell.new is None else cell.new)[layer]


def changed(old: Tensor, new: New, site: str, here: slice, length: int, *, in_logs: bool = False) -> Tensor:
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
    if isinstance(new.scale, Tensor):
        return part(new.scale.to(old.dtype).to(old.device)) * old + value  # float64 is not on every device
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

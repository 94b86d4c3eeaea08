"""A widened batch: the cells of one batch of prompts that differ from its untouched run at one position or later.

Data alone: `_cells_together` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics import Reading
from ..replay._lane import Additions, Lane
from ._activations import New
from ._intervention import Intervention
from ._plan import Cell

__all__ = ["NO_ROWS", "Rows", "WidenedBatch"]


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

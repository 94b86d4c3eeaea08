"""Rows: the residual stream of many edited runs in one batch, each only from the position on where it may differ.

A cell is one edited run. Cells that start at the same position are a part; the rows of all parts lie in one tensor, so
that everything that acts on single positions (norms, projections, MLPs) reads a layer's weights once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ._capture import Taps

__all__ = [
    "NO_ROWS",
    "Part",
    "Rows",
    "at_positions",
    "each_tapped",
    "leaving",
    "own",
    "rows_at",
    "tapped",
    "untouched_at",
    "whole_rows",
]


@dataclass(frozen=True, eq=False)
class Part:
    """Cells that differ from the untouched run from one position on.

    Attributes:
        ids: the cells, by index.
        start: the first position at which they differ.
        at: `[1 or prompt, position]`, the positions of their rows: all from `start` on; or those that are read; or only
            `start`, if they do not differ later (see `is_narrow`).
        is_narrow: whether there is a row only for `start`, though the prompts go on.
    """

    ids: list[int]
    start: int
    at: Tensor
    is_narrow: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """The residual stream of cells, or an activation made of it.

    Attributes:
        parts: the cells and their positions.
        n_prompts: the number of prompts.
        flat: `[row, ...]`: the parts one after another, each by cell, prompt and position.
    """

    parts: Sequence[Part]
    n_prompts: int
    flat: Tensor

    @property
    def views(self) -> list[Tensor]:
        """The rows of each part, `[cell, prompt, position, ...]`."""
        sizes = [len(part.ids) * self.n_prompts * part.at.shape[1] for part in self.parts]
        pieces = self.flat.split(sizes)
        return [
            piece.unflatten(0, (len(part.ids), self.n_prompts, part.at.shape[1]))
            for piece, part in zip(pieces, self.parts, strict=True)
        ]

    @property
    def positions(self) -> Tensor:
        """The position of each row, `[row]`."""
        each = [part.at.expand(len(part.ids), self.n_prompts, -1).flatten() for part in self.parts]
        return each[0] if len(each) == 1 else torch.cat(each)

    @classmethod
    def of(cls, parts: Sequence[Part], n_prompts: int, views: Sequence[Tensor]) -> Self:
        """The rows of these parts, each `[cell, prompt, position, ...]`."""
        return cls(parts, n_prompts, flat_of(views))

    def with_flat(self, flat: Tensor) -> Rows:
        """Rows of the same cells and positions with these numbers."""
        return Rows(self.parts, self.n_prompts, flat)

    def on(self, device: torch.device) -> Rows:
        """The rows on this device."""
        return self.with_flat(self.flat.to(device))

    def __add__(self, other: Rows) -> Rows:
        """The cells of both; those that start at the same position make one part."""
        if not self.parts or not other.parts:
            return other if not self.parts else self
        found: dict[tuple[int, bool], tuple[list[Part], list[Tensor]]] = {}
        for rows in (self, other):
            for part, view in zip(rows.parts, rows.views, strict=True):
                parts, views = found.setdefault((part.start, part.is_narrow), ([], []))
                parts.append(part)
                views.append(view.to(other.flat.device))
        merged = [
            Part([i for part in parts for i in part.ids], parts[0].start, parts[0].at, parts[0].is_narrow)
            for parts, _ in found.values()
        ]
        return Rows.of(merged, self.n_prompts, [view for _, views in found.values() for view in views])


NO_ROWS = Rows((), 0, torch.empty(0))


def whole_rows(stream: Tensor) -> Rows:
    """Rows of cells that differ from the first position on, from `stream [cell, prompt, position, d_model]`."""
    part = Part(list(range(len(stream))), 0, torch.arange(stream.shape[2])[None])
    return Rows.of([part], stream.shape[1], [stream])


def flat_of(views: Sequence[Tensor]) -> Tensor:
    """`[row, ...]` of parts `[cell, prompt, position, ...]`; without a copy if there is a single one in order."""
    flat = [view.flatten(0, 2) for view in views]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def at_positions(rows: Tensor, positions: Tensor) -> Tensor:
    """`rows [cell, prompt, position, ...]` at `positions [prompt, read]`."""
    prompt = torch.arange(rows.shape[1], device=rows.device)[:, None]
    return rows[:, prompt, positions.to(rows.device)]


def leaving(part: Part, reads: Tensor | None, length: int) -> Part:
    """The part after a layer: all positions from its start on, or those that are read if they are fewer."""
    after = length - part.start
    if reads is not None and reads.shape[1] < after:
        return Part(part.ids, part.start, reads.clamp(min=part.start))
    return Part(part.ids, part.start, torch.arange(part.start, length)[None]) if part.is_narrow else part


def own(part: Part, end: Part) -> Part:
    """The part at those of its own rows that leave a layer at the positions of `end`: a narrow part has one or none."""
    if not part.is_narrow:
        return end
    return Part(part.ids, part.start, part.at if int(end.at[0, 0]) == part.start else part.at[:, :0])


def rows_at(rows: Rows, parts: Sequence[Part]) -> Rows:
    """The rows at the positions of these parts, of the same cells."""
    if all(part.at is end.at for part, end in zip(rows.parts, parts, strict=True)):
        return rows
    views = []
    for part, end, view in zip(rows.parts, parts, rows.views, strict=True):
        at = (end.at - part.start).expand(rows.n_prompts, -1)
        views.append(view if part.at is end.at else at_positions(view, at))
    return Rows.of(parts, rows.n_prompts, views)


def untouched_at(activation: Tensor, part: Part) -> Tensor:
    """An activation of the untouched run, `[prompt, position, ...]`, at the part's positions, `[1, prompt, ...]`."""
    return at_positions(activation[None], part.at.expand(len(activation), -1))


def each_tapped(rows: Rows, taps: Sequence[Taps], site: str) -> Rows:
    """The rows, with those replaced whose part has a tap at this site."""
    if not any(site in each for each in taps):
        return rows
    views = zip(rows.views, taps, strict=True)
    return Rows.of(rows.parts, rows.n_prompts, [tapped(each, site, view) for view, each in views])


def tapped(taps: Taps, site: str, activation: Tensor) -> Tensor:
    """The activation, or its replacement by the tap at this site."""
    return taps[site](activation) if site in taps else activation

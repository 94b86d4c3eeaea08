"""What is run for one batch of prompts? Its cells together, from where each differs; or whole runs, one a cell.

The untouched run is computed once; positions before an edit are not run again where the lane can tell; a cell that
changes nothing is not run. Which lane is to be trusted says `_lanes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import Refused
from ..metrics import Metric, Reading, one_a_prompt, part_of, read_off, reading
from ..model._anatomy import Model, sizes
from ..model._outputs import n_outputs
from ..model._runs import stream
from ..model._self_check import foreign_hooks, is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..replay._blocks import at_positions
from ..replay._capture import tapped_run
from ._edits import HEAD_SITES, Edit, FromRun, New
from ._plan import Cell, passes
from ._widened_batch import Lane, Together, found_in, tap

__all__ = ["Hold", "Job", "check_new", "found_by_cell", "job_of", "run_batch"]

Hold = Literal["patterns"] | None


@dataclass(frozen=True, eq=False)
class Job:
    """One batch of prompts: what is edited in it and what is read."""

    model: Model
    prompts: Prompts
    new: dict[int, New]
    site: str
    hold: Hold
    wanted: Reading
    without: Reading | None
    start: int  # no cell changes anything before it


def job_of(
    model: Model, prompts: Prompts, rows: slice, edit: Edit, new: dict[int, New] | None, site: str, metric: Metric,
    hold: Hold, layers: set[int],
) -> Job:  # fmt: skip
    """What is edited and read in these rows of the prompts; `new` is None for an edit from another run."""
    batch, start = prompts[rows], 0
    if new is None:
        assert isinstance(edit, FromRun)
        other = as_prompts(model, edit.other)
        if len(other) != len(prompts):
            raise Refused(f"wanted as many prompts to take from, got {len(other)} for {len(prompts)}")
        of_batch = FromRun(other[rows]).new(model, batch, site, layers)
        start = _first_difference(batch, other[rows]) if _only_later(model) else 0
    else:
        of_batch = {layer: _of_rows(each, rows, len(prompts), site) for layer, each in new.items()}
    outputs = n_outputs(model)
    wanted = reading(part_of(metric, rows), batch, outputs)
    without = None if metric.without is None else reading(part_of(metric.without, rows), batch, outputs)
    return Job(model, batch, of_batch, site, hold, wanted, without, start)


def check_new(new: Any, layers: set[int]) -> None:
    """Raise TypeError where an edit's `new` gave something else than a `New` for each of these layers."""
    if not isinstance(new, dict) or not all(isinstance(new.get(layer), New) for layer in layers):
        raise TypeError(
            f"wanted an edit whose `new` returns {{layer: New(scale, value)}} for layers {sorted(layers)}, got "
            f"{repr(new)[:200]}"
        )


def _of_rows(new: New, rows: slice, n: int, site: str) -> New:
    """A new value for some of n prompts; one without a dimension of prompts is of all."""
    dims = 4 if site in HEAD_SITES else 3

    def cut(value: Tensor) -> Tensor:
        return value[rows] if value.ndim == dims and value.shape[0] == n > 1 else value

    return New(new.scale, cut(new.value), None if new.removed is None else cut(new.removed))


def _first_difference(prompts: Prompts, other: Prompts) -> int:
    """The first position where any two real tokens differ; the length where none do."""
    length = min(prompts.tokens.shape[1], other.tokens.shape[1])
    real = torch.arange(length) < prompts.lengths[:, None]
    differs = ((prompts.tokens[:, :length] != other.tokens[:, :length]) & real).any(0)
    return int(differs.int().argmax()) if bool(differs.any()) else prompts.tokens.shape[1]


def run_batch(
    job: Job, cells: Sequence[Cell], lane_class: type[Lane] | None, most: int, bar: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """`values [cell, prompt]`, `baseline [prompt]`, and `without [prompt]` where the metric has one."""
    clean, other, found = found_by_cell(job, cells, lane_class, most, bar)
    baseline = _numbers(job.wanted, clean)
    without = None if job.without is None or other is None else _numbers(job.without, other)
    values = np.tile(baseline, (len(cells), 1))
    for index, of_cell in found:
        values[index] = _numbers(job.wanted, of_cell)
    return values, baseline, without


def found_by_cell(
    job: Job, cells: Sequence[Cell], lane_class: type[Lane] | None, most: int, bar: Any
) -> tuple[Tensor, Tensor | None, Iterator[tuple[int, Tensor]]]:
    """What is read of the runs, `[prompt, read, target]`.

    Args:
        job: the batch.
        cells: the runs.
        lane_class: does them together; None for whole runs of the model, one a cell.
        most: tokens in one widened batch.
        bar: of progress, moved on by one a prompt and cell.

    Returns:
        What `job.wanted` reads of the untouched run, and `job.without`; and each cell that changes anything, as its
        runs come, by its index.
    """
    if lane_class is None:
        logits = tapped_run(job.model, job.prompts.tokens, {}, lengths=job.prompts.lengths).cpu()
        other = None if job.without is None else read_off(logits, job.without)
        return read_off(logits, job.wanted), other, _whole_runs(job, cells, bar)
    lane = lane_class(job.model, job.prompts.tokens, job.prompts.lengths)
    clean = _untouched(lane, job.wanted)
    other = None if job.without is None else _untouched(lane, job.without)
    return clean, other, _together(job, cells, lane, clean, most, bar)


def _together(
    job: Job, cells: Sequence[Cell], lane: Lane, clean: Tensor, most: int, bar: Any
) -> Iterator[tuple[int, Tensor]]:
    n, length = job.prompts.tokens.shape
    starts = [_start(cell, job, length) for cell in cells]
    read_last = int(job.wanted.positions[job.wanted.there].max()) if _only_later(job.model) else length - 1
    moving = [index for index, start in enumerate(starts) if start <= read_last]
    bar.update((len(cells) - len(moving)) * n)
    starts = starts if lane.saves_positions else [0] * len(cells)
    # a pattern is edited among all keys, those before the start too
    costs = [n * (length if job.site == "pattern" else length - start) for start in starts]
    for group in passes(moving, cells, starts=starts, cost=costs, most=most):
        together = Together(
            lane, cells, job.new, job.site, job.hold is not None, job.wanted, clean, starts[group[0]]
        )
        yield from together.run(group)
        bar.update(len(group) * n)


def _numbers(wanted: Reading, found: Tensor) -> np.ndarray:
    return one_a_prompt(wanted, found).cpu().double().numpy()


def _start(cell: Cell, job: Job, length: int) -> int:
    """The first position where the cell's run differs; the length where it never does."""
    if not cell.touched:
        return length
    if cell.position is None:
        return 0 if cell.new is not None else job.start
    return cell.position if cell.position >= job.start else length


def _whole_runs(job: Job, cells: Sequence[Cell], bar: Any) -> Iterator[tuple[int, Tensor]]:
    """One whole run of the model a cell: honours whatever hooks stand on it."""
    tokens, lengths, n_layers = job.prompts.tokens, job.prompts.lengths, sizes(job.model).n_layers
    patterns: dict[int, Tensor] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        patterns[layer] = pattern

    if job.hold:
        stream(job.model, tokens, keep, {"pattern": set(range(n_layers))}, lengths=lengths)
    for index, cell in enumerate(cells):
        if _start(cell, job, tokens.shape[1]) < tokens.shape[1]:
            taps = {layer: {job.site: tap([cell], job.new, job.site, layer, 0)} for layer in cell.touched}
            held = {layer: pattern for layer, pattern in patterns.items() if layer >= cell.first}
            logits = tapped_run(job.model, tokens, taps, held, lengths=lengths).cpu()
            yield index, read_off(logits, job.wanted)
        bar.update(len(tokens))


def _untouched(lane: Lane, wanted: Reading) -> Tensor:
    """What is read of the untouched run."""
    return next(found_in(lane, at_positions(lane.final[None], wanted.positions), wanted))


def _only_later(model: Model) -> bool:
    """Whether an edit moves later positions alone, so that what comes before it need not run."""
    return not foreign_hooks(model) and is_causal(model)  # hooks of the user's own may do anything

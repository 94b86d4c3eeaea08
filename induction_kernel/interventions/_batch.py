"""The edited runs of one batch of prompts: many together in a lane, or one whole run of the model each.

A cell is one edited run. A lane is a way of running layers again: from the model's parameters, or by its own blocks.
The untouched run is computed once; positions before an edit are not run again if the lane can start later; a cell that
changes nothing is not run. `_lanes` checks the lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics._metric import Reading, one_a_prompt, part_of, read_off, reading_of
from ..model._anatomy import Model, sizes
from ..model._outputs import n_outputs
from ..model._runs import stream
from ..prompts._prompts import Prompts
from ..replay._capture import tapped_run
from ..replay._lane import Lane
from ..replay._rows import at_positions
from ._activations import New
from ._cells_together import found_in, run_together
from ._changes import taps_at
from ._intervention import Intervention, NewValues, only_later
from ._plan import Cell, passes
from ._widened_batch import WidenedBatch

__all__ = ["Job", "Measured", "found_by_cell", "job_of", "run_batch"]


@dataclass(frozen=True, eq=False)
class Measured:
    """The metric, measured in each cell.

    Attributes:
        values: `[cell, prompt]`, the metric.
        baseline: `[prompt]`, the metric of the untouched run.
        without: `[prompt]`, the value without the ability that the metric measures; None if the metric has none.
        readings: `[1 + cell, prompt, read, target]`, what the metric is computed from, the untouched run first; None
            unless asked for.
        of_source: `[prompt]`, the metric on the run that the edit takes from; None unless asked for.
    """

    values: np.ndarray
    baseline: np.ndarray
    without: np.ndarray | None = None
    readings: Tensor | None = None
    of_source: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One batch of prompts, what is edited in it, and what is read.

    Attributes:
        model: the model.
        prompts: the batch.
        intervention: the edit, its site and the metric.
        new: layer -> new value of the activation.
        wanted: what the metric reads.
        without: what its value without the ability reads; None if it has none.
        start: the first position that any cell changes.
        of_source: `[prompt]`, the metric on the run that the edit takes from; None unless asked for.
    """

    model: Model
    prompts: Prompts
    intervention: Intervention
    new: dict[int, New]
    wanted: Reading
    without: Reading | None
    start: int
    of_source: Tensor | None = None


def job_of(values: NewValues, rows: slice) -> Job:
    """The job for these rows of the prompts."""
    model, intervention = values.model, values.intervention
    batch, metric, outputs = values.prompts[rows], intervention.metric, n_outputs(model)
    new, start, of_source = values.of(rows)
    wanted = reading_of(part_of(metric, rows), batch, outputs)
    without = None if metric.without is None else reading_of(part_of(metric.without, rows), batch, outputs)
    return Job(model, batch, intervention, new, wanted, without, start, of_source)


def run_batch(
    job: Job, cells: Sequence[Cell], lane: Lane | None, most: int, bar: Any, *, readings: bool = False,
    gradients: bool = False,
) -> Measured:  # fmt: skip
    """The metric of every cell; with `readings` also what it is computed from, with its graph if `gradients`."""
    clean, other, found = found_by_cell(job, cells, lane, most, bar)
    baseline = _numbers(job.wanted, clean)
    without = None if job.without is None or other is None else _numbers(job.without, other)
    values, read = np.tile(baseline, (len(cells), 1)), [clean] * (1 + len(cells))
    with torch.set_grad_enabled(gradients):
        for index, of_cell in found:
            values[index] = _numbers(job.wanted, of_cell)
            if readings:
                read[1 + index] = of_cell
        kept = torch.stack(read) if readings else None
        of_source = None if job.of_source is None else job.of_source.cpu().double().numpy()
        return Measured(values, baseline, without, kept, of_source)


def found_by_cell(
    job: Job, cells: Sequence[Cell], lane: Lane | None, most: int, bar: Any
) -> tuple[Tensor, Tensor | None, Iterator[tuple[int, Tensor]]]:
    """What the metric reads in each run, `[prompt, read, target]`.

    Args:
        job: the batch.
        cells: the edited runs.
        lane: the lane, on these prompts, that runs them together; None for whole runs of the model, one for each cell.
        most: tokens in one widened batch (the prompts once for each cell).
        bar: a progress bar; advances by one per prompt and cell.

    Returns:
        The readings of `job.wanted` and of `job.without` in the untouched run; then, as the runs are done, the index
        and the reading of each cell that changes anything.
    """
    if lane is None:
        logits = tapped_run(job.model, job.prompts.tokens, {}, lengths=job.prompts.lengths).cpu()
        other = None if job.without is None else read_off(logits, job.without)
        return read_off(logits, job.wanted), other, _whole_runs(job, cells, bar)
    clean = _untouched(lane, job.wanted)
    other = None if job.without is None else _untouched(lane, job.without)
    return clean, other, _together(job, cells, lane, clean, most, bar)


def _together(
    job: Job, cells: Sequence[Cell], lane: Lane, clean: Tensor, most: int, bar: Any
) -> Iterator[tuple[int, Tensor]]:
    """The cells run together in a lane, in groups that share a widened batch."""
    (n, length), site = job.prompts.tokens.shape, job.intervention.site
    starts = [_start(cell, job, length) for cell in cells]
    read_last = int(job.wanted.positions[job.wanted.there].max()) if only_later(job.model) else length - 1
    moving = [index for index, start in enumerate(starts) if start <= read_last]
    bar.update((len(cells) - len(moving)) * n)
    starts = starts if lane.saves_positions else [0] * len(cells)
    # an edited pattern has all keys, also those before the start
    costs = [n * (length if site == "pattern" else length - start) for start in starts]
    batch = WidenedBatch(lane, cells, starts, job.intervention, job.new, job.wanted, clean)
    for group in passes(moving, cells, starts=starts, cost=costs, most=most):
        yield from run_together(batch, group, bar)


def _numbers(wanted: Reading, found: Tensor) -> np.ndarray:
    """The metric `[prompt]` of what was read, in float64."""
    return one_a_prompt(wanted, found).cpu().double().numpy()


def _start(cell: Cell, job: Job, length: int) -> int:
    """The first position where the cell's run differs from the untouched one; the length if it never does."""
    if not cell.touched:
        return length
    if cell.position is None:
        return 0 if cell.new is not None else job.start
    return cell.position if cell.position >= job.start else length


def _whole_runs(job: Job, cells: Sequence[Cell], bar: Any) -> Iterator[tuple[int, Tensor]]:
    """One whole run of the model for each cell; hooks that are already on the model act."""
    tokens, lengths, n_layers = job.prompts.tokens, job.prompts.lengths, sizes(job.model).n_layers
    patterns: dict[int, Tensor] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        patterns[layer] = pattern

    site = job.intervention.site
    if job.intervention.hold:
        stream(job.model, tokens, keep, {"pattern": set(range(n_layers))}, lengths=lengths)
    for index, cell in enumerate(cells):
        if _start(cell, job, tokens.shape[1]) < tokens.shape[1]:
            taps = {layer: taps_at([cell], job.new, site, layer, 0) for layer in cell.touched}
            held = {layer: pattern for layer, pattern in patterns.items() if layer >= cell.first}
            logits = tapped_run(
                job.model, tokens, taps, held, lengths=lengths, gradients=torch.is_grad_enabled()
            ).cpu()
            yield index, read_off(logits, job.wanted)
        bar.update(len(tokens))


def _untouched(lane: Lane, wanted: Reading) -> Tensor:
    """What the metric reads in the untouched run."""
    return next(found_in(lane, at_positions(lane.final[None], wanted.positions), wanted))

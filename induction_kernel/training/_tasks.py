"""One checkpoint of one source, loaded, measured and stored: what a worker of a sweep over checkpoints does.

Tasks run one after another or on any `concurrent.futures.Executor`. A checkpoint that cannot be used gives the reason;
what a measure raises ends the sweep.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from safetensors import SafetensorError

from ..errors import Refused
from ..loading._sources import load
from ..model._anatomy import Model, sizes
from ..stores import read_result, write_result
from ._merged import as_variables, joined

__all__ = ["Task", "kept_results", "outcomes", "result_of"]

_DAMAGED = (Refused, OSError, RuntimeError, SafetensorError)
"""What loaders raise for files that are damaged or not there; anything else is a bug, and ends the sweep."""
_NOT_THE_CHECKPOINT = (NotImplementedError, PermissionError)


@dataclass(frozen=True, eq=False)
class Task:
    """One checkpoint of one source: what a worker is sent."""

    label: str
    where: str | Path
    step: int
    measures: Mapping[str, Callable[[Model], Any]]
    options: Mapping[str, Any]
    file: Path | None
    mark: str

    def __str__(self) -> str:
        return f"{self.label} at {self.step}"


def _compute(task: Task) -> xr.Dataset | str | None:
    """The result, None where it is stored in the task's file, or why the checkpoint cannot be used."""
    if task.file is not None and read_result(task.file, task.mark) is not None:
        return None  # by an earlier try, whose worker died after it
    try:
        model = load(task.where, checkpoint=task.step, **task.options)
        _check_finite(model)
    except _NOT_THE_CHECKPOINT:
        raise
    except _DAMAGED as error:
        return f"{task}: {error or type(error).__name__}"
    parts = []
    for name, measure in task.measures.items():
        try:
            parts.append(as_variables(name, measure(model)))
        except Exception as error:
            error.add_note(f"This was measure {name!r} of {task}.")
            raise
    result = joined(parts).assign_attrs(architecture=str(sizes(model)))
    left = weakref.ref(model)
    del model
    if left() is not None:  # a TransformerBridge holds itself: several would be in memory
        gc.collect()
    if task.file is None:
        return result
    write_result(task.file, result, task.mark)
    return None


def _check_finite(model: Model) -> None:
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise Refused("its weights hold NaN or infinite values")


def outcomes(tasks: Sequence[Task], executor: Executor | None) -> Iterator[tuple[Task, Any]]:
    """Every task with what `_compute` returned, as they come.

    Raises:
        RuntimeError: a pool whose worker died; else what a measure or the executor raised, with what is kept.
    """
    futures = {} if executor is None else {executor.submit(_compute, task): task for task in tasks}
    done = 0
    try:
        if executor is None:
            coming = ((task, _compute(task)) for task in tasks)
        else:
            coming = ((futures[future], future.result()) for future in as_completed(futures))
        for outcome in coming:
            yield outcome
            done += 1
    except Exception as error:
        folder = None if tasks[0].file is None else tasks[0].file.parent
        kept = (
            "nothing is kept without path" if folder is None else f"what was done is kept in {str(folder)!r}"
        )
        said = f"after {done} of {len(tasks)} checkpoints; {kept}"
        if isinstance(error, BrokenExecutor):
            remedy = "call again with a new executor" + (" and a path" if folder is None else " to go on")
            raise RuntimeError(
                f"a worker process died (killed, or out of memory) {said}: {remedy}"
            ) from error
        error.add_note(f"The sweep stopped {said}.")
        raise
    finally:
        for future in futures:
            future.cancel()


def result_of(task: Task, outcome: xr.Dataset | None) -> xr.Dataset:
    """What a task has measured: its outcome, or what it has stored."""
    if outcome is None:
        assert task.file is not None
        outcome = read_result(task.file, task.mark)
        assert outcome is not None, f"{task.file} is not there: is path the same folder for every worker?"
    return outcome


def kept_results(tasks: Sequence[Task]) -> dict[Task, Any]:
    """What an earlier sweep has stored, by task."""
    found = {task: read_result(task.file, task.mark) for task in tasks if task.file is not None}
    return {task: result for task, result in found.items() if result is not None}

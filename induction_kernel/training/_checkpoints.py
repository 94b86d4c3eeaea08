"""Measures at every checkpoint of every run, one after another or on an executor.

A task is one checkpoint of one source: it loads its model, measures, and stores its own result. Tasks run one after
another or on any `concurrent.futures.Executor`; scheduling, retries and clusters are left to the executor. `_phases`
interprets the curves.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from warnings import warn

import numpy as np
import xarray as xr
from safetensors import SafetensorError

from .. import __version__
from ..errors import Refused
from ..loading._histories import History, training_history
from ..loading._sources import load
from ..model._anatomy import Model, sizes
from ..model._runs import progress_bar
from ._merged import as_variables, joined, stacked, with_names
from ._storing import fingerprint, opened, read_result, write_result

__all__ = ["over_checkpoints"]

_DAMAGED = (Refused, OSError, RuntimeError, SafetensorError)
"""What loaders raise for damaged or missing files; anything else is a bug and ends the sweep."""
_NOT_THE_CHECKPOINT = (NotImplementedError, PermissionError)


def over_checkpoints(
    source: str | Path | Mapping[str, str | Path],
    measures: Mapping[str, Callable[[Model], Any]],
    *,
    checkpoints: Iterable[int] | None = None,
    path: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    skip_failed: bool = False,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Measure a model at every checkpoint of its training, one model in memory at a time (per task of an executor).

    On a cluster, use Dask (`pip install "induction-kernel[dask]"`), here with two processes on this machine:

        from dask.distributed import Client, LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
            ik.training.over_checkpoints(runs, measures, path="sweep", executor=client.get_executor(retries=2))

    and under SLURM with `dask_jobqueue.SLURMCluster(...)` instead of `LocalCluster`. Every worker must then be able to
    read the runs' folders and `path`. A task whose worker died runs again on another: Dask gives it up after
    `distributed.scheduler.allowed-failures` deaths, and after `retries` other failures. A worker uses as many threads
    as its environment sets (`OMP_NUM_THREADS`, which Dask sets to 1). The standard library's
    `ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))` needs measures that can be pickled (no
    lambdas) and ends with its first dead worker: call again with the same `path`.

    Args:
        source: a folder that `induction-kernel train` wrote, "tiny", or a name on the hub with training checkpoints
            (Pythia, stanford-crfm, TransformerLens' early models); or several, label -> source.
        measures: name -> function of a model that returns a Dataset, a DataArray or a number: scorers, metrics, or
            `functools.partial` of one. Random defaults (prompts) must be the same in every call.
        checkpoints: which training steps (on the hub: TransformerLens' labels); all by default.
        path: a folder where every result is stored as it comes, one netCDF file per checkpoint: a sweep that was
            stopped continues from there, and more steps or sources may be added. Without it results are only in memory.
        executor: runs the tasks.
        skip_failed: leave out checkpoints that are missing, damaged or of another architecture, with a warning and the
            attribute `left_out`.
        progress: a bar if it takes longer than two seconds.
        options: as `load` takes them (device, dtype, bridge, ...).

    Returns:
        Dataset with dimension `checkpoint` (int: the step) and its coordinate `tokens[checkpoint]` (tokens seen until
        then; NaN if unknown; `tokens[model, checkpoint]` if sources differ); with several sources also `model` (the
        labels), before it. A measure's variable `score`, `value`, or its only one, gets the measure's name, every other
        `<measure>_<variable>`. What a source or measure lacks (a step, a layer, prompts) is NaN; coordinates on which
        they disagree are dropped.

    Raises:
        TypeError: measures that are not functions, or not an executor.
        NotDefined: a source without checkpoints.
        Refused: a step that is not among them, another sweep's folder; checkpoints that cannot be used (without
            `skip_failed`), named with the reason, after all others were computed and stored in `path` (at once without
            `path`).
        RuntimeError: a pool whose worker died, with what is stored.
    """
    sources = _sources(source)
    _check_measures(measures)
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(
            "wanted a concurrent.futures.Executor (of a Dask client: client.get_executor()), "
            f"got {type(executor).__name__}"
        )
    steps = {label: history.steps(checkpoints) for label, history in sources.items()}
    tasks = _tasks(sources, measures, steps, path, options)
    results, failed = _done(tasks), {}
    todo = [task for task in tasks if task not in results]
    bar = progress_bar(len(tasks), progress=progress, unit="checkpoint")
    with bar:
        bar.update(len(results))
        for task, outcome in _outcomes(todo, executor):
            (failed if isinstance(outcome, str) else results)[task] = outcome
            bar.update()
            if failed and path is None and not skip_failed:
                break
    results = {task: _result(task, results[task]) for task in tasks if task in results}
    failed |= _of_another_architecture(results)
    if failed:
        _report(failed, len(tasks), path, skip_failed)
    kept = {task: results[task] for task in tasks if task in results and task not in failed}
    found = _assembled(sources, kept, single=not isinstance(source, Mapping))
    return found.assign_attrs({"left_out": "; ".join(failed.values())} if failed else {})


@dataclass(frozen=True, eq=False)
class _Task:
    """One checkpoint of one source, as sent to a worker."""

    label: str
    where: str | Path
    step: int
    measures: Mapping[str, Callable[[Model], Any]]
    options: Mapping[str, Any]
    file: Path | None
    mark: str

    def __str__(self) -> str:
        return f"{self.label} at {self.step}"


def _compute(task: _Task) -> xr.Dataset | str | None:
    """The result, None if it is stored in the task's file, or the reason why the checkpoint cannot be used."""
    if task.file is not None and read_result(task.file, task.mark) is not None:
        return None  # by an earlier try, whose worker died after storing it
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
    if left() is not None:  # a TransformerBridge refers to itself: several would stay in memory
        gc.collect()
    if task.file is None:
        return result
    write_result(task.file, result, task.mark)
    return None


def _check_finite(model: Model) -> None:
    if not all(bool(value.isfinite().all()) for value in model.parameters()):
        raise Refused("its weights hold NaN or infinite values")


def _outcomes(tasks: Sequence[_Task], executor: Executor | None) -> Iterator[tuple[_Task, Any]]:
    """Every task with what `_compute` returned, as they finish.

    Raises:
        RuntimeError: a pool whose worker died; else what a measure or the executor raised, with what is stored.
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


def _result(task: _Task, outcome: xr.Dataset | None) -> xr.Dataset:
    if outcome is None:
        assert task.file is not None
        outcome = read_result(task.file, task.mark)
        assert outcome is not None, f"{task.file} is not there: is path the same folder for every worker?"
    return outcome


def _done(tasks: Sequence[_Task]) -> dict[_Task, Any]:
    """The results that an earlier sweep stored."""
    found = {task: read_result(task.file, task.mark) for task in tasks if task.file is not None}
    return {task: result for task, result in found.items() if result is not None}


def _of_another_architecture(results: Mapping[_Task, xr.Dataset]) -> dict[_Task, str]:
    """The checkpoints that differ from most of their source, with the reason; their files are removed."""
    odd = {}
    for label in {task.label for task in results}:
        found = {task: one.attrs["architecture"] for task, one in results.items() if task.label == label}
        usual, n = Counter(found.values()).most_common(1)[0]
        for task in (task for task, architecture in found.items() if architecture != usual):
            odd[task] = f"{task}: another architecture, {found[task]}, than {n} others, {usual}"
            if task.file is not None:
                task.file.unlink()
    return odd


def _report(failed: Mapping[_Task, str], n: int, path: Any, skip_failed: bool) -> None:
    reasons = "; ".join(failed.values())
    if skip_failed and len(failed) < n:
        warn(f"{len(failed)} of {n} checkpoints are left out: {reasons}", UserWarning, stacklevel=3)
        return
    kept = (
        "nothing is kept without path"
        if path is None
        else f"the results of all others are kept in {str(path)!r}"
    )
    raise Refused(
        f"{len(failed)} of {n} checkpoints cannot be used ({reasons}); {kept}. To leave them out: skip_failed=True"
    )


def _assembled(
    sources: Mapping[str, History], kept: Mapping[_Task, xr.Dataset], *, single: bool
) -> xr.Dataset:
    runs = {}
    for label, history in sources.items():
        of = {
            task.step: result.drop_attrs(deep=False) for task, result in kept.items() if task.label == label
        }
        if of:
            tokens = [history.tokens[step] for step in of]
            run = stacked(list(of.values()), "checkpoint", list(of))
            runs[label] = run.assign_coords(tokens=("checkpoint", np.array(tokens, dtype=float)))
    found = next(iter(runs.values())) if single else _together(runs)
    said = {"method": "over_checkpoints", "source": ", ".join(one.name for one in sources.values())}
    return with_names(found).assign_attrs(said | {"induction_kernel": __version__, "format": 1})


def _together(runs: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Several runs together; `tokens` has the dimension `model` only if they disagree."""
    found = stacked([run.reset_coords("tokens") for run in runs.values()], "model", list(runs))
    tokens = found["tokens"]
    agreed = tokens.max("model")
    same = bool(((tokens == agreed) | tokens.isnull()).all())
    return found.assign_coords(tokens=agreed if same else tokens)


def _tasks(
    sources: Mapping[str, History],
    measures: Mapping[str, Callable[[Model], Any]],
    steps: Mapping[str, Sequence[int]],
    path: str | os.PathLike[str] | None,
    options: Mapping[str, Any],
) -> list[_Task]:
    mark = "" if path is None else fingerprint(measures, options)
    folder = None if path is None else opened(path, mark)
    tasks = []
    for label, history in sources.items():
        for step in steps[label]:
            of, file = "", None
            if folder is not None:
                of = fingerprint(mark, history.said, history.log.get(step), step)
                file = folder / f"{quote(label, safe=' ')}-{step:08d}.nc"
            tasks.append(_Task(label, history.where, step, dict(measures), dict(options), file, of))
    return tasks


def _sources(source: Any) -> dict[str, History]:
    if not isinstance(source, Mapping):
        if not isinstance(source, str | Path):
            raise TypeError(
                f"wanted a source's name or path, or label -> source, got {type(source).__name__}"
            )
        history = training_history(source)
        return {history.name: history}
    if not source or not all(isinstance(label, str) and label for label in source):
        raise Refused(f"wanted label -> source, each label a string, got {source!r:.80}")
    return {label: next(iter(_sources(of).values())) for label, of in source.items()}


def _check_measures(measures: Any) -> None:
    if not isinstance(measures, Mapping):
        raise TypeError(
            f"wanted measures as name -> function of a model, got {type(measures).__name__}: pass a dict, as in "
            '{"benefit": repeat_loss}'
        )
    if not measures or not all(isinstance(name, str) and name.isidentifier() for name in measures):
        raise Refused(f"wanted at least one measure, each named by a Python identifier, got {list(measures)}")
    for name, measure in measures.items():
        if not callable(measure) or isinstance(measure, type):
            raise TypeError(f"wanted measure {name!r} as a function of a model, got {measure!r:.80}")

"""Whatever can be measured on a model, at every training checkpoint of one run or several.

A task is one checkpoint of one source (`_tasks`); scheduling, retries and clusters are the executor's.
`_phases` finds the onsets of curves.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any
from urllib.parse import quote
from warnings import warn

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import Refused
from ..loading._histories import History, training_history
from ..model._anatomy import Model
from ..model._runs import progress_bar
from ..prompts._fingerprints import fingerprint
from ..stores import result_folder
from ._merged import stacked, with_names
from ._tasks import Task, kept_results, outcomes, result_of

__all__ = ["over_checkpoints"]


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
    results, failed = kept_results(tasks), {}
    todo = [task for task in tasks if task not in results]
    bar = progress_bar(len(tasks), progress=progress, unit="checkpoint")
    with bar:
        bar.update(len(results))
        for task, outcome in outcomes(todo, executor):
            (failed if isinstance(outcome, str) else results)[task] = outcome
            bar.update()
            if failed and path is None and not skip_failed:
                break
    results = {task: result_of(task, results[task]) for task in tasks if task in results}
    failed |= _of_another_architecture(results)
    if failed:
        _report(failed, len(tasks), path, skip_failed)
    kept = {task: results[task] for task in tasks if task in results and task not in failed}
    found = _assembled(sources, kept, single=not isinstance(source, Mapping))
    return found.assign_attrs({"left_out": "; ".join(failed.values())} if failed else {})


def _of_another_architecture(results: Mapping[Task, xr.Dataset]) -> dict[Task, str]:
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


def _report(failed: Mapping[Task, str], n: int, path: Any, skip_failed: bool) -> None:
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
    sources: Mapping[str, History], kept: Mapping[Task, xr.Dataset], *, single: bool
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
) -> list[Task]:
    mark = "" if path is None else fingerprint(measures, options)
    folder = (
        None
        if path is None
        else result_folder(path, mark, kind="sweep", differs="measures, options or version")
    )
    tasks = []
    for label, history in sources.items():
        for step in steps[label]:
            of, file = "", None
            if folder is not None:
                of = fingerprint(mark, history.said, history.log.get(step), step)
                file = folder / f"{quote(label, safe=' ')}-{step:08d}.nc"
            tasks.append(Task(label, history.where, step, dict(measures), dict(options), file, of))
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

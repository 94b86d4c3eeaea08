"""Measures of a census that draw prompts of their own: copying, function vectors over several tasks, weights."""

from __future__ import annotations

from typing import NamedTuple

import xarray as xr

from ..errors import NotDefined
from ..fewshot._function_vectors import function_vector_effect
from ..fewshot._other_tasks import names_of_tasks, shipped_tasks
from ..model._anatomy import Model
from ..scorers._copying import copying, own_prompts
from ..scorers._ov import ov_eigenvalues
from ._concept_copying import concept_copying, token_copying

__all__ = [
    "Drawn",
    "own_concept_copying",
    "own_copying",
    "own_eigenvalues",
    "own_function_vectors",
    "own_token_copying",
]


class Drawn(NamedTuple):
    """What a measure that makes its own prompts is given in their place: how many, and the seed."""

    n_prompts: int
    seed: int


def own_copying(model: Model, drawn: Drawn, *, progress: bool) -> xr.Dataset:
    return copying(model, own_prompts(model, prompts=drawn.n_prompts, seed=drawn.seed), progress=progress)


def own_token_copying(model: Model, drawn: Drawn, *, progress: bool) -> xr.Dataset:
    return token_copying(model, prompts=drawn.n_prompts, seed=drawn.seed, progress=progress)


def own_concept_copying(model: Model, drawn: Drawn, *, progress: bool) -> xr.Dataset:
    return concept_copying(model, prompts=drawn.n_prompts, seed=drawn.seed, progress=progress)


def own_eigenvalues(model: Model, drawn: Drawn, *, progress: bool) -> xr.Dataset:
    return ov_eigenvalues(model, seed=drawn.seed, progress=progress)


def own_function_vectors(model: Model, drawn: Drawn, *, progress: bool) -> xr.Dataset:
    """Function-vector scores on the tasks that ship, each with its own means: as many prompts of each as of the others.

    A task of made-up labels, which mean another thing in every prompt, would not do: its mean output names no task.
    """
    if getattr(model, "tokenizer", None) is None:
        raise NotDefined(
            "function vectors need words, and this model has no tokenizer: call model.set_tokenizer"
        )
    n_tasks = len(shipped_tasks(model, drawn.seed))
    if not n_tasks:
        raise NotDefined("the model's tokenizer cannot write the tasks that ship with the package")
    tasks = shipped_tasks(model, drawn.seed, n_prompts=-(-drawn.n_prompts // n_tasks))
    scores = [function_vector_effect(model, task, seed=drawn.seed, progress=progress) for task in tasks]
    together = xr.concat(
        scores, "prompt", data_vars="minimal", coords="minimal", compat="override", join="override"
    )
    # two prompts of each task in turn, so that every second prompt is of any task
    places = [(row // 2, at, row) for at, task in enumerate(tasks) for row in range(len(task))]
    order = sorted(range(len(places)), key=places.__getitem__)
    found = together.isel(prompt=order).assign_coords(prompt=range(len(order)))
    return found.assign_attrs(n_prompts=len(order), tasks=names_of_tasks(list(tasks)))

"""Other tasks than the one that heads are ablated on: function-vector scores over them, and mean z over their prompts.

The mean over a task's own few-shot prompts is what a function-vector head writes for the task (Todd et al. 2024), so
that putting it in its place takes nothing away. Yin & Steinhardt 2025 (`find_fv_heads.py`, `ablate.py` of their code)
score heads on 29 tasks, take the mean over the same tasks, and ablate on others.
"""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr
from torch import Tensor

from ..data._episodes import Episodes, draw_episodes
from ..data._word_pairs import word_pairs
from ..errors import NotDefined, Refused
from ..model._anatomy import Model
from ..prompts._conversion import as_few_shot
from ..prompts._prompts import FewShotPrompts
from ..prompts._prose import PROSE, what_is_read
from ._function_vectors import function_vector_effect, last_means

__all__ = [
    "few_shot_of_task",
    "means_over_tasks",
    "names_of_tasks",
    "other_tasks",
    "scores_over_tasks",
    "shipped_tasks",
]

ENGLISH, OWN = ("antonyms", "capitals", "plurals", "past_tense"), ("topics",)
QUERIES, SHOTS = 8, 8

Task = FewShotPrompts | Episodes


def other_tasks(model: Model, prompts: Any, tasks: Any, seed: int) -> list[Task]:
    """The tasks given, each as it came; for None the word pairs that ship with the package, without the prompts' own.

    Args:
        model: gives the tokenizer.
        prompts: few-shot prompts or episodes of the task that heads are ablated on.
        tasks: one task or several, or None.
        seed: of the words and of the demonstrations drawn.

    Raises:
        TypeError: `prompts` or a task that is neither few-shot prompts nor Episodes.
        Refused: no tasks; the prompts themselves as a task; no word pairs that the tokenizer can write.
    """
    if not isinstance(prompts, Task):
        raise TypeError(f"wanted few-shot prompts or Episodes, got {type(prompts).__name__}")
    if tasks is None:
        found = shipped_tasks(
            model, seed, own=(prompts.queries.name or "") if isinstance(prompts, Episodes) else ""
        )
        if not found:
            raise Refused(
                "none of the word pairs that ship are other tasks in the model's language: pass tasks=, few-shot "
                "prompts or Episodes of other tasks than that of the prompts"
            )
        return list(found)
    given = [tasks] if isinstance(tasks, Task) else list(tasks) if isinstance(tasks, list | tuple) else None
    if given is None or not all(isinstance(each, Task) for each in given):
        got = type(tasks).__name__ if given is None else sorted({type(each).__name__ for each in given})
        raise TypeError(f"wanted tasks as few-shot prompts or Episodes, or a list of them, got {got}")
    if not given:
        raise Refused("wanted at least one task, got none: pass tasks=None for word pairs that ship")
    asked = _rows(few_shot_of_task(model, prompts))
    if any(asked & _rows(few_shot_of_task(model, each)) for each in given):
        raise Refused(
            "wanted tasks other than that of the prompts, got prompts that are among them: the mean over a task's own "
            "prompts is what function-vector heads write for it"
        )
    return given


def few_shot_of_task(model: Model, task: Any) -> FewShotPrompts:
    """The few-shot prompts of a task."""
    return task.prompts(model) if isinstance(task, Episodes) else as_few_shot(model, task)


def names_of_tasks(tasks: list[Task]) -> str:
    """The names of episodes' texts, "given" for what has none."""
    names = [(task.queries.name if isinstance(task, Episodes) else "") or "given" for task in tasks]
    return ", ".join(names)


def scores_over_tasks(model: Model, tasks: list[Task], seed: int, **options: Any) -> xr.Dataset:
    """Function-vector scores as of `function_vector_effect`, along `prompt` the mean over each task's prompts.

    So every task has equal weight, whatever its number of prompts.
    """
    each = [function_vector_effect(model, task, seed=seed, **options) for task in tasks]
    together = xr.concat(
        [scores.mean("prompt", keep_attrs=True) for scores in each], "prompt",
        data_vars="all", coords="minimal", compat="override", join="override",
    )  # fmt: skip
    return together.assign_coords(prompt=range(len(tasks)))


def means_over_tasks(model: Model, tasks: list[Task], max_tokens: int | None) -> dict[int, Tensor]:
    """Layer -> mean z `[head, d_head]` at the last token: the mean over tasks of the mean over each one's prompts."""
    each = [last_means(model, few_shot_of_task(model, task), max_tokens) for task in tasks]
    return {layer: torch.stack([means[layer] for means in each]).mean(0) for layer in each[0]}


def shipped_tasks(model: Model, seed: int, *, own: str = "", n_prompts: int = QUERIES) -> list[Episodes]:
    """Episodes of each task of word pairs in the model's language but `own`: `n_prompts` of each, or all it has."""
    names = ENGLISH if what_is_read(model) == PROSE else OWN
    found = list[Episodes]()
    for name in names:
        if name == own:
            continue
        try:
            pairs = word_pairs(name, model)
        except NotDefined:
            continue
        if len(pairs) < QUERIES + SHOTS:
            continue
        queries, pool = pairs.split(min(n_prompts, len(pairs) - SHOTS), seed=seed)
        separator = " " if name in OWN else "\n"
        found.append(draw_episodes(pool, queries, shots=SHOTS, separator=separator, seed=seed))
    return found


def _rows(prompts: FewShotPrompts) -> set[tuple[int, ...]]:
    """The prompts as token ids."""
    return {
        tuple(row[:length])
        for row, length in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
    }

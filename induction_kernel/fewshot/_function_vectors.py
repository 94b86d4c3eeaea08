"""Function-vector scores: the effect of a head's mean output over a task, in prompts whose labels are shuffled.

Each head's z at the last token is averaged over few-shot prompts of the task and patched into the last token of prompts
whose labels are shuffled; the score is the change in the probability of the right answer (Todd et al. 2024, section
2.3, who average it over tasks too). `_vectors` sums such means over heads to a vector, which `_vector_applied` adds to
other prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed
from ..data._episodes import Episodes
from ..errors import Refused
from ..heads._names import HeadLike, as_heads
from ..interventions._activations import New
from ..interventions._patching import sweeps_at
from ..metrics._standard import probability
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import progress_bar, stream
from ..prompts._conversion import as_few_shot
from ..prompts._demonstrations import Demonstrations
from ..prompts._prompts import FewShotPrompts
from ._changed_predictions import batches_of_one_length, label_keys

__all__ = ["function_vector_effect", "last_means", "task_prompts"]


def function_vector_effect(
    model: Model,
    prompts: Any,
    shuffled: Any = None,
    *,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    layers: Iterable[int] | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How much each head's mean output over a task raises the right answer in prompts with shuffled labels.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are on it stay active.
        prompts: few-shot prompts of the task, or episodes, over which the mean is taken.
        shuffled: prompts whose right labels are known, with demonstrations that do not show the task; None for
            `prompts` with the labels of each shuffled among its demonstrations (of prompts, where every label is one
            token; of episodes always).
        heads: only these; None for all.
        layers: only these; None for all.
        seed: of the shuffle.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset like that of a scorer, for `summarise`, `top_heads` and `head_map`: `score[prompt, layer, head]` =
        `value` - `baseline[prompt]`, the probabilities of the right answer on `shuffled` with the head's mean output
        in place and without it; the score is in [-1, 1]. `control`: the same with the mean over `shuffled` itself,
        which holds nothing of the task; `chance`: 0. NaN at heads left out.

    Raises:
        TypeError: not prompts.
        Refused: prompts without demonstrations; shuffled prompts without right labels; labels of several tokens to
            shuffle; heads the model does not have.

    Source: Todd et al. 2024, section 2.3 (average indirect effect).
    """
    ready, into = task_prompts(model, prompts, shuffled, seed)
    size = sizes(model)
    chosen = None if heads is None else as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    options: dict[str, Any] = {
        "metric": probability, "heads": chosen, "layers": None if layers is None else list(layers)
    }  # fmt: skip
    means = {
        key: {
            layer: New(0.0, mean[None, None]) for layer, mean in last_means(model, each, max_tokens).items()
        }
        for key, each in (("value", ready), ("control", into))
    }
    parts: dict[str, list[xr.Dataset]] = {key: [] for key in means}
    order: list[Tensor] = []
    with progress_bar(len(into), progress=progress, unit="prompt") as bar:
        for rows, batch, most in batches_of_one_length(model, into, max_tokens):
            order.append(rows)
            last = batch.tokens.shape[1] - 1
            for key, swept in sweeps_at(
                model, batch, means, position=last, max_tokens=most, **options
            ).items():
                parts[key].append(swept)
            bar.update(len(rows))
    place = torch.cat(order).argsort().numpy()
    value, control = (_in_order(each, place) for each in parts.values())
    return _dataset(value, control, len(ready), seed, own=shuffled is None)


def task_prompts(
    model: Model, prompts: Any, shuffled: Any, seed: int
) -> tuple[FewShotPrompts, FewShotPrompts]:
    """The few-shot prompts of a task, and those with shuffled labels: as given, or made of the first.

    Raises:
        Refused: labels of several tokens to shuffle, which cannot be moved in tokens (in episodes they can).
    """
    if isinstance(prompts, Episodes):
        ready = prompts.prompts(model)
        own = prompts.permuted(seed) if shuffled is None else None
    else:
        ready, own = as_few_shot(model, prompts), None
    if isinstance(shuffled, Episodes):
        own = shuffled
    if own is not None:
        return ready, own.prompts(model)
    if shuffled is not None:
        return ready, as_few_shot(model, shuffled)
    return ready, _shuffled(ready, ready.demonstrations, seed)


def last_means(model: Model, prompts: FewShotPrompts, max_tokens: int | None) -> dict[int, Tensor]:
    """Layer -> mean z `[head, d_head]` over the prompts' last tokens."""
    layers = set(range(sizes(model).n_layers))
    total: dict[int, Tensor] = {}

    def read(_: str, layer: int, z: Tensor) -> None:
        of_batch = full_precision(z.detach()[:, -1]).sum(0) / len(prompts)
        total[layer] = total[layer] + of_batch if layer in total else of_batch

    for _, batch, _ in batches_of_one_length(model, prompts, max_tokens):
        stream(model, batch.tokens, read, {"z": layers}, lengths=None)
    return total


def _shuffled(prompts: FewShotPrompts, found: Demonstrations, seed: int) -> FewShotPrompts:
    """Each prompt's labels in random order among its demonstrations."""
    if bool((label_keys(prompts).sum(2) > 1).any()):
        raise Refused(
            "wanted labels of one token each to shuffle, got longer ones: pass shuffled=, prompts that were made with "
            "permuted labels"
        )
    drawn = torch.rand(
        found.mask.shape, generator=torch.Generator().manual_seed(checked_seed(seed)), dtype=torch.float32
    )
    order = drawn.masked_fill(~found.mask, 2.0).argsort(1)  # absent demonstrations come last and stay there
    order = torch.where(found.mask, order, torch.arange(found.mask.shape[1]))
    tokens, row = prompts.tokens.clone(), torch.arange(len(prompts))[:, None]
    moved = prompts.tokens[row, found.label_positions[row, order]]
    prompt, slot = found.mask.nonzero(as_tuple=True)
    tokens[prompt, found.label_positions[prompt, slot]] = moved[prompt, slot]
    return replace(
        prompts, tokens=tokens, demonstrations=replace(found, classes=found.classes[row, order]), control=None
    )


def _in_order(parts: list[xr.Dataset], place: np.ndarray) -> xr.Dataset:
    """The batches' results joined along `prompt`, in the order of the prompts."""
    together = xr.concat(
        parts, dim="prompt", data_vars="minimal", coords="minimal", compat="override", join="override"
    )
    return together.isel(prompt=place).assign_coords(prompt=np.arange(len(place)))


def _dataset(value: xr.Dataset, control: xr.Dataset, n: int, seed: int, *, own: bool) -> xr.Dataset:
    attrs = value.attrs | {
        "method": "function_vector_effect", "title": "function-vector score", "paper": "Todd et al. 2024, section 2.3",
        "edit": "mean z over the task's prompts, at the last token", "n_task_prompts": n, "seed": seed,
        "shuffled": "labels among each prompt's demonstrations" if own else "given",
    }  # fmt: skip
    out = value.rename(effect="score").assign(
        control=control["effect"], chance=xr.zeros_like(value["effect"])
    )
    return out.assign_attrs(attrs | {"by": "layer head"})

"""One forward pass over few-shot prompts: label log-probabilities, attention to labels, and what observers read.

`_predictions` makes the batches and stores the results. Observers read further activations in the same pass:
`AttentionAlong` and `LabelWriting` in `kernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import stream
from ..model._self_check import foreign_hooks
from ..prompts._prompts import FewShotPrompts
from ..replay._shared_prefix import shared_stream
from ..scorers._labels import entries_of, pooled
from ..scorers._pattern_entries import attends, check_sound, entries_together, taken

__all__ = ["Observer", "Read", "evaluated", "narrowed", "readers"]

Read = Callable[[str, int, Tensor], None]


class Observer(Protocol):
    """Something that reads further activations in the passes of `answered`.

    Attributes:
        sites: the activations it reads, site -> layers.
        n_prompts: how many prompts it reads, from the first on.
    """

    sites: dict[str, set[int]]
    n_prompts: int

    def reader(self, batch: FewShotPrompts) -> Read:
        """The function that receives the activations of these prompts, in the order of the pass."""
        ...


def narrowed(batch: FewShotPrompts) -> FewShotPrompts:
    """The batch without columns that are padding in every row, and without its control."""
    width = int(batch.lengths.max())
    return replace(batch, tokens=batch.tokens[:, :width], scored=batch.scored[:, :width], control=None)


def readers(
    observers: Sequence[Observer], batch: FewShotPrompts, at: np.ndarray
) -> list[tuple[dict[str, set[int]], Read]]:
    """Sites and readers of the observers that read some of this batch; `at` are the indices of its prompts."""
    found = []
    for observer in observers:
        rows = torch.as_tensor(np.flatnonzero(at < observer.n_prompts))
        if len(rows):
            found.append((observer.sites, _of_rows(observer.reader(batch[rows]), rows)))
    return found


def _of_rows(read: Read, rows: Tensor) -> Read:
    return lambda site, layer, activation: read(site, layer, activation[rows.to(activation.device)])


def evaluated(
    model: Model,
    batch: FewShotPrompts,
    poolings: tuple[str, ...],
    span: str,
    also: Sequence[tuple[dict[str, set[int]], Read]],
    *,
    shared: bool = False,
) -> dict[str, np.ndarray]:
    """Label log-probabilities `[prompt, label]` and weights `[prompt, pooling, layer, head, demonstration]`.

    If the prompts are `shared`, the tokens with which all begin are run once.
    """
    size, found = sizes(model), batch.demonstrations
    weight = np.full((len(batch), len(poolings), size.n_layers, size.n_heads, found.mask.shape[1]), np.nan)
    each = [entries_of(batch, pooling, span) for pooling in poolings]
    broken, edited = set[int](), bool(foreign_hooks(model))

    def weigh(layer: int, pattern: Tensor) -> None:
        values = taken(pattern, entries_together(each)).split([len(entries.key) for entries in each])
        for i, (pooling, of_one) in enumerate(zip(poolings, values, strict=True)):
            weight[:, i, layer] = pooled(of_one, batch, pooling, span).transpose(1, 2).numpy()
        if not attends(pattern, batch.lengths, edited=edited):
            broken.add(layer)

    def read(site: str, layer: int, activation: Tensor) -> None:
        if site == "pattern" and poolings:
            weigh(layer, activation)
        for wanted, other in also:
            if layer in wanted.get(site, ()):
                other(site, layer, activation)

    sites = {"pattern": set(range(size.n_layers))} if poolings else {}
    for wanted, _ in also:
        sites = {site: sites.get(site, set()) | wanted.get(site, set()) for site in {**sites, **wanted}}
    run = shared_stream if shared else stream
    logits = run(model, batch.tokens, read, sites, lengths=batch.lengths, at=batch.lengths - 1)
    assert logits is not None
    check_sound(broken)
    logs = full_precision(logits).log_softmax(-1)[:, found.label_ids.to(logits.device)].cpu().double().numpy()
    if not np.isfinite(logs).all():
        raise Refused(
            "the model's logits are not finite: look for NaN or infinite weights, or overflow in float16"
        )
    return {"log_probability": logs, "weight": weight}

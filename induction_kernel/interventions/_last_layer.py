"""Single heads of the last layer: only the final norm reads what they write, so logits start from d_head numbers.

A metric of log-probabilities needs every word's logit: this way that is d_head products a word, not d_model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._changes import changed
from ._widened_batch import WidenedBatch

__all__ = ["found_at_the_end", "reach_the_end"]


def reach_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> bool:
    """Whether these are single heads whose output the final norm reads, and every word's probability is wanted."""
    additions = batch.additions(joining)
    if additions is None or batch.site != "z" or batch.wanted.ids is None:
        return False
    single = all(len(heads) == 1 for heads in batch.heads_of(layer, joining))
    many = batch.cells[joining[0]].position is None and batch.wanted.metric.normalised
    return single and many and additions.adds_to_the_end(layer)


def found_at_the_end(batch: WidenedBatch, layer: int, joining: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Each of these cells and what the metric finds in it, `[prompt, read, target]`."""
    additions, wanted, final = batch.additions(joining), batch.wanted, batch.lane.final
    assert additions is not None and wanted.ids is not None  # noqa: PT018  # `reach_the_end` looked
    needed = (wanted.there & (wanted.positions >= batch.start)).to(final.device)
    prompt = torch.arange(len(needed), device=needed.device)[:, None].expand(needed.shape)[needed]
    at = wanted.positions.to(needed.device)[needed]
    heads = [head for of_cell in batch.heads_of(layer, joining) for head in of_cell]
    z = additions.untouched(layer, "z")
    moved = (changed(z, batch.new[layer], "z", slice(0, z.shape[1]), z.shape[1]) - z)[prompt, at][:, heads]
    resid, ids = final[prompt, at], wanted.ids.to(needed.device)[needed]
    logs = additions.log_probabilities_of_heads(layer, resid, moved, heads, ids)
    for index, of_cell in zip(joining, logs.cpu(), strict=True):
        found = batch.clean.clone()
        found[needed.cpu()] = of_cell.to(found)
        yield index, found

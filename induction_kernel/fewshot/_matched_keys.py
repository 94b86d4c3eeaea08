"""The matched control of label knock-out: other keys near the labels that get as much attention.

Knocking out labels moves their mass to other keys. So the control takes as much mass away from keys that are no labels,
near the labels: of the same heads, and where these have less on such keys, of other heads in the layer. Not the first
token, on which attention rests, and not the last, so that every row keeps something.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..heads._names import Head

__all__ = ["Removed", "other_keys"]

Removed = dict[int, Tensor]
"""Layer -> bool `[prompt, head, key]`: what the last token may not attend to."""


def other_keys(
    labels: Removed,
    attention: dict[int, Tensor],
    every_label: Tensor,
    heads: Sequence[Head],
    *,
    of_layer: bool,
) -> Removed:
    """Keys that are no labels and that together have as much attention.

    Args:
        labels: the entries to match.
        attention: layer -> `[prompt, head, key]`, the last token's, of the untouched run.
        every_label: bool `[prompt, key]`, keys never taken.
        heads: those whose labels are knocked out.
        of_layer: whether other heads of a layer make up for what these do not have.
    """
    out = {layer: torch.zeros_like(removed) for layer, removed in labels.items()}
    for prompt, is_label in enumerate(every_label.numpy()):
        order = _nearest_first(is_label)
        for layer, removed in labels.items():
            row, mine = attention[layer][prompt].numpy(), [h.head for h in heads if h.layer == layer]
            wanted = (row * removed[prompt].numpy()).sum(1)
            for head in mine:
                picked = order[_closest(row[head, order], wanted[head])]
                out[layer][prompt, head, picked] = True
            if not of_layer:
                continue
            missing = wanted.sum() - float((row * out[layer][prompt].numpy()).sum())
            others = np.setdiff1d(np.arange(len(row)), mine)
            entries = np.array([(head, key) for key in order for head in others], dtype=int).reshape(-1, 2)
            picked = entries[_closest(row[entries[:, 0], entries[:, 1]], missing)]
            out[layer][prompt, picked[:, 0], picked[:, 1]] = True
    return out


def _nearest_first(is_label: np.ndarray) -> np.ndarray:
    """Keys that are no labels, by how near they are to one; without the first token and the last."""
    place, labels = np.arange(len(is_label)), np.flatnonzero(is_label)
    distance = np.abs(place[:, None] - labels).min(1)
    order = np.argsort(distance, kind="stable")
    return order[(distance[order] > 0) & (order > 0) & (order < len(place) - 1)]


def _closest(masses: np.ndarray, wanted: float) -> np.ndarray:
    """Indices of masses that add up to about `wanted`: in order, never above it; one more where that is closer."""
    picked, total = [], 0.0
    for index, mass in enumerate(masses.tolist()):
        if total + mass <= wanted:
            picked.append(index)
            total += mass
    left = np.setdiff1d(np.arange(len(masses)), picked)
    if len(left):
        best = left[np.abs(total + masses[left] - wanted).argmin()]
        if abs(total + masses[best] - wanted) < abs(total - wanted):
            picked.append(int(best))
    return np.array(picked, dtype=int)

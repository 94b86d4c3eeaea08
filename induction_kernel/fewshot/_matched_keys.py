"""The matched control of label knock-out: other keys near the labels with the same attention mass.

Knocking out labels moves their attention mass to other keys. The control removes as much mass from keys that are not
labels, as near to the labels as possible: from the same heads, and, where these have less on such keys, from other
heads of the layer. The first token, on which much attention rests, and the last are never removed, so every row keeps
some attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..heads._names import Head

__all__ = ["Removed", "other_keys"]

Removed = dict[int, Tensor]
"""Layer -> bool `[prompt, head, key]`: the keys removed from the last token's attention."""


def other_keys(
    labels: Removed,
    attention: dict[int, Tensor],
    every_label: Tensor,
    heads: Sequence[Head],
    *,
    of_layer: bool,
) -> Removed:
    """Keys that are not labels and together have as much attention as the labels that are knocked out.

    Args:
        labels: the label entries to match.
        attention: the last token's attention in the untouched run, layer -> `[prompt, head, key]`.
        every_label: bool `[prompt, key]`, keys that are never removed.
        heads: the heads whose labels are knocked out.
        of_layer: whether other heads of the layer make up for mass that these heads lack.
    """
    out = {layer: torch.zeros_like(removed) for layer, removed in labels.items()}
    for prompt, is_label in enumerate(every_label.numpy()):
        order = _nearest_first(is_label)
        for layer, removed in labels.items():
            row, chosen = attention[layer][prompt].numpy(), [h.head for h in heads if h.layer == layer]
            wanted = (row * removed[prompt].numpy()).sum(1)
            for head in chosen:
                picked = order[_closest(row[head, order], wanted[head])]
                out[layer][prompt, head, picked] = True
            if not of_layer:
                continue
            missing = wanted.sum() - float((row * out[layer][prompt].numpy()).sum())
            others = np.setdiff1d(np.arange(len(row)), chosen)
            entries = np.array([(head, key) for key in order for head in others], dtype=int).reshape(-1, 2)
            picked = entries[_closest(row[entries[:, 0], entries[:, 1]], missing)]
            out[layer][prompt, picked[:, 0], picked[:, 1]] = True
    return out


def _nearest_first(is_label: np.ndarray) -> np.ndarray:
    """Keys that are not labels, the nearest to a label first; without the first token and the last."""
    place, labels = np.arange(len(is_label)), np.flatnonzero(is_label)
    distance = np.abs(place[:, None] - labels).min(1)
    order = np.argsort(distance, kind="stable")
    return order[(distance[order] > 0) & (order > 0) & (order < len(place) - 1)]


def _closest(masses: np.ndarray, wanted: float) -> np.ndarray:
    """Indices of masses that add up to nearly `wanted`: in order without exceeding it, one more if that is closer."""
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

"""Operations of the matrix products that a call cannot do without, whatever way it is computed.

A position is run again only from where it may differ, the last layer and the unembedding only where the metric reads;
what runs need in common is counted once. Elementwise work (norms, softmax, activations) is not counted.
`growth.py` compares measured times with these, and counts a sweep of GPT-J-6B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHOSEN = [(0, 0), (2, 1)]  # heads of the sweep of two


@dataclass(frozen=True)
class Size:
    """A model, and the prompts that it is asked about: two copies of random tokens."""

    layers: int = 4
    heads: int = 4
    prompts: int = 2
    positions: int = 64
    vocabulary: int = 5000
    d_model: int = 256
    d_head: int = 64
    d_mlp: int = 1024
    parallel: bool = False

    @property
    def inner(self) -> int:
        """Width of z."""
        return self.heads * self.d_head

    @property
    def token(self) -> int:
        """Operations of a layer's matrix products at one position, but for attention."""
        return 8 * self.d_model * self.inner + self.mlp

    @property
    def mlp(self) -> int:
        """Those of the MLP."""
        return 4 * self.d_model * self.d_mlp

    def attention(self, start: int = 0) -> int:
        """Operations of scores and of their sums over values, of the queries from `start` on in one prompt."""
        pairs = (self.positions * (self.positions + 1) - start * (start + 1)) // 2
        return 4 * self.inner * pairs

    @property
    def layer(self) -> int:
        """Operations of one layer in one prompt."""
        return self.positions * self.token + self.attention()

    def until_z(self, layer: int) -> int:
        """Operations of a run up to z of a layer, in one prompt."""
        return layer * self.layer + self.positions * 6 * self.d_model * self.inner + self.attention()

    def layers_after(self, layer: int, start: int = 0) -> int:
        """Operations of the layers after this one, in one prompt from `start` on; the last, only where it is read."""
        rest, read = self.positions - start, self.read_from(start)
        if layer >= self.layers - 1:
            return 0
        last = rest * 4 * self.d_model * self.inner + read * (self.token - 4 * self.d_model * self.inner)
        last += self.attention(self.positions - read)
        return (self.layers - 2 - layer) * (rest * self.token + self.attention(start)) + last

    def read_from(self, start: int) -> int:
        """How many positions from `start` on `repeat_loss` reads: those of the second copy, but for the last."""
        return min(self.positions // 2, self.positions - start) - 1

    @property
    def unembedding(self) -> int:
        """Operations of the logits at one position."""
        return 2 * self.d_model * self.vocabulary


def heads_work(size: Size, cells: list[int]) -> float:
    """Operations of a sweep of heads in these layers: the control's run up to them, the untouched run, each head's."""
    read, after = size.read_from(0), 0 if size.parallel else size.mlp
    total = size.until_z(max(cells)) + size.layers * size.layer + 2 * read * size.unembedding
    for layer in cells:
        here = size.positions if layer < size.layers - 1 else read
        total += here * (2 * size.d_head * size.d_model + after)
        total += size.layers_after(layer) + read * size.unembedding
    return size.prompts * total


def all_heads_work(size: Size) -> float:
    """Operations of a sweep of all heads."""
    return heads_work(size, [layer for layer in range(size.layers) for _ in range(size.heads)])


def chosen_heads_work(size: Size) -> float:
    """Operations of a sweep of two heads."""
    return heads_work(size, [layer for layer, _ in CHOSEN])


def ablation_work(size: Size) -> float:
    """Operations of the ablation of two heads of one layer together."""
    return (
        heads_work(size, [size.layers // 2]) + size.prompts * size.positions * 2 * size.d_head * size.d_model
    )


def residual_work(size: Size) -> float:
    """Operations of a sweep of the residual stream: before the layer it differs at one position alone."""
    total = (2 * size.layers - 1) * size.layer + 2 * size.read_from(0) * size.unembedding
    for start in range(size.positions - 1):
        rest, read = size.positions - start, size.read_from(start)
        for layer in range(size.layers):
            here = rest if layer < size.layers - 1 else read
            total += 6 * size.d_model * size.inner + 4 * size.inner * (start + here)
            total += here * (2 * size.d_model * size.inner + size.mlp)
            total += size.layers_after(layer, start) + read * size.unembedding
    return size.prompts * total


def forward_work(size: Size) -> float:
    """Operations of one forward pass, with all logits."""
    return size.prompts * (size.layers * size.layer + size.positions * size.unembedding)


def induction_work(size: Size) -> float:
    """Operations of induction scores with their control: whole layers, of the last one the scores of attention."""
    last = size.positions * 4 * size.d_model * size.inner + size.attention() // 2
    return 2 * size.prompts * ((size.layers - 1) * size.layer + last)


WORK = {
    "sweep of all heads": all_heads_work,
    "sweep of two heads": chosen_heads_work,
    "sweep of the residual stream": residual_work,
    "ablate two heads": ablation_work,
    "induction": induction_work,
    "one forward pass": forward_work,
}


GPT_J = Size(
    layers=28,
    heads=16,
    prompts=32,
    positions=64,
    vocabulary=50400,
    d_model=4096,
    d_head=256,
    d_mlp=16384,
    parallel=True,
)
GPUS = {  # operations a second that an H200 is said to do at most, bytes of a number
    "bfloat16": (989e12, 2),
    "float32": (67e12, 4),
}


def sweep_of_gpt_j(share: float = 0.4) -> dict[str, Any]:
    """A sweep of GPT-J-6B's 448 heads: its operations, and time and memory on a GPU that keeps up a share of its peak.

    Seconds are operations / (peak x share). In memory are the weights; six activations of the untouched run at each
    layer and position (the stream, q, k, v, z, the MLP's output), and the value of z from the control; and one widened
    batch, with as many numbers at each position as the package counts on (`tokens_at_once`).
    """
    size = GPT_J
    parameters = size.layers * (4 * size.d_model * size.inner + 2 * size.d_model * size.d_mlp)
    parameters += 2 * size.d_model * size.vocabulary
    operations = all_heads_work(size)
    tokens, cells = size.prompts * size.positions, size.layers * size.heads
    kept = size.layers * tokens * 6 * size.d_model + size.layers * size.positions * size.inner
    batch = min(2**17, cells * tokens)
    wide = batch * (10 * size.d_model + 2 * size.d_mlp + 3 * size.heads * size.positions)
    return {
        "parameters": parameters, "cells": cells, "tokens": tokens, "operations": operations, "share": share,
        "of": [
            {
                "dtype": dtype, "peak": peak, "seconds": operations / (peak * share), "weights": parameters * each,
                "kept": kept * each, "batch": wide * each,
            }
            for dtype, (peak, each) in GPUS.items()
        ],
    }  # fmt: skip

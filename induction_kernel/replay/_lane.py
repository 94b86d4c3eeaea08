"""The protocol of a lane, a way of running layers again: from the model's parameters, or by its own blocks.

`Decoder` (standard decoders, faster) and `Blocks` (any architecture) are lanes. They run the rows of many edited runs
(cells) together: see `_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..model._anatomy import Model
from ._capture import Taps
from ._rows import Rows

__all__ = ["Additions", "Lane"]


class Lane(Protocol):
    """Layers of one batch of prompts, computed again from its untouched run.

    Attributes:
        name: the attribute `lane` of results.
        saves_positions: whether positions before an edit need not run again.
        taps_log_pattern: whether `step` takes taps on the logarithm of a pattern ("log_pattern").
        n_layers: of the model.
        final: `[prompt, position, d_model]`, the untouched stream after the last layer.
    """

    name: str
    saves_positions: bool
    taps_log_pattern: bool
    n_layers: int
    final: Tensor

    def __init__(self, model: Model, tokens: Tensor, lengths: Tensor | None) -> None: ...

    def resid_pre(self, layer: int) -> Tensor:
        """The untouched residual stream before a layer, `[prompt, position, d_model]`."""
        ...

    def pattern(self, layer: int) -> Tensor:
        """The untouched pattern of a layer, `[prompt, head, query, key]`."""
        ...

    def step(
        self,
        layer: int,
        rows: Rows,
        *,
        reads: Tensor | None = None,
        taps: Sequence[Taps] | None = None,
        held: Tensor | None = None,
    ) -> Rows:
        """The rows after the layer, at all positions from each start on, or at `reads` where these are fewer.

        `taps` are, for each part of the rows, functions that replace activations in the layer, by site; `held` is the
        pattern to hold fixed.
        """
        ...

    def additions(self, site: str) -> Additions | None:
        """The lane if an edit at this site can be added to the untouched stream; None if the layer must run again."""
        ...

    def logits(self, resid: Tensor) -> Tensor:
        """Logits `[..., vocab]` of the final residual stream `[..., d_model]`."""
        ...

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        ...

    def log_probabilities(self, resid: Tensor, ids: Tensor) -> Tensor:
        """The same of log-probabilities, in float32 or better."""
        ...


class Additions(Protocol):
    """A lane that keeps the untouched activations, so that changes can be added to them."""

    def untouched(self, layer: int, site: str) -> Tensor:
        """The untouched activation at z or a site of the stream, `[prompt, position, ...]`."""
        ...

    def written_by_heads(self, layer: int, z: Tensor, heads: list[int]) -> Tensor:
        """What these heads write, `[head, prompt, position, d_model]`, from `z [prompt, position, head, d_head]`."""
        ...

    def after(self, layer: int, site: str, delta: Rows) -> Rows:
        """The stream after the layer if `delta` is added to the untouched activation at a site after attention."""
        ...

    def adds_to_the_end(self, layer: int) -> bool:
        """Whether what the heads of this layer write reaches the final norm unchanged."""
        ...

    def log_probabilities_of_heads(
        self, layer: int, resid: Tensor, z: Tensor, heads: list[int], ids: Tensor
    ) -> Tensor:
        """Log-probabilities `[head, row, target]` of `ids [row, target]` if a head adds `z [row, head, d_head]`."""
        ...

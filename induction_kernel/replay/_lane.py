"""The protocol of a lane: layers of one batch run again on a widened batch `[cell, prompt, position, d_model]`.

`Blocks` (any architecture) and `Decoder` (standard decoders, faster) are lanes.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..model._anatomy import Model
from ._capture import Taps

__all__ = ["Additions", "Lane"]


class Lane(Protocol):
    """Layers of one batch of prompts, computed again from its untouched run.

    Attributes:
        name: as it stands in results.
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
        """`[prompt, position, d_model]`, the untouched stream before a layer."""
        ...

    def pattern(self, layer: int) -> Tensor:
        """`[prompt, head, query, key]`, the untouched pattern."""
        ...

    def step(
        self,
        layer: int,
        rows: Tensor,
        start: int,
        *,
        reads: Tensor | None = None,
        taps: Taps | None = None,
        held: Tensor | None = None,
    ) -> Tensor:
        """`rows [cell, prompt, position >= start, d_model]` after the layer, at all positions or `reads`."""
        ...

    def additions(self, site: str) -> Additions | None:
        """How an edit of the site is added to the untouched stream; None if the layer has to run again."""
        ...

    def logits(self, resid: Tensor) -> Tensor:
        """`[..., vocab]` of the final residual stream `[..., d_model]`."""
        ...

    def log_sum_exp(self, resid: Tensor) -> Tensor:
        """Log-sum-exp `[...]` over the vocabulary, of the final residual stream `[..., d_model]`."""
        ...

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        ...


class Additions(Protocol):
    """A lane that keeps the untouched activations, so that changes can be added to them."""

    def untouched(self, layer: int, site: str) -> Tensor:
        """The untouched activation at z or a site of the stream, `[prompt, position, ...]`."""
        ...

    def written_by_heads(self, layer: int, z: Tensor, heads: list[int]) -> Tensor:
        """What these heads write: `[head, prompt, position, d_model]` of `z [prompt, position, head, d_head]`."""
        ...

    def after_attention(self, layer: int, delta: Tensor, positions: Tensor) -> Tensor:
        """The stream after the layer if attention writes `delta [cell, prompt, read, d_model]` more than it did."""
        ...

    def adds_to_the_end(self, layer: int) -> bool:
        """Whether what the heads of this layer write reaches the final norm unchanged."""
        ...

    def log_probabilities_of_heads(
        self, layer: int, resid: Tensor, z: Tensor, heads: list[int], ids: Tensor
    ) -> Tensor:
        """`[head, row, target]` of `ids [row, target]`, if heads of the last layer add `z [row, head, d_head]`."""
        ...

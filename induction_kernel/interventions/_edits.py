"""The edits: what stands in the place of an activation, `new = scale * old + value`, and knock-out for patterns.

Convention: `Zero` and `Scale` act on the activation as it stands. Folding value biases into the output takes them out
of z and v, so there these two do another thing on raw than on processed weights of one model; `ZeroValues` and all
other edits do the same. Zero is out of distribution; the mean on a matched reference is not. Means and activations
of other runs are in `_edits_from_runs`. No edited run is made here: see `_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..model._self_check import is_causal
from ..model._weights import value_weights
from ..prompts._prompts import Prompts
from ._activations import Edit, New, shape_at
from ._edits_from_runs import FromRun, Mean, Resample

__all__ = [
    "Add",
    "Edit",
    "FromRun",
    "Given",
    "KnockOut",
    "Mean",
    "New",
    "Resample",
    "Scale",
    "Zero",
    "ZeroValues",
]


@dataclass(frozen=True)
class Zero:
    """Zero in its place: z := 0, v := 0, whatever the site. Not of patterns.

    Of z and v it takes the value bias away too, unless that has been folded into the output (`fold_value_biases`, a
    default of TransformerLens' loading), where it stays: the two are different edits of one model. `ZeroValues` is one
    and the same.
    """

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """Scale 0, value 0."""
        return Scale(0.0).new(model, prompts, site, layers)


@dataclass(frozen=True)
class ZeroValues:
    """The value bias in the place of z or v, as if all that the head reads were zero. Of z and v alone.

    The same on raw and on processed weights: z := b_V, with the bias of the norm before attention in b_V. Where both
    are zero, or folded into the output, it is `Zero`.
    """

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """Scale 0; `[head, d_head]` of z, of the key/value heads of v."""
        size = sizes(model)
        step = 1 if site == "z" else size.n_heads // size.n_key_value_heads
        return {layer: New(0.0, value_weights(model, layer)[1][::step]) for layer in layers}


@dataclass(frozen=True)
class Scale:
    """The activation as it stands, times a number. Not of patterns.

    Of z and v it scales the value bias too, unless that has been folded into the output: see `Zero`.

    Attributes:
        factor: 0 is `Zero`, 1 changes nothing, 2 doubles.
    """

    factor: float

    def __post_init__(self) -> None:
        number = isinstance(self.factor, Real) and not isinstance(self.factor, bool)
        if not number or not -1e30 < self.factor < 1e30:
            raise Refused(f"wanted a finite number to scale by, got {self.factor!r}")
        object.__setattr__(self, "factor", float(self.factor))

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """`factor * old`."""
        return dict.fromkeys(layers, New(float(self.factor), torch.zeros(())))


@dataclass(frozen=True, eq=False)
class Add:
    """The activation plus a vector. Not of patterns.

    Attributes:
        vector: broadcasts to `[prompt, position, head, d_head]` at z, q, k and v, to `[prompt, position, d_model]`
            at the other sites; the last dimension in full.
    """

    vector: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Tensor) or not self.vector.is_floating_point():
            raise TypeError(f"wanted a vector as a floating-point tensor, got {type(self.vector).__name__}")
        if self.vector.ndim < 1 or not bool(self.vector.isfinite().all()):
            raise Refused(f"wanted a vector of finite numbers, got shape {list(self.vector.shape)}")

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """Scale 1."""
        shape = shape_at(model, prompts, site)
        try:
            fits = torch.broadcast_shapes(self.vector.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits or self.vector.shape[-1] != shape[-1]:
            raise Refused(
                f"wanted a vector that broadcasts to {list(shape)} at {site}, got {list(self.vector.shape)}"
            )
        return dict.fromkeys(layers, New(1.0, self.vector.detach()))


@dataclass(frozen=True, eq=False)
class KnockOut:
    """Attention removed from a query to a key, the rest of the row renormalised (as -inf before the softmax).

    Attributes:
        mask: bool, broadcasts to `[prompt, head, query, key]`; True is removed. A query that is left with nothing is
            a Refused, also where it is a layer's window that hides the rest.

    Source: Geva et al. 2023 (attention knock-out).
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool:
            got = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise TypeError(f"wanted a bool tensor to knock out, got {got}")

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """What is removed, checked to leave something to every query."""
        shape = shape_at(model, prompts, "pattern")
        try:
            removed = self.mask.expand(shape)
        except RuntimeError:
            raise Refused(
                f"wanted a mask that broadcasts to {list(shape)}, got {list(self.mask.shape)}"
            ) from None
        length = shape[-1]
        real = torch.arange(length) < prompts.lengths[:, None]
        seen = (
            torch.ones(length, length, dtype=torch.bool).tril() if is_causal(model) else real[:, None, None]
        )
        left = seen & ~removed.cpu()
        nothing = (~left.any(-1) & real[:, None]).nonzero()
        if len(nothing):
            prompt, head, query = nothing[0].tolist()
            raise Refused(
                f"query {query} of prompt {prompt}, head {head}, would be left with nothing to attend to: keep one key"
            )
        # Padding attends as it did: nothing there counts, but a row of nothing would be NaN.
        return dict.fromkeys(layers, New(1.0, torch.zeros(()), self.mask.cpu() & real[:, None, :, None]))


@dataclass(frozen=True, eq=False)
class Given:
    """New values that are known beforehand.

    Attributes:
        values: layer -> what becomes of the activation there.
    """

    values: Mapping[int, New] = field(default_factory=dict)

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """Those of these layers."""
        return {layer: self.values[layer] for layer in layers}

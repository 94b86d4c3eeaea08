"""Edits that need no other run: zero, the value bias, a multiple, an added vector, attention knock-out.

An edit replaces an activation by `new = scale * old + value`. Convention: `Zero` and `Scale` act on the whole
activation. Folding value biases into the output takes them out of z and v, so at these sites the two are different
edits on raw and on processed weights of one model; `ZeroValues` and all other edits are the same on both. Zero is out
of distribution, the mean over a matched reference is not. `_edits_from_runs` has the mean and the activations of other
runs; `_engine` runs the edited model.
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
from ._activations import New, shape_at

__all__ = ["Add", "Given", "KnockOut", "Scale", "Zero", "ZeroValues"]


@dataclass(frozen=True)
class Zero:
    """Zero ablation: the activation becomes 0, at any site but the pattern.

    Use it as `edit=` of `ablate`, `sweep` and others: `ik.ablate(model, prompts, "L5H1", edit=ik.Zero())`. At z and v
    it removes the value bias too, unless that has been folded into the output (`fold_value_biases`, a default of
    TransformerLens' loading), where it stays. So on raw and on processed weights it is not the same edit; `ZeroValues`
    is.
    """

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(0, 0)`."""
        return Scale(0.0).new(model, prompts, site, layers)


@dataclass(frozen=True)
class ZeroValues:
    """Values without what the head reads: z or v becomes the value bias. At sites z and v only.

    Use it as `edit=`: `ik.ablate(model, prompts, "L5H1", edit=ik.ZeroValues())`. The same edit on raw and on processed
    weights: z := b_V, where b_V includes the bias of the norm before attention. If both biases are zero, or folded into
    the output, it equals `Zero`.
    """

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(0, b_V)`, `[head, d_head]`; at v by key/value head."""
        size = sizes(model)
        step = 1 if site == "z" else size.n_heads // size.n_key_value_heads
        return {layer: New(0.0, value_weights(model, layer)[1][::step]) for layer in layers}


@dataclass(frozen=True)
class Scale:
    """The activation times a number, at any site but the pattern.

    Use it as `edit=`: `ik.ablate(model, prompts, "L5H1", edit=ik.Scale(0.5))`. At z and v it scales the value bias too,
    unless that has been folded into the output: see `Zero`.

    Attributes:
        factor: a finite number: 0 is `Zero`, 1 changes nothing, 2 doubles.

    Raises:
        Refused: not a finite number.
    """

    factor: float

    def __post_init__(self) -> None:
        number = isinstance(self.factor, Real) and not isinstance(self.factor, bool)
        if not number or not -1e30 < self.factor < 1e30:
            raise Refused(f"wanted a finite number to scale by, got {self.factor!r}")
        object.__setattr__(self, "factor", float(self.factor))

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(factor, 0)`."""
        return dict.fromkeys(layers, New(self.factor, torch.zeros(())))


@dataclass(frozen=True, eq=False)
class Add:
    """The activation plus a vector, at any site but the pattern.

    Use it as `edit=`: `ik.sweep(model, prompts, edit=ik.Add(vector), site="resid_pre", by=("layer",))`.

    Attributes:
        vector: a floating-point tensor that broadcasts to `[prompt, position, head, d_head]` at z, q, k and v, and to
            `[prompt, position, d_model]` at the other sites; its last dimension must be d_head or d_model.

    Raises:
        TypeError: not a floating-point tensor.
        Refused: numbers that are not finite; when it is used, a shape that does not broadcast.
    """

    vector: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Tensor) or not self.vector.is_floating_point():
            got = self.vector.dtype if isinstance(self.vector, Tensor) else type(self.vector).__name__
            raise TypeError(f"wanted a vector as a floating-point tensor, got {got}")
        if self.vector.ndim < 1:
            raise Refused("wanted a vector of d_head or d_model numbers, got a single number")
        if not bool(self.vector.isfinite().all()):
            raise Refused("wanted a vector of finite numbers, got NaN or infinity in it")

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(1, vector)`."""
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
    """Attention knock-out: attention from some queries to some keys is removed. For patterns only.

    The rest of each row is renormalised, as if the attention scores had been -inf. Use it as
    `ik.sweep(model, prompts, edit=ik.KnockOut(mask), site="pattern")`, or use `knock_out`.

    Attributes:
        mask: bool, broadcasts to `[prompt, head, query, key]`; True is removed.

    Raises:
        TypeError: not a bool tensor.
        Refused: when it is used, a mask that does not broadcast, or that leaves a query nothing to attend to (in a
            layer with a sliding window, nothing in the window).

    Source: Geva et al. 2023 (attention knock-out).
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool:
            got = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise TypeError(f"wanted a bool tensor to knock out, got {got}")

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(removed=mask)`, checked to leave every query a key.

        Raises:
            Refused: a mask that does not broadcast, or that leaves a query nothing to attend to.
        """
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
        # Queries in padding keep their attention: they do not count, but an empty row would be NaN.
        return dict.fromkeys(layers, New(1.0, torch.zeros(()), self.mask.cpu() & real[:, None, :, None]))


@dataclass(frozen=True, eq=False)
class Given:
    """New values given directly, by layer.

    Attributes:
        values: layer -> new value of the activation there.
    """

    values: Mapping[int, New] = field(default_factory=dict)

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new values of these layers."""
        return {layer: self.values[layer] for layer in layers}

"""What stands in the place of an activation? The edits: `new = scale * old + value`, and knock-out for patterns.

Convention: `Zero` and `Scale` act on the activation as it stands. Folding value biases into the output takes them out
of z and v, so there these two do another thing on raw than on processed weights of one model; `ZeroValues` and all
other edits do the same. Zero is out of distribution; the mean on a matched reference is not. Nothing is run again
here: see `_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import stream
from ..model._self_check import is_causal
from ..model._weights import value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import Edit, New, fitted, shape_at

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
class Mean:
    """The mean activation over reference prompts.

    Attributes:
        reference: prompts to average over; None for the edited prompts' matched control, or for themselves
            where they have none.
        by_position: whether each position has its own mean (all lengths must be equal) or all positions but the
            first, an outlier, have one; None for the former where it can be had. Of patterns only the former.
    """

    reference: Any = None
    by_position: bool | None = None

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """Scale 0; `[position or 1, ...]` of each layer."""
        tokens, lengths = _reference(model, prompts, self.reference)
        one_length = len({*lengths.tolist(), *prompts.lengths.tolist()}) == 1
        if not one_length and (self.by_position or site == "pattern"):
            raise Refused(
                "a mean by position needs prompts and reference of one length, got "
                f"{sorted({*lengths.tolist(), *prompts.lengths.tolist()})}: pass a reference of that length"
                + ("" if site == "pattern" else ", or Mean(by_position=False)")
            )
        by_position = site == "pattern" or (one_length if self.by_position is None else self.by_position)
        tokens = fitted(tokens, prompts.tokens.shape[1]) if by_position else tokens
        place = torch.arange(tokens.shape[1])
        counted = (place < lengths[:, None]) & (place > 0)
        if not by_position and not bool(counted.any()):
            raise Refused(
                "wanted a reference of more than one token a prompt (the first is left out), got none"
            )
        means: dict[int, New] = {}

        def read(_: str, layer: int, activation: Tensor) -> None:
            if by_position:
                means[layer] = New(0.0, full_precision(activation).mean(0, keepdim=True))
            else:
                of_counted = full_precision(activation[counted.to(activation.device)])
                means[layer] = New(0.0, of_counted.mean(0)[None, None])

        stream(model, tokens, read, {site: layers}, lengths=lengths)
        return means


@dataclass(frozen=True, eq=False)
class Resample:
    """Another prompt's activation at the same position, drawn at random.

    Attributes:
        reference: prompts to draw from; None for the edited prompts' matched control (for themselves where they
            have none), of another prompt than the one edited.
        seed: of the draw.
    """

    reference: Any = None
    seed: int = 0

    def source(self, model: Model, prompts: Prompts) -> Prompts:
        """The prompts drawn, cut to the lengths of those that are edited."""
        tokens, lengths = _reference(model, prompts, self.reference)
        drawn = self.drawn(len(prompts), None if self.reference is None else len(tokens))
        tokens, lengths = tokens[drawn], lengths[drawn]
        if bool((lengths != prompts.lengths).any()) and not is_causal(model):
            raise Refused(
                "wanted a reference of prompts as long as these for a bidirectional model, in which a part of a prompt "
                f"runs otherwise than the whole, got {lengths.tolist()} for {prompts.lengths.tolist()} tokens"
            )
        if bool((lengths < prompts.lengths).any()):
            row = int((lengths < prompts.lengths).int().argmax())
            raise Refused(
                f"prompt {row} has {int(prompts.lengths[row])} tokens, the one drawn for it {int(lengths[row])}: pass "
                "a reference of prompts at least as long, or prompts of one length (repeated_tokens(model, period=...))"
            )
        width = prompts.tokens.shape[1]
        return Prompts(fitted(tokens, width), prompts.lengths, prompts.scored)

    def new(
        self, model: Model, prompts: Prompts, site: str, layers: set[int], taken: Mapping[int, Tensor]
    ) -> dict[int, New]:
        """Scale 0; what stood in the run on the prompts drawn."""
        return _as_it_stood(layers, taken)

    def drawn(self, n: int, of: int | None) -> Tensor:
        """`[prompt]`: which of `of` reference prompts stands for each of n; of n others if None."""
        generator = torch.Generator().manual_seed(checked_seed(self.seed))
        if of is not None:
            return torch.randint(of, (n,), generator=generator)
        if n < 2:
            raise Refused("wanted two prompts or more to draw another from, got 1: pass Resample(reference)")
        order = torch.randperm(n, generator=generator)  # each takes the next of a random circle: never itself
        return torch.empty_like(order).scatter_(0, order, order.roll(1))


@dataclass(frozen=True, eq=False)
class FromRun:
    """The activation of another run at the same prompt and position: activation patching.

    Attributes:
        other: as many prompts, of the same lengths.
    """

    other: Any

    def source(self, model: Model, prompts: Prompts) -> Prompts:
        """The other prompts."""
        return as_prompts(model, self.other)

    def new(
        self, model: Model, prompts: Prompts, site: str, layers: set[int], taken: Mapping[int, Tensor]
    ) -> dict[int, New]:
        """Scale 0; what stood in the other run."""
        return _as_it_stood(layers, taken)


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


def _as_it_stood(layers: set[int], taken: Mapping[int, Tensor]) -> dict[int, New]:
    return {layer: New(0.0, taken[layer]) for layer in layers}


def _reference(model: Model, prompts: Prompts, reference: Any) -> tuple[Tensor, Tensor]:
    if reference is not None:
        ready = as_prompts(model, reference)
        return ready.tokens, ready.lengths
    return prompts.tokens if prompts.control is None else prompts.control, prompts.lengths

"""Edits that put in what stood in other runs: the mean over reference prompts, another prompt's, another run's.

The mean is taken here; the runs that `Resample` and `FromRun` take from are made by the engine (see `_intervention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import Refused
from ..model._anatomy import Model, full_precision
from ..model._runs import stream
from ..model._self_check import is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import New, fitted

__all__ = ["FromRun", "Mean", "Resample"]


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


def _as_it_stood(layers: set[int], taken: Mapping[int, Tensor]) -> dict[int, New]:
    return {layer: New(0.0, taken[layer]) for layer in layers}


def _reference(model: Model, prompts: Prompts, reference: Any) -> tuple[Tensor, Tensor]:
    if reference is not None:
        ready = as_prompts(model, reference)
        return ready.tokens, ready.lengths
    return prompts.tokens if prompts.control is None else prompts.control, prompts.lengths

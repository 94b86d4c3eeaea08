"""Edits that take activations from other runs: the mean over reference prompts, another prompt's, another run's.

`Mean` runs its reference prompts itself; for `Resample` and `FromRun`, `taken_from` makes the run, and the same pass
gives the logits that `patch` measures in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import Refused
from ..metrics._metric import Metric, Reading, one_a_prompt, part_of, read_at, reading_of
from ..model._anatomy import Model, full_precision, sizes
from ..model._outputs import n_outputs
from ..model._runs import batches, stream
from ..model._self_check import is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import New, fitted

__all__ = ["FromRun", "Mean", "Resample", "readings_by_piece", "taken_from"]


@dataclass(frozen=True, eq=False)
class Mean:
    """Mean ablation: the activation becomes its mean over reference prompts. The default edit.

    Use it as `edit=`: `ik.ablate(model, prompts, "L5H1", edit=ik.Mean(reference))`.

    Attributes:
        reference: prompts to average over, anything `as_prompts` takes; None for the matched control of the edited
            prompts, or for these prompts themselves if they have none.
        by_position: True for a mean at each position (all lengths must be equal), False for one mean over all positions
            but the first, which is an outlier; None for True if all lengths are equal. Patterns need True or None.

    Raises:
        Refused: when it is used, unequal lengths for a mean by position; a reference of one token a prompt; no
            reference for one prompt (or copies of one) without a control, which is its own mean.
    """

    reference: Any = None
    by_position: bool | None = None

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """The new value by layer: `New(0, mean)`, the mean `[1, position or 1, ...]`.

        Raises:
            Refused: unequal lengths for a mean by position; a reference of one token a prompt; nothing to average over.
        """
        tokens, lengths = _reference(model, prompts, self.reference)
        one_length = len({*lengths.tolist(), *prompts.lengths.tolist()}) == 1
        if not one_length and (self.by_position or site == "pattern"):
            raise Refused(
                "a mean by position needs prompts and reference of one length, got "
                f"{sorted({*lengths.tolist(), *prompts.lengths.tolist()})}: pass a reference of that length"
                + ("" if site == "pattern" else ", or Mean(by_position=False)")
            )
        by_position = site == "pattern" or (one_length if self.by_position is None else self.by_position)
        if (
            by_position
            and self.reference is None
            and prompts.control is None
            and bool((tokens == tokens[0]).all())
        ):
            raise Refused(
                "Mean() has nothing to average over: there is one prompt (or copies of one) and no control, so the "
                "mean is the activation itself: pass Mean(reference) with other prompts, or Zero()"
            )
        tokens = fitted(tokens, prompts.tokens.shape[1]) if by_position else tokens
        place = torch.arange(tokens.shape[1])
        counted = (place < lengths[:, None]) & (place > 0)
        if not by_position and not bool(counted.any()):
            raise Refused(
                "wanted a reference with more than one token in a prompt (the mean leaves out the first), got none: "
                "pass longer prompts"
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
    """Resample ablation: the activation of another prompt, drawn at random, at the same position.

    Use it as `edit=`: `ik.ablate(model, prompts, "L5H1", edit=ik.Resample(reference, seed=0))`.

    Attributes:
        reference: prompts to draw from, at least as long as the edited ones; None to draw, for each edited prompt,
            another prompt's matched control (or another prompt itself if there is no control).
        seed: of the draw.

    Raises:
        Refused: when it is used, a drawn prompt that is too short (in a bidirectional model, of another length); a
            single prompt without a reference.
    """

    reference: Any = None
    seed: int = 0

    def source(self, model: Model, prompts: Prompts) -> Prompts:
        """The prompts drawn, cut to the lengths of the edited ones.

        Raises:
            Refused: a drawn prompt that is too short, or, in a bidirectional model, of another length.
        """
        tokens, lengths = _reference(model, prompts, self.reference)
        drawn = self.drawn(len(prompts), None if self.reference is None else len(tokens))
        tokens, lengths = tokens[drawn], lengths[drawn]
        if bool((lengths != prompts.lengths).any()) and not is_causal(model):
            raise Refused(
                "wanted a reference of prompts exactly as long as these, since cutting a prompt changes all its "
                f"activations in a bidirectional model, got {lengths.tolist()} for {prompts.lengths.tolist()} tokens"
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
        """The new value by layer: `New(0, taken[layer])`, the activation in the run on the drawn prompts."""
        return _as_it_was(layers, taken)

    def drawn(self, n: int, of: int | None) -> Tensor:
        """`[prompt]`: which of `of` reference prompts replaces each of n prompts; None for another of the n.

        Raises:
            Refused: fewer than two prompts to draw another one from.
        """
        generator = torch.Generator().manual_seed(checked_seed(self.seed))
        if of is not None:
            return torch.randint(of, (n,), generator=generator)
        if n < 2:
            raise Refused("wanted two prompts or more to draw another from, got 1: pass Resample(reference)")
        order = torch.randperm(
            n, generator=generator
        )  # each takes from the next in a random cycle, never from itself
        return torch.empty_like(order).scatter_(0, order, order.roll(1))


@dataclass(frozen=True, eq=False)
class FromRun:
    """Activation patching: the activation of another run, at the same prompt and position.

    Use it as `edit=`: `ik.sweep(model, corrupted, edit=ik.FromRun(clean))`, or use `patch`, which also normalises.

    Attributes:
        other: the other run's prompts, anything `as_prompts` takes: as many as are edited, of the same lengths.

    Raises:
        Refused: when it is used, prompts of another number or other lengths.

    Source: Heimersheim & Nanda 2024; Zhang & Nanda 2023.
    """

    other: Any

    def source(self, model: Model, prompts: Prompts) -> Prompts:
        """The other run's prompts."""
        return as_prompts(model, self.other)

    def new(
        self, model: Model, prompts: Prompts, site: str, layers: set[int], taken: Mapping[int, Tensor]
    ) -> dict[int, New]:
        """The new value by layer: `New(0, taken[layer])`, the activation in the other run."""
        return _as_it_was(layers, taken)


def _as_it_was(layers: set[int], taken: Mapping[int, Tensor]) -> dict[int, New]:
    """The other run's activations as new values."""
    return {layer: New(0.0, taken[layer]) for layer in layers}


def _reference(model: Model, prompts: Prompts, reference: Any) -> tuple[Tensor, Tensor]:
    """Tokens and lengths of the reference; without one, of the matched control or of the prompts themselves."""
    if reference is not None:
        ready = as_prompts(model, reference)
        return ready.tokens, ready.lengths
    return prompts.tokens if prompts.control is None else prompts.control, prompts.lengths


def taken_from(
    model: Model, prompts: Prompts, width: int, site: str, layers: set[int], wanted: Reading | None = None
) -> tuple[dict[int, Tensor], Tensor | None]:
    """Layer -> activation at the site in a run on these prompts, padded to `width` positions.

    And the metric `[prompt]` on that run, of what is `wanted`; None if nothing is.
    """
    found: dict[int, Tensor] = {}

    def read(_: str, layer: int, activation: Tensor) -> None:
        found[layer] = activation.detach().clone()

    if not layers and wanted is None:
        return found, None
    tokens, of = fitted(prompts.tokens, width), {site: layers}
    if wanted is None:
        stream(model, tokens, read, of, lengths=prompts.lengths)
        return found, None
    ids = None if wanted.metric.normalised else wanted.ids
    logits = stream(model, tokens, read, of, lengths=prompts.lengths, at=wanted.positions, ids=ids)
    assert logits is not None  # positions were given
    return found, one_a_prompt(wanted, read_at(logits.cpu(), wanted, chosen=ids is not None))


def readings_by_piece(
    model: Model, metric: Metric, prompts: Prompts, rows: slice
) -> Iterator[tuple[slice, Reading]]:
    """Slices of these rows, small enough to hold the logits that the metric reads, and what it reads in each."""
    outputs = n_outputs(model)
    n_read = reading_of(part_of(metric, rows), prompts[rows], outputs).positions.shape[1]
    first = rows.start or 0
    for piece in batches(len(prompts[rows]), n_read, batch_size=None, cost=sizes(model).d_vocab):
        here = slice(first + piece.start, first + piece.stop)
        yield piece, reading_of(part_of(metric, here), prompts[here], outputs)

"""The run that an edit takes from: its activations, and what a metric measures in it, both in one pass of the model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..metrics._metric import Metric, Reading, one_a_prompt, part_of, read_at, reading_of
from ..model._anatomy import Model, sizes
from ..model._outputs import n_outputs
from ..model._runs import batches, stream
from ..prompts._prompts import Prompts
from ._activations import fitted

__all__ = ["readings_by_piece", "taken_from", "value_on"]


def taken_from(
    model: Model, prompts: Prompts, width: int, site: str, layers: set[int], at: Tensor | None = None
) -> tuple[dict[int, Tensor], Tensor | None]:
    """Layer -> activation at the site in a run on these prompts, padded to `width` positions.

    And its logits `[prompt, read, vocab]` at positions `at [prompt, read]`; None if no positions are given.
    """
    found: dict[int, Tensor] = {}

    def read(_: str, layer: int, activation: Tensor) -> None:
        found[layer] = activation.detach().clone()

    logits = None
    if layers or at is not None:
        tokens = fitted(prompts.tokens, width)
        logits = stream(model, tokens, read, {site: layers}, lengths=prompts.lengths, at=at)
    return found, logits


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


def value_on(logits: Tensor | None, wanted: Reading) -> Tensor:
    """The metric `[prompt]` on the logits of the positions that it reads."""
    assert logits is not None  # positions were given
    return one_a_prompt(wanted, read_at(logits.cpu(), wanted))

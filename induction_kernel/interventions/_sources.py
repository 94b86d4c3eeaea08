"""New values of an intervention for a batch of prompts, and the other run that an edit takes from.

An edit with `source` says which prompts the other run is on. That run is made here, once a batch, and the edit is given
what stood in it; any other edit is asked once, for all prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model
from ..model._runs import stream
from ..model._self_check import foreign_hooks, is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import HEAD_SITES, New, fitted
from ._intervention import Intervention

__all__ = ["NewValues", "new_values", "only_later", "taken_from"]


@dataclass(frozen=True, eq=False)
class NewValues:
    """What becomes of activations, for any rows of the prompts.

    Attributes:
        model: as it is.
        prompts: that are edited.
        intervention: what is edited.
        layers: in which.
        source: the prompts of the other run; None where the edit takes from none.
        whole: layer -> new value for all prompts, where the edit takes from no other run.
    """

    model: Model
    prompts: Prompts
    intervention: Intervention
    layers: set[int]
    source: Prompts | None
    whole: dict[int, New]

    def of(self, rows: slice) -> tuple[dict[int, New], int]:
        """Layer -> new value for these rows, and the first position where it differs from the run that is edited."""
        site, n = self.intervention.site, len(self.prompts)
        if self.source is None:
            return {layer: _of_rows(new, rows, n, site) for layer, new in self.whole.items()}, 0
        batch, other, edit = self.prompts[rows], self.source[rows], _any(self.intervention)
        taken = taken_from(self.model, other, batch.tokens.shape[1], site, self.layers)
        new = _checked(edit.new(self.model, batch, site, self.layers, taken), self.layers)
        as_it_stood = all(_is_number(new[at].scale, 0) and new[at].value is taken[at] for at in self.layers)
        start = _first_difference(batch, other) if as_it_stood and only_later(self.model) else 0
        return new, start


def new_values(model: Model, prompts: Prompts, intervention: Intervention, layers: set[int]) -> NewValues:
    """The new values of an intervention in these layers.

    Raises:
        TypeError: an edit whose `new` returns something else than a `New` for each layer.
        Refused: a source of another number of prompts, or of other lengths.
    """
    edit, site = _any(intervention), intervention.site
    has_source = callable(getattr(edit, "source", None))
    given = edit.source(model, prompts) if has_source else None
    if given is not None:
        source = _of_equal_lengths(as_prompts(model, given), prompts)
        return NewValues(model, prompts, intervention, layers, source, {})
    whole = edit.new(model, prompts, site, layers, *([{}] if has_source else []))
    return NewValues(model, prompts, intervention, layers, None, _checked(whole, layers))


def taken_from(model: Model, prompts: Prompts, width: int, site: str, layers: set[int]) -> dict[int, Tensor]:
    """Layer -> activation at the site in a run on these prompts, padded to `width` positions."""
    found: dict[int, Tensor] = {}

    def read(_: str, layer: int, activation: Tensor) -> None:
        found[layer] = activation.detach().clone()

    if layers:
        stream(model, fitted(prompts.tokens, width), read, {site: layers}, lengths=prompts.lengths)
    return found


def only_later(model: Model) -> bool:
    """Whether an edit moves later positions alone, so that what comes before it need not run."""
    return not foreign_hooks(model) and is_causal(model)  # hooks of the user's own may do anything


def _any(intervention: Intervention) -> Any:
    """The edit: whether its `new` takes what stood in another run says `source`, not its type."""
    return intervention.edit


def _checked(new: Any, layers: set[int]) -> dict[int, New]:
    if not isinstance(new, Mapping) or not all(isinstance(new.get(layer), New) for layer in layers):
        raise TypeError(
            f"wanted an edit whose `new` returns {{layer: New(scale, value)}} for layers {sorted(layers)}, got "
            f"{repr(new)[:200]}"
        )
    return {layer: new[layer] for layer in layers}


def _of_equal_lengths(source: Prompts, prompts: Prompts) -> Prompts:
    if len(source) != len(prompts):
        raise Refused(f"wanted as many prompts to take from, got {len(source)} for {len(prompts)}")
    for row, (a, b) in enumerate(zip(source.lengths.tolist(), prompts.lengths.tolist(), strict=True)):
        if a != b:
            raise Refused(
                f"prompt {row} has {b} tokens, the one to take from {a}: wanted equal lengths, see pairs(...)"
            )
    return source


def _of_rows(new: New, rows: slice, n: int, site: str) -> New:
    """A new value for some of n prompts; one without a dimension of prompts is of all."""
    dims = 4 if site in HEAD_SITES else 3

    def cut(value: Tensor) -> Tensor:
        return value[rows] if value.ndim == dims and value.shape[0] == n > 1 else value

    return new._replace(
        scale=cut(new.scale) if isinstance(new.scale, Tensor) else new.scale,
        value=cut(new.value),
        removed=None if new.removed is None else cut(new.removed),
    )


def _is_number(scale: float | Tensor, number: float) -> bool:
    return not isinstance(scale, Tensor) and scale == number


def _first_difference(prompts: Prompts, other: Prompts) -> int:
    """The first position where any two real tokens differ; the length where none do."""
    length = min(prompts.tokens.shape[1], other.tokens.shape[1])
    real = torch.arange(length) < prompts.lengths[:, None]
    differs = ((prompts.tokens[:, :length] != other.tokens[:, :length]) & real).any(0)
    return int(differs.int().argmax()) if bool(differs.any()) else prompts.tokens.shape[1]

"""An intervention: the edit, its site, the metric of the edited run, and what is held; its new values for a batch.

What goes together is checked here. An edit with `source` says which prompts another run is on: that run is made here,
once a batch, and the edit is given what stood in it; any other edit is asked once, for all prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import Refused
from ..metrics._metric import Metric
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model
from ..model._runs import stream
from ..model._self_check import foreign_hooks, is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import CONVENTION, HEAD_SITES, SITES, Edit, New, fitted
from ._edits import Add, KnockOut, Mean, Scale, Zero, ZeroValues

__all__ = ["Hold", "Intervention", "NewValues", "new_values", "only_later", "taken_from"]

Hold = Literal["patterns"] | None


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is changed in a run, and what is measured in it.

    Attributes:
        edit: what stands in the place of an activation.
        site: which activation, one of `SITES`.
        metric: what is measured.
        hold: "patterns" to hold every pattern at the untouched run's.

    Raises:
        TypeError: no edit. Refused: an edit, a site and a hold that do not go together.
    """

    edit: Edit
    site: str = "z"
    metric: Metric = repeat_loss
    hold: Hold = None

    def __post_init__(self) -> None:
        _check_edit(self.edit, self.site)
        _check_hold(self.hold, self.site)

    @property
    def attrs(self) -> dict[str, str]:
        """What a result says of it."""
        return {
            "edit": type(self.edit).__name__, "hold": self.hold or "none", "metric": self.metric.name,
            "unit": self.metric.unit, "convention": CONVENTION,
        }  # fmt: skip


def _check_edit(edit: Any, site: str) -> None:
    """Raise unless this is an edit, and one that can be made at this site."""
    if isinstance(edit, type) or not callable(getattr(edit, "new", None)):
        raise TypeError(f"wanted an edit like Zero() or Mean(reference), got {edit!r}")
    if site not in SITES:
        raise Refused(f"wanted a site out of {', '.join(SITES)}, got {site!r}")
    if site == "pattern" and isinstance(edit, Zero | ZeroValues | Scale | Add):
        raise Refused(
            f"wanted rows that still sum to 1, got {type(edit).__name__} of patterns: use KnockOut(mask), Mean, "
            "Resample or FromRun, or site='z'"
        )
    if isinstance(edit, ZeroValues) and site not in ("z", "v"):
        raise Refused(f"ZeroValues is of z and v, the value bias is in no other: use Zero() at site={site!r}")
    if site == "pattern" and isinstance(edit, Mean) and edit.by_position is False:
        raise Refused("a mean of patterns is by position: wanted Mean(by_position=True) or None, got False")
    if site != "pattern" and isinstance(edit, KnockOut):
        raise Refused(f"KnockOut is of patterns: wanted site='pattern', got site={site!r}")


def _check_hold(hold: str | None, site: str) -> None:
    if hold not in (None, "patterns"):
        raise Refused(f"wanted hold=None or 'patterns', got {hold!r}")
    if hold and site in ("q", "k", "pattern"):
        raise Refused(
            f"hold='patterns' keeps every pattern, an edit of {site} acts through patterns alone: use another site"
        )


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
        new = _checked_new(edit.new(self.model, batch, site, self.layers, taken), self.layers)
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
    return NewValues(model, prompts, intervention, layers, None, _checked_new(whole, layers))


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


def _checked_new(new: Any, layers: set[int]) -> dict[int, New]:
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

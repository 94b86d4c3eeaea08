"""An intervention: an edit, its site, the metric, and what is held fixed; and its new values for a batch of prompts.

It is checked here that these go together. If an edit takes from another run (it has `source`), that run is made here
for each batch and the edit gets its activations; any other edit is asked for its new values once, for all prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .._given import refused_arguments
from ..errors import Refused
from ..metrics._metric import Metric
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model
from ..model._self_check import foreign_hooks, is_causal
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import CONVENTION, HEAD_SITES, Edit, New, check_site
from ._edits import Add, KnockOut, Scale, Zero, ZeroValues
from ._edits_from_runs import Mean, readings_by_piece, taken_from

__all__ = [
    "Hold",
    "Intervention",
    "NewValues",
    "new_values",
    "only_later",
    "readings_by_piece",
    "taken_from",
]

Hold = Literal["patterns"] | None


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is edited in a run, and what is measured in it.

    Attributes:
        edit: what replaces the activation.
        site: which activation: "z", "q", "k", "v", "pattern", "attn_out", "mlp_out", "resid_pre", "resid_mid" or
            "resid_post".
        metric: what is measured.
        hold: "patterns" to keep every pattern as in the untouched run; None for none.

    Raises:
        TypeError: not an edit.
        Refused: an edit, a site and a hold that do not go together.
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
        """The attributes of a result that describe the intervention."""
        return {
            "edit": type(self.edit).__name__, "hold": self.hold or "none", "convention": CONVENTION,
            **self.metric.attrs,
        }  # fmt: skip


def _check_edit(edit: Any, site: str) -> None:
    """Raise TypeError unless this is an edit, Refused unless it can be made at this site."""
    if isinstance(edit, type | Tensor) or not callable(
        getattr(edit, "new", None)
    ):  # tensors have a method `new`
        got = _of_class(edit) if isinstance(edit, type) else repr(edit)[:100]
        got = "a Tensor: see Add(vector)" if isinstance(edit, Tensor) else got
        raise TypeError(f"wanted an edit like Zero() or Mean(reference), got {got}")
    check_site(site)
    if site == "pattern" and isinstance(edit, Zero | ZeroValues | Scale | Add):
        raise Refused(
            f"wanted rows that still sum to 1, got {type(edit).__name__} of patterns: use KnockOut(mask), Mean, "
            "Resample or FromRun, or site='z'"
        )
    if isinstance(edit, ZeroValues) and site not in ("z", "v"):
        raise Refused(
            f"ZeroValues is an edit of z and v, which alone have a value bias: use Zero() at site={site!r}"
        )
    if site == "pattern" and isinstance(edit, Mean) and edit.by_position is False:
        raise Refused("a mean of patterns is by position: wanted Mean(by_position=True) or None, got False")
    if site != "pattern" and isinstance(edit, KnockOut):
        raise Refused(f"KnockOut is an edit of patterns: wanted site='pattern', got site={site!r}")


def _of_class(edit: type) -> str:
    """What is said of a class given instead of an edit: how to make the edit."""
    if not callable(getattr(edit, "new", None)):
        return repr(edit)
    ours = "ik." if edit.__module__.startswith("induction_kernel.") else ""
    given = "..." if refused_arguments(edit, 0) else ""
    return f"the class {edit.__name__}: write {ours}{edit.__name__}({given})"


def _check_hold(hold: str | None, site: str) -> None:
    """Raise Refused unless `hold` is known and changes something at this site."""
    if hold not in (None, "patterns"):
        raise Refused(f"wanted hold=None or 'patterns', got {hold!r}")
    if hold and site in ("q", "k", "pattern"):
        raise Refused(
            f"hold='patterns' keeps every pattern, but an edit of {site} acts only through patterns: use another site, "
            "or hold=None"
        )


@dataclass(frozen=True, eq=False)
class NewValues:
    """The new values of activations, for any rows of the prompts.

    Attributes:
        model: the model.
        prompts: the prompts whose run is edited.
        intervention: what is edited.
        layers: the layers in which it is edited.
        source: the prompts of the other run; None if the edit takes from no other run.
        whole: layer -> new value for all prompts, if the edit takes from no other run; else empty.
        of_source: whether the metric on the other run is wanted too.
    """

    model: Model
    prompts: Prompts
    intervention: Intervention
    layers: set[int]
    source: Prompts | None
    whole: dict[int, New]
    of_source: bool

    def of(self, rows: slice) -> tuple[dict[int, New], int, Tensor | None]:
        """Layer -> new value for these rows; a position before which the edited run cannot differ; the source's metric.

        The metric on the run that the edit takes from is `[prompt]`, None if it is not wanted.
        """
        site, n = self.intervention.site, len(self.prompts)
        if self.source is None:
            return {layer: _of_rows(new, rows, n, site) for layer, new in self.whole.items()}, 0, None
        batch, other, edit = self.prompts[rows], self.source[rows], _any(self.intervention)
        taken, of_source = self._taken(other, rows)
        new = _checked_new(edit.new(self.model, batch, site, self.layers, taken), self.layers)
        as_it_stood = all(_is_number(new[at].scale, 0) and new[at].value is taken[at] for at in self.layers)
        start = _first_difference(batch, other) if as_it_stood and only_later(self.model) else 0
        return new, start, of_source

    def _taken(self, other: Prompts, rows: slice) -> tuple[dict[int, Tensor], Tensor | None]:
        """Layer -> activation in the run on `other`; and the metric on that run, if it is wanted."""
        site, width = self.intervention.site, self.prompts.tokens.shape[1]
        if not self.of_source:
            return taken_from(self.model, other, width, site, self.layers)[0], None
        parts, values = [], []
        for piece, wanted in readings_by_piece(self.model, self.intervention.metric, self.prompts, rows):
            taken, value = taken_from(self.model, other[piece], width, site, self.layers, wanted)
            assert value is not None  # asked for
            parts.append(taken)
            values.append(value)
        together = {layer: torch.cat([part[layer] for part in parts]) for layer in self.layers}
        return parts[0] if len(parts) == 1 else together, torch.cat(values)


def new_values(
    model: Model, prompts: Prompts, intervention: Intervention, layers: set[int], *, of_source: bool = False
) -> NewValues:
    """The new values of an intervention in these layers; and the metric on the run that it takes from, if wanted.

    Raises:
        TypeError: an edit whose `new` does not return a `New` for each layer.
        Refused: a source with another number of prompts, or with other lengths.
    """
    edit, site = _any(intervention), intervention.site
    has_source = callable(getattr(edit, "source", None))
    given = edit.source(model, prompts) if has_source else None
    if given is not None:
        source = _of_equal_lengths(as_prompts(model, given), prompts)
        return NewValues(model, prompts, intervention, layers, source, {}, of_source)
    whole = edit.new(model, prompts, site, layers, *([{}] if has_source else []))
    return NewValues(model, prompts, intervention, layers, None, _checked_new(whole, layers), of_source=False)


def only_later(model: Model) -> bool:
    """Whether an edit can change only its own and later positions, so that earlier ones need not run again."""
    return not foreign_hooks(model) and is_causal(model)  # the user's own hooks may do anything


def _any(intervention: Intervention) -> Any:
    """The edit, as Any: whether `new` takes another run's activations depends on `source`, which no type shows."""
    return intervention.edit


def _checked_new(new: Any, layers: set[int]) -> dict[int, New]:
    """The new values of these layers; raise TypeError if an edit returned anything else."""
    if not isinstance(new, Mapping) or not all(isinstance(new.get(layer), New) for layer in layers):
        raise TypeError(
            f"wanted an edit whose `new` returns {{layer: New(scale, value)}} for layers {sorted(layers)}, got "
            f"{repr(new)[:200]}"
        )
    return {layer: new[layer] for layer in layers}


def _of_equal_lengths(source: Prompts, prompts: Prompts) -> Prompts:
    """The source, if it has as many prompts, of the same lengths; else raise Refused."""
    if len(source) != len(prompts):
        raise Refused(
            f"wanted as many prompts to take from as are edited, got {len(source)} for {len(prompts)}"
        )
    for row, (a, b) in enumerate(zip(source.lengths.tolist(), prompts.lengths.tolist(), strict=True)):
        if a != b:
            raise Refused(
                f"prompt {row} has {b} tokens, its source {a}: wanted equal lengths, see pairs(...)"
            )
    return source


def _of_rows(new: New, rows: slice, n: int, site: str) -> New:
    """The new value for some of n prompts; a value without a prompt dimension is the same for all."""
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
    """The first position where tokens of the two differ, outside padding; the length if none do."""
    length = min(prompts.tokens.shape[1], other.tokens.shape[1])
    real = torch.arange(length) < prompts.lengths[:, None]
    differs = ((prompts.tokens[:, :length] != other.tokens[:, :length]) & real).any(0)
    return int(differs.int().argmax()) if bool(differs.any()) else prompts.tokens.shape[1]

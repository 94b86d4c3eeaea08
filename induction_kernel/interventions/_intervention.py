"""An intervention: the edit, the site it is made at, the metric of the edited run, and what is held.

What goes together is checked here; what an edit puts in place of an activation, see `_edits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import Refused
from ..metrics import Metric, repeat_loss
from ._activations import CONVENTION, SITES, Edit
from ._edits import Add, KnockOut, Mean, Scale, Zero, ZeroValues

__all__ = ["Hold", "Intervention"]

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

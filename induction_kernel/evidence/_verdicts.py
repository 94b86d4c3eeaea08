"""Verdicts: *holds*, *contradicted*, *inconclusive*, *not defined*, of a claim by the checks it rests on.

A check is a number with its 95% interval beside a stated threshold. It holds where the whole interval lies beyond the
threshold, is contradicted where the whole interval lies on the other side, and is inconclusive else. A p-value has no
interval: below its level the check holds, else it is inconclusive; it never contradicts. A claim holds only if every
check holds (intersection-union: no level is spent on their number), is contradicted if one is, and is inconclusive
else. It is not defined where it has no meaning on the model; where data are missing it is inconclusive.

Beside a verdict stand the half-width reached and the n that a stated half-width would take,

    n_for = n (half-width / stated half-width)^2,

which does not depend on where the interval lies; not the power at the value seen. The thresholds stand in the files of
the arguments. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import Refused
from ._argument import Argument

__all__ = [
    "CONTRADICTED",
    "HOLDS",
    "INCONCLUSIVE",
    "NOT_DEFINED",
    "STATED",
    "Check",
    "inconclusive",
    "judged",
    "not_defined",
]

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
NOT_DEFINED = "not defined on this model"
STATED = 0.1
"""Half-width that n is stated for, in a check's own unit, where the argument states no other."""
KEYS = (
    *("value", "low", "high", "threshold", "above", "verdict"),
    *("n", "of", "half_width", "stated", "n_for", "is_p", "why"),
)


@dataclass(frozen=True)
class Check:
    """One condition: a number with its interval, and the threshold that the whole interval has to be beyond.

    Attributes:
        name: what is measured, in a few words, with its unit.
        value: the number.
        low: lower end of its 95% interval; NaN where there is none.
        high: upper end.
        threshold: what it is compared with.
        above: whether the interval has to lie above the threshold, or below it.
        n: how many of what the interval is over; 0 where nobody counted.
        of: what they are: "prompts", "seeds".
        stated: half-width that `n_for` is of.
        is_p: whether the number is a p-value, which has no interval.
        why: why there is no interval, or what would narrow it.
    """

    name: str
    value: float
    low: float
    high: float
    threshold: float
    above: bool = True
    n: int = 0
    of: str = ""
    stated: float = STATED
    is_p: bool = False
    why: str = ""

    @property
    def verdict(self) -> str:
        """In one word; inconclusive where an end of the interval is NaN."""
        if self.is_p:
            return HOLDS if self.value < self.threshold else INCONCLUSIVE
        beyond, short = self.low > self.threshold, self.high < self.threshold
        if not self.above:
            beyond, short = short, beyond
        return HOLDS if beyond else CONTRADICTED if short else INCONCLUSIVE

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    @property
    def n_for(self) -> float:
        """The n at which the half-width would be the stated one, a whole number; NaN without an interval or an n."""
        wanted = self.n * (self.half_width / self.stated) ** 2 if self.n else np.nan
        return float(np.ceil(np.round(wanted, 9)))  # rounding of floats is no further case


def judged(
    argument: Argument,
    checks: Sequence[Check],
    details: xr.Dataset | None = None,
    *,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.Dataset:
    """The Dataset of an argument: `details`, and its checks over the dimension `check`.

    Args:
        argument: whose checks they are.
        checks: at least one; all have to hold.
        details: what the checks were computed from; its variables and attributes are kept.
        attrs: further attributes.

    Returns:
        Dataset over `check` (their names) with `value`, `low`, `high`, `threshold`, `above`; `verdict` of each in a
        word; `half_width` reached, with `n` of what (`of`), and `n_for`, the n that the half-width `stated` would take;
        `is_p` where it is a p-value, `why` there is no interval, or what would narrow it. With all variables of
        `details`, and the attributes `argument` (its name), `title`, `claim`, `verdict` and `reason` (the checks in
        words).

    Raises:
        Refused: no checks, or two of one name.
    """
    names = [check.name for check in checks]
    if not checks or len(set(names)) < len(names):
        raise Refused(f"wanted one or more checks of different names, got {names}")
    table = {key: ("check", np.array([getattr(check, key) for check in checks])) for key in KEYS}
    found = xr.Dataset(table, {"check": names})
    if details is not None:
        found = found.merge(details).assign_attrs(details.attrs)
    verdict = _of_all([check.verdict for check in checks])
    return found.assign_attrs({**(attrs or {}), **_said(argument, verdict, "; ".join(map(_words, checks)))})


def not_defined(argument: Argument, reason: str) -> xr.Dataset:
    """The Dataset of an argument that has no meaning on this model: no checks, and why."""
    return _without_checks(argument, NOT_DEFINED, reason)


def inconclusive(argument: Argument, reason: str) -> xr.Dataset:
    """The Dataset of an argument for which too little is at hand: no checks, and what is needed."""
    return _without_checks(argument, INCONCLUSIVE, reason)


def _without_checks(argument: Argument, verdict: str, reason: str) -> xr.Dataset:
    return xr.Dataset(coords={"check": np.array([], dtype=str)}, attrs=_said(argument, verdict, reason))


def _of_all(verdicts: Sequence[str]) -> str:
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return INCONCLUSIVE if INCONCLUSIVE in verdicts else HOLDS


def _words(check: Check) -> str:
    interval = "" if check.is_p else f" [{check.low:.3g}, {check.high:.3g}]"
    sign = ">" if check.above else "<"
    counted = f", n = {check.n} {check.of}" if check.n else ""
    return (
        f"{check.name} {check.value:.3g}{interval}{counted}: {sign} {check.threshold:.3g} {_outcome(check)}"
    )


def _outcome(check: Check) -> str:
    why = f" ({check.why})" if check.why and check.verdict == INCONCLUSIVE else ""
    return {HOLDS: HOLDS, CONTRADICTED: f"is {CONTRADICTED}", INCONCLUSIVE: f"is {INCONCLUSIVE}{why}"}[
        check.verdict
    ]


def _said(argument: Argument, verdict: str, reason: str) -> dict[str, str]:
    said = {"argument": argument.name, "title": argument.title, "claim": argument.claim}
    said |= {"verdict": verdict, "reason": reason}
    return said | {"paper": "Olsson et al. 2022", "induction_kernel": __version__}

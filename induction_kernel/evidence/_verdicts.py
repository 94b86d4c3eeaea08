"""Checks and verdicts: a number with its interval beside a threshold, and whether the claim it belongs to holds.

A check is a number with its 95% interval beside a stated threshold. It *holds* where the whole interval lies beyond the
threshold, is *contradicted* where the whole interval lies on the other side, and is *inconclusive* otherwise. A p-value
has no interval: below its level the check holds, otherwise it is inconclusive; it never contradicts. A claim holds only
if every check holds (intersection-union: no correction for their number), is contradicted if one is, and is
inconclusive otherwise. Where data are missing it is inconclusive, and where it has no meaning on the model, *not
defined*.

Beside a verdict stand the half-width reached and the n at which a stated half-width would be reached,

    n_for = n (half-width / stated half-width)^2,

which does not depend on where the interval lies, as the power at the value seen would. The thresholds are stated in the
files of the arguments.
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
    "judge",
    "not_defined",
]

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
NOT_DEFINED = "not defined on this model"
STATED = 0.1
"""The half-width that `n_for` is computed for, in a check's own unit, where the argument states no other."""
KEYS = (
    *("value", "low", "high", "threshold", "above", "verdict"),
    *("n", "of", "half_width", "stated", "n_for", "is_p", "why"),
)


@dataclass(frozen=True)
class Check:
    """A number with its 95% interval, and the threshold that the whole interval has to be beyond.

    Attributes:
        name: what is measured, in a few words, with its unit; names differ within an argument.
        value: the number.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        threshold: what the interval is compared with.
        above: whether the interval has to lie above the threshold (True) or below it (False).
        n: the number of units that the interval is over; 0 where they are not counted.
        of: what the units are: "prompts", "seeds".
        stated: the half-width that `n_for` is computed for.
        is_p: whether the number is a p-value, which has no interval and has to be below the threshold.
        why: why there is no interval, or what would narrow it.

    Raises:
        Refused: an interval whose lower end is above its upper end.
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

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise Refused(
                f"wanted an interval with low <= high for {self.name!r}, got {self.low} and {self.high}"
            )

    @property
    def verdict(self) -> str:
        """One of "holds", "contradicted" and "inconclusive"; inconclusive where an end of the interval is NaN."""
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
        """The n at which the half-width would be `stated`, rounded up; NaN without an interval or an n."""
        wanted = self.n * (self.half_width / self.stated) ** 2 if self.n else np.nan
        return float(np.ceil(np.round(wanted, 9)))  # 10.000000000000002 is 10


def judge(
    argument: Argument,
    checks: Sequence[Check],
    details: xr.Dataset | None = None,
    *,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.Dataset:
    """The verdict of an argument by its checks.

    Args:
        argument: whose checks they are.
        checks: one or more, of different names; the claim holds if every one holds.
        details: what the checks were computed from; its variables and attributes are kept.
        attrs: further attributes.

    Returns:
        Dataset over `check` (their names) with `value`, `low`, `high`, `threshold`, `above`, `is_p` and `why` as in
        `Check`; `verdict`, of each check; `half_width`, the one reached; `n`, the number of units, and `of`, what they
        are; `n_for`, the n at which the half-width would be `stated`. With the variables of `details`, and the
        attributes `argument` (its name), `title`, `claim`, `verdict`, `reason` (the checks in words) and `paper` (its
        `source`, where it has one).

    Raises:
        TypeError: not an `Argument`, or something other than `Check`s.
        Refused: no checks, or two of one name.
    """
    _check_argument(argument)
    if not isinstance(checks, Sequence) or not all(isinstance(check, Check) for check in checks):
        raise TypeError(f"wanted checks as a list of Check, got {checks!r}")
    names = [check.name for check in checks]
    if not checks or len(set(names)) < len(names):
        raise Refused(
            f"wanted one or more checks of different names, got {names}: name each by what it measures"
        )
    table = {key: ("check", np.array([getattr(check, key) for check in checks])) for key in KEYS}
    found = xr.Dataset(table, {"check": names})
    if details is not None:
        found = found.merge(details).assign_attrs(details.attrs)
    verdict = _of_all([check.verdict for check in checks])
    return found.assign_attrs({**(attrs or {}), **_said(argument, verdict, "; ".join(map(_words, checks)))})


def not_defined(argument: Argument, reason: str) -> xr.Dataset:
    """The verdict "not defined on this model" of an argument that has no meaning on it.

    Args:
        argument: the argument.
        reason: why it has none, in a sentence.

    Returns:
        Dataset as of `judge`, without checks.

    Raises:
        TypeError: not an `Argument`, or a reason that is no string.
    """
    return _without_checks(argument, NOT_DEFINED, reason)


def inconclusive(argument: Argument, reason: str) -> xr.Dataset:
    """The verdict "inconclusive" of an argument for which something is missing.

    Args:
        argument: the argument.
        reason: what is missing, in a sentence.

    Returns:
        Dataset as of `judge`, without checks.

    Raises:
        TypeError: not an `Argument`, or a reason that is no string.
    """
    return _without_checks(argument, INCONCLUSIVE, reason)


def _check_argument(argument: object) -> None:
    if not isinstance(argument, Argument):
        raise TypeError(f"wanted the Argument that the verdict is of, got {type(argument).__name__}")


def _without_checks(argument: Argument, verdict: str, reason: str) -> xr.Dataset:
    _check_argument(argument)
    if not isinstance(reason, str):
        raise TypeError(f"wanted the reason as a string, got {type(reason).__name__}")
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
    said |= {"paper": argument.source} if argument.source else {}
    return said | {"induction_kernel": __version__}

"""When does an argument hold? When every check it rests on is beyond its stated threshold with its whole interval.

An argument that needs what a model has not (checkpoints, a second layer, words its tokenizer knows) is not testable
there, which is neither for nor against it. The thresholds stand in the files of the arguments. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import Refused

__all__ = ["FAILS", "HOLDS", "NOT_DEFINED", "Check", "judged", "not_defined"]

HOLDS, FAILS, NOT_DEFINED = "holds", "fails", "not defined on this model"


@dataclass(frozen=True)
class Check:
    """One condition: a number with its interval, and the threshold that the whole interval has to be beyond.

    Attributes:
        name: what is measured, in a few words, with its unit.
        value: the number.
        low: lower end of its 95% interval.
        high: upper end.
        threshold: what it is compared with.
        above: whether the interval has to lie above the threshold, or below it.
    """

    name: str
    value: float
    low: float
    high: float
    threshold: float
    above: bool = True

    @property
    def passed(self) -> bool:
        """Whether the interval lies beyond the threshold; never where it is NaN."""
        return bool(self.low > self.threshold if self.above else self.high < self.threshold)


def judged(
    argument: str,
    claim: str,
    checks: Sequence[Check],
    details: xr.Dataset | None = None,
    *,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.Dataset:
    """The Dataset of an argument: `details`, and its checks over the dimension `check`.

    Args:
        argument: its name, that of the function: "co_occurrence".
        claim: what holds if it holds, in one sentence.
        checks: at least one; all have to pass.
        details: what the checks were computed from; its variables and attributes are kept.
        attrs: further attributes.

    Returns:
        Dataset with `value`, `low`, `high`, `threshold`, `above` and `passed` over `check` (their names), all
        variables of `details`, and the attributes `argument`, `claim`, `verdict` and `reason` (the checks in words).
    """
    names = [check.name for check in checks]
    if not checks or len(set(names)) < len(names):
        raise Refused(f"wanted one or more checks of different names, got {names}")
    table = {
        key: ("check", np.array([getattr(check, key) for check in checks]))
        for key in ("value", "low", "high", "threshold", "above", "passed")
    }
    verdict = HOLDS if all(check.passed for check in checks) else FAILS
    found = xr.Dataset(table, {"check": names})
    if details is not None:
        found = found.merge(details).assign_attrs(details.attrs)
    said = {"argument": argument, "claim": claim, "verdict": verdict, "reason": "; ".join(map(_said, checks))}
    return found.assign_attrs({**(attrs or {}), **said, **_source()})


def not_defined(argument: str, claim: str, reason: str) -> xr.Dataset:
    """The Dataset of an argument that this model gives no ground for: no checks, and why."""
    said = {"argument": argument, "claim": claim, "verdict": NOT_DEFINED, "reason": reason}
    return xr.Dataset(coords={"check": np.array([], dtype=str)}, attrs={**said, **_source()})


def _said(check: Check) -> str:
    sign = ">" if check.above else "<"
    return (
        f"{check.name} {check.value:.3g} [{check.low:.3g}, {check.high:.3g}], "
        f"{'is' if check.passed else 'not'} {sign} {check.threshold:.3g}"
    )


def _source() -> dict[str, str]:
    return {"paper": "Olsson et al. 2022", "induction_kernel": __version__}

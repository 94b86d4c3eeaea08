"""The lane that computed a result and why no faster one did, for the result's attributes and for the log.

A lane is a way of running layers again: from the model's parameters, or by its own blocks. The logger
`induction_kernel.replay._lane_record` gets a warning if a lane failed its check on this model, and an INFO if the lane
does not support it; once for each model and reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ..model._anatomy import Model, describe
from ..model._runs import is_out_of_memory

__all__ = ["Way", "not_used", "of_slowest", "refused", "tried"]

_LOG = logging.getLogger(__name__)
_WHAT = {
    "decoder": "layers computed from the model's parameters",
    "blocks": "many edited runs together in the model's own blocks",
    "entries": "only the rows of attention that are read",
    "prefix": "the tokens that prompts share run once",
}
_SAID: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Way:
    """How a result was computed.

    Attributes:
        name: the lane; "model" or "patterns" means whole runs of the model.
        reason: why each faster lane was not used, in sentences; empty if the fastest one was.
    """

    name: str
    reason: str = ""

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes for a result: `lane` and `lane_reason` ("" if the fastest lane was used)."""
        return {"lane": self.name, "lane_reason": self.reason}


def of_slowest(ways: Iterable[Way]) -> Way:
    """The slowest of the ways in which several parts were computed: the one with the longest reason."""
    return max(ways, key=lambda way: len(way.reason))


def tried(check: Callable[[], str]) -> str:
    """The reason why a lane failed its check; empty if it passed.

    A lane that cannot compute this model may raise, which is a reason too: whole runs of the model then work, or raise
    an error of their own.
    """
    try:
        return check()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        said = str(error).strip().split("\n")[0]
        return f"its check raised {type(error).__name__}: {said}"


def not_used(lane: str | None, why: str) -> str:
    """A sentence: why this lane, or no faster lane at all (None), is not used."""
    which = "No faster lane is" if lane is None else f'The lane "{lane}" ({_WHAT[lane]}) is not'
    return f"{which} used: {why.rstrip('.')}."


def refused(model: Model, lane: str | None, why: str, *, failed: bool = True) -> str:
    """The sentence of `not_used`, logged once.

    Args:
        model: the model.
        lane: the name of the lane; None for all of them.
        why: the check that failed, or what the lane does not support.
        failed: whether a check failed.
    """
    reason = not_used(lane, why)
    said = _SAID.setdefault(model, set())
    if reason not in said:
        said.add(reason)
        level = logging.WARNING if failed else logging.INFO
        _LOG.log(level, "%s: %s", describe(model)["model"], reason)
    return reason

"""Exceptions: `Refused` for what cannot be done as asked, and `NotDefined` for what has no meaning on a model.

A TypeError is an argument of the wrong type. Any other exception is a bug, and is never made into a result.
"""

from __future__ import annotations

__all__ = ["OUT_OF_MEMORY", "NotDefined", "Refused"]

OUT_OF_MEMORY = "the memory does not hold"
"""The first words of the package's own MemoryErrors; the rest says what did not fit and what to do."""


class Refused(ValueError):
    """What was asked cannot be done as asked; the message says what was wanted, what came and what to do."""


class NotDefined(Refused):
    """What was asked has no meaning on this model, whatever the prompts; pages and verdicts note it and continue."""

"""The package's exceptions: `Refused` for what cannot be done as asked, `NotDefined` for what has no meaning.

Any other exception is a bug, and is never made into a result.
"""

from __future__ import annotations

__all__ = ["OUT_OF_MEMORY", "NotDefined", "Refused"]

OUT_OF_MEMORY = "the memory does not hold"
"""Beginning of the package's own MemoryErrors, which say what to do."""


class Refused(ValueError):
    """What was asked cannot be done as asked: the message says what was wanted, what came and what to do."""


class NotDefined(Refused):
    """What was asked has no meaning on this model, for any prompts: pages and verdicts state this and continue."""

"""Self-contained HTML pages about the heads of a model, a few-shot study and the six arguments."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

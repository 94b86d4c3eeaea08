"""Self-contained HTML pages: the heads of a model, a few-shot study, the six arguments; text in `templates`."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""The census of heads: every behaviour of every head, with chance and control; which heads copy tokens, and words."""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Heads by name; one summary for everything measured of heads; the strongest heads, random ones, and comparisons.

Only labelled results are read; no model is run.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

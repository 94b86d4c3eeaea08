"""Figures of labelled results as plotly objects, and attention patterns of chosen heads.

Figures are as wide as their place and fit 390 pixels. They run no model and need no network.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Figures of labelled results, as plotly objects, and attention patterns of chosen heads.

No model is run here, and nothing contacts the network.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

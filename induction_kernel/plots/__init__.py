"""Figures of labelled results as plotly objects, and views of attention patterns.

Figures fill the width of their container; `save_figure` writes them to files, at the width they have in print. They run
no model and need no network.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

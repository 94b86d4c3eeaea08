"""Attention patterns of every head, explored by hand: a page that needs no network, or live in a notebook.

`explore` takes a model and prompts, or plain arrays of patterns. The numbers come from here, packed small; what is seen
is drawn by one JavaScript module, `_static/explorer.js`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Activations replaced, and what the model's predictions do then: ablation, patching, paths, attribution.

An edit says what stands in an activation's place; `sweep` makes it at every layer, head or position in turn.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Interventions on activations: ablation, activation and path patching, attention knock-out, attribution patching.

An edit says what replaces an activation; `sweep` applies it at every layer, head or position in turn.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

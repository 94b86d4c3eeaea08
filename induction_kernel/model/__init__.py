"""The only door to TransformerLens: sizes, hook names, weights, and runs with hooks that leave nothing behind.

Works alike on `HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x, 4.x). Work is done in z-space
(`z == pattern @ v` on both). It loads no model: see `loading`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Attention heads that do in-context learning: scored, shown, patched and ablated in any TransformerLens model.

A plugin for TransformerLens: it takes your model object as it is and gives it back as it was. This file is
the table of contents. A name is imported when it is first used, so `import induction_kernel` itself is
instant: neither torch nor TransformerLens is loaded.
"""

from ._lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)

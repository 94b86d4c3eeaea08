"""Models from the package itself, a local folder, a GGUF file or the Hugging Face hub.

`load` takes a name or a path and returns TransformerLens' own model; `build` makes one of plain tensors.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

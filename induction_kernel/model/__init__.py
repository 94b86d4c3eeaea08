"""All access to TransformerLens models: sizes, hook names, weights, a check at first use, runs that leave no hooks.

Works alike on `HookedTransformer` (TransformerLens 3.x) and `TransformerBridge` (3.x, 4.x). Patterns are edited through
z, since `z == pattern @ v` on both. At a model's first use two short runs (`_self_check`) test that its hooks show its
attention and that an edit of z changes what is unembedded. `loading` loads models.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

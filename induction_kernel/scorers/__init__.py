"""What each head looks at and what it writes: scores of every head, with chance and matched control.

`AttentionScorer` is a mask over the attention pattern; `induction`, `prefix_matching`, `previous_token`,
`duplicate_token`, `first_token` and `current_token` are ready-made ones; `observe` computes several in one pass.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

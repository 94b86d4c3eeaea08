"""Parts of a run computed again: one untouched run is kept, and single layers run again from it with edits in place.

A lane is a way of computing layers again on a widened batch, `[cell, prompt, position, d_model]`: by the model's own
blocks (`_blocks`, any architecture) or from its live parameters (`_decoder`, standard decoders, faster).
`_attention_rows` reads long prompts a few rows at a time. Edits and metrics are in `interventions`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Part of a run done again: one run is kept (`_capture`), and single layers are computed again from it.

A lane is a way of doing layers again on a widened batch, `[cell, prompt, position, d_model]`: by the model's own blocks
(`_blocks`, any architecture) or from its live parameters (`_decoder`, standard decoders, faster). `_attention_rows`
reads long prompts a few rows at a time. Nothing here knows edits or metrics.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Layers of a model run again: one untouched run is kept, and single layers are computed again from it with edits.

A lane is a way of running layers again: by the model's own blocks (`_blocks`, any architecture), or from its parameters
(`_decoder`, standard decoders, faster). It runs a widened batch, which holds the prompts once for each edited run
(cell): `[cell, prompt, position, d_model]`. `_attention_rows` computes the patterns of long prompts a few rows at a
time. Edits are in `interventions`, metrics in `metrics`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

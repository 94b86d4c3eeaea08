"""Prompts: right-padded tokens, their lengths, the positions that count, and where demonstrations lie.

`Prompts` is the noun; `as_prompts` makes it of whatever users have; `repeated_tokens` gives random tokens
repeated, with their matched control; `few_shot_prompts` labelled demonstrations in a template; `pairs` clean and
corrupted prompts. No model is run: only its tokenizer and sizes are read.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Prompts: right-padded tokens with their lengths, the positions that are scored, and where demonstrations lie.

`Prompts` is what every measurement takes, and `as_prompts` makes it from token ids, a tokenizer's output or text.
`repeated_tokens` gives repeated random tokens with a matched control; `pairs` gives clean and corrupted prompts.
`few_shot_prompts` writes demonstrations and a query with a template and finds the position of every label: one file,
`_few_shot`, shows how. No model is run: only its tokenizer and sizes are read.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

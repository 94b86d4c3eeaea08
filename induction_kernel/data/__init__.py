"""Labelled texts for few-shot prompts: files, DataFrames and data sets known by name; episodes drawn from them.

`load_classification` reads any of these as `LabelledTexts`, `word_pairs` gives tasks that ship with the package.
`draw_episodes` chooses the demonstrations of each query, `Episodes.prompts` makes few-shot prompts of them, and
`zero_shot` prompts of the queries alone. No model is run here.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

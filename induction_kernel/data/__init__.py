"""Labelled texts for few-shot prompts: files, DataFrames and data sets known by name; episodes drawn from them.

`load_classification` reads any of these as `LabelledTexts`; `draw_episodes` chooses the demonstrations of each query,
and `Episodes.prompts` makes few-shot prompts of them. No model is run here.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

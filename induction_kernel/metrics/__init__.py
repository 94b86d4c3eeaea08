"""Metrics on logits: losses, logit differences, probabilities and divergences, and losses by position.

`Metric` is what every intervention measures; a function `(logits, prompts) -> [prompt]` can stand in its place.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

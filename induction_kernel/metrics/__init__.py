"""Metrics on logits: losses, logit difference, probability, KL divergence, and losses by position.

Interventions take a `Metric`, or a function `(logits, prompts) -> [prompt]`, as `metric=`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

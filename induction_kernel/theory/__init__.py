"""Bayesian inference over few-shot prompts as kernel regression, in hidden Markov models where both are exact.

Han et al. 2025, section 4 and theorem 1. No transformer is run here.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

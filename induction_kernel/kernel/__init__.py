"""In-context learning as kernel regression over the demonstrations (Han et al. 2025).

`vote` lets every demonstration vote for its label with a head's attention as its weight; `held_out` chooses the best
head on one part of the prompts and tests it on the other, beside controls; `kernel_regression` computes the weights
that explicit kernels give, and `kernel_alignment` compares them with attention.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

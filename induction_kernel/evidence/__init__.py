"""The six arguments of Olsson et al. 2022 that induction heads make in-context learning, each in a file.

Every argument returns a Dataset with its verdict ("holds", "contradicted", "inconclusive" or "not defined on this
model"), the checks it rests on, each a number with its interval beside a stated threshold, and what they were computed
from. `six_arguments` gives all six.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""All intervals, thresholds and correlations of the package, on plain arrays.

Means over prompts: Student's t interval; from 8 values on its hull with the bootstrap-t interval, which is equally wide
for symmetric values and wider, on the side of the tail, for skewed ones. Ratios of means: Fieller's interval, likewise.
Shares of 0 and 1: Wilson's. Repeated random splits: Nadeau & Bengio's. All heads together: a max-t threshold, from sign
flips or, for skewed values, from the bootstrap.

Percentile bootstraps of means are not used: with 8 values, nominal 95% intervals cover .89 (normal) to .55 (0 and 1).
Statistics other than means (times of turning points, areas under curves) use `resampled` and `percentiles`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Every interval, threshold and correlation of the package, on plain arrays.

Means over prompts: Student's t interval; from 8 values on its hull with the bootstrap-t interval, which is as wide
where values are symmetric and wider, to the side of the tail, where they are skewed. Ratios of means: Fieller's
interval, likewise. Shares of 0 and 1: Wilson's. Repeated random splits: Nadeau & Bengio's. All heads together: a max-t
threshold, from sign flips or, where values are skewed, from the bootstrap.

Percentile bootstraps of means are not used: with 8 values, nominal 95% of them cover .89 (normal) to .55 (0 and 1).
Statistics other than means (times of turning points, areas under curves) take `resampled` and `percentiles`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

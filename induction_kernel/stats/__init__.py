"""Intervals, thresholds and correlations, on plain arrays.

| of | method | file |
|---|---|---|
| means over prompts | Student's t interval; from 8 values on, its hull with the bootstrap-t interval | `_means` |
| ratios of means | Fieller's interval, likewise | `_ratios` |
| shares of 0 and 1; repeated random splits | Wilson's interval; Nadeau & Bengio's variance | `_shares` |
| all heads together | max-statistic threshold, by sign flips or, for skewed values, a bootstrap | `_thresholds` |
| correlations | percentile bootstrap; jackknife over prompts | `_correlations` |

The hull with the bootstrap-t interval is as wide as Student's for symmetric values, and wider on the side of the tail
for skewed ones. Means have no percentile bootstrap: with 8 values, its nominal 95% intervals cover .89 (normal) to .55
(0 and 1). Statistics other than means (times of turning points, areas under curves) use `resampled` and `percentiles`.
"""

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

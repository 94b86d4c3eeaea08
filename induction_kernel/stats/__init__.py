"""Every interval, threshold and correlation of the package, on plain arrays.

Means over prompts: Student's t interval; from 8 values on its hull with the bootstrap-t interval, which is as wide
where values are symmetric and wider, to the side of the tail, where they are skewed. Ratios of means: Fieller's
interval, likewise. Shares of 0 and 1: Wilson's. Repeated random splits: Nadeau & Bengio's. All heads together: a max-t
threshold, from sign flips or, where values are skewed, from the bootstrap.

Percentile bootstraps of means are not used: with 8 values, nominal 95% of them cover .89 (normal) to .55 (0 and 1).
Statistics other than means (times of turning points, areas under curves) take `resampled` and `percentiles`.
"""

from .correlations import correlation as correlation
from .correlations import correlation_interval as correlation_interval
from .correlations import pooled_correlation as pooled_correlation
from .means import check_confidence as check_confidence
from .means import difference_interval as difference_interval
from .means import mean_interval as mean_interval
from .means import percentiles as percentiles
from .means import resampled as resampled
from .ratios import ratio as ratio
from .shares import mean_share_difference_interval as mean_share_difference_interval
from .shares import mean_share_interval as mean_share_interval
from .shares import share_interval as share_interval
from .shares import split_interval as split_interval
from .shares import split_margin as split_margin
from .thresholds import Threshold as Threshold
from .thresholds import threshold as threshold

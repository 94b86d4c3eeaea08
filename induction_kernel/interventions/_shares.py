"""The share of an ability that an ablation takes away: a ratio of means over prompts, and its cautions.

The benefit is what the metric is without the ability, less what it is with it.
"""

from __future__ import annotations

import numpy as np

from ..model._anatomy import Model
from ..model._outputs import n_outputs
from ..stats._ratios import ratio

__all__ = ["NO_BENEFIT", "caution", "shares_lost"]

NO_BENEFIT = "No share: the repetition brings this model no reliable benefit that could be lost."


def shares_lost(
    values: np.ndarray, baseline: np.ndarray, without: np.ndarray | None, seed: int
) -> dict[str, np.ndarray]:
    """Of `values [cell, prompt]`, the ratios of means over prompts with intervals; NaN without a reliable benefit."""
    if without is None:
        return {}
    benefit = without - baseline
    share = np.stack(ratio((values - baseline).T, benefit, seed=seed))
    share[:] = np.where(benefit.mean() > 0, share, np.nan)
    return dict(zip(("share", "share_low", "share_high"), share, strict=True))


def caution(model: Model, without: float, unit: str) -> str:
    """Says where a loss is above that of guessing uniformly, else nothing."""
    guessing = float(np.log(n_outputs(model)))
    if not unit.startswith("nats") or without <= guessing:
        return ""
    return (
        f"On the first copy the loss is {without:.2f} nats, above the {guessing:.2f} of guessing uniformly: part of "
        "the benefit of the repeat is that the model is no longer wrong."
    )

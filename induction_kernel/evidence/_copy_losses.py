"""The loss of a passage said twice, without the heads that copy and without random ones.

How much of what the second copy gains from the first is lost, as a share: a ratio of means over passages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import NotDefined
from ..heads._names import Head
from ..interventions._ablation import ablate, ablation_curve
from ..model._anatomy import Model
from ..prompts._prompts import Prompts
from ..stats._means import mean_interval
from ..stats._ratios import ratio
from ._ablation_runs import other_heads

__all__ = ["copies_without", "random_share"]


def copies_without(
    model: Model, literal: Prompts, heads: list[Head], controls: int, seed: int, progress: bool
) -> xr.Dataset:
    """The losses of both copies, and of the second without the heads and without random ones."""
    options: dict[str, Any] = {"progress": progress}
    try:
        options |= {"control": other_heads(model, heads), "controls": controls, "seed": seed}
    except NotDefined:  # the model has too few other heads
        found = ablate(model, literal, heads, **options)
    else:
        found = ablation_curve(model, literal, heads, ks=len(heads), **options).isel(k=0)
    names = {"baseline": "copy_loss", "value": "copy_loss_without", "control": "copy_loss_random"}
    names |= {f"share{end}": f"share_lost{end}" for end in ("", "_low", "_high")}
    names |= {"without": "first_loss", "control_share": "random_share", "prompt": "passage"}
    kept = found.drop_vars(["effect", "control_effect", "heads", "k", "control_heads"], errors="ignore")
    out = kept.rename({old: new for old, new in names.items() if old in kept or old in kept.dims})
    return out.drop_attrs().assign_attrs(random_heads=options.get("control", "none"))


def random_share(found: xr.Dataset, controls: int, seed: int) -> tuple[float, float, float]:
    """The mean share that random heads take, with its interval.

    The distances to its ends add up in square: of the ratio over passages, with the mean of the draws, and of the mean
    over draws. Fewer draws than were asked for are all sets there are: their mean is no estimate.
    """
    gain = (found["first_loss"] - found["copy_loss"]).values
    effect = (found["copy_loss_random"] - found["copy_loss"]).transpose("passage", "draw").values
    share, *of_passages = ratio(effect.mean(1), gain, seed=seed)
    by_draw = ratio(effect, gain, seed=seed)[0]
    all_there_are = len(by_draw) < controls
    of_draws = [by_draw.mean()] * 2 if all_there_are else mean_interval(by_draw, seed=seed)
    below, above = (
        np.hypot(a - share, b - by_draw.mean()) for a, b in zip(of_passages, of_draws, strict=True)
    )
    return float(share), float(share - below), float(share + above)

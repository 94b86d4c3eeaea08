"""Loss on the second copy of a passage without the heads that copy, and without random heads.

The share lost is the part of the second copy's benefit (loss of the first copy minus loss of the second) that is gone
without the heads: a ratio of means over passages. Used by `generality`.
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
    """Losses of both copies by passage, and of the second without the heads and without random ones, in nats."""
    options: dict[str, Any] = {"progress": progress}
    try:
        options |= {"control": other_heads(model, heads), "controls": controls, "seed": seed}
    except NotDefined:  # too few other heads: no random sets
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
    """The mean share lost without random heads, and the ends of its 95% interval.

    Two half-widths are added in quadrature: that of the ratio over passages, for the mean of the draws, and that of the
    mean over draws. Fewer draws than `controls` are all sets there are, so the second is then 0.
    """
    gain = (found["first_loss"] - found["copy_loss"]).values
    effect = (found["copy_loss_random"] - found["copy_loss"]).transpose("passage", "draw").values
    share, *of_passages = ratio(effect.mean(1), gain, seed=seed)
    by_draw = ratio(effect, gain, seed=seed)[0]
    exhausted = len(by_draw) < controls
    of_draws = [by_draw.mean()] * 2 if exhausted else mean_interval(by_draw, seed=seed)
    below, above = (
        np.hypot(a - share, b - by_draw.mean()) for a, b in zip(of_passages, of_draws, strict=True)
    )
    return float(share), float(share - below), float(share + above)

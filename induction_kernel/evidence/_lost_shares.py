"""Shares of the in-context-learning score and of a repeat's benefit that are lost when heads are removed.

A share lost is the mean effect divided by the mean benefit, a ratio of means over prompts with its interval
(`stats.ratio`): for the model, or for each checkpoint and each phase of training. NaN where there is no reliable
benefit to lose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from ..interventions._ablation import shares_lost
from ._ablation_runs import MODES

__all__ = ["shares_of"]


def shares_of(found: xr.Dataset, window: tuple[float, float] | None, seed: int) -> xr.Dataset:
    """The result of `Removal` with the shares lost by each group: at each checkpoint, and for each phase's means."""
    if "checkpoint" not in found.dims:
        return found.merge(_lost(found, seed), join="exact")
    at_each = [_lost(found.isel(checkpoint=i), seed) for i in range(found.sizes["checkpoint"])]
    shares = xr.concat(at_each, dim=found["checkpoint"])
    if window is not None:
        tokens = found["tokens"].values
        before, after = tokens < window[0], tokens > window[1]
        of_phase = {"before": before, "in": ~before & ~after, "after": after}
        means = {
            phase: _lost(found.isel(checkpoint=at).mean("checkpoint"), seed)
            for phase, at in of_phase.items()
            if at.any()
        }
        phases = xr.concat(list(means.values()), dim=_labels("phase", means))
        shares = shares.merge(phases.rename({key: f"phase_{key}" for key in phases.data_vars}))
    return found.merge(shares, join="exact")


def _labels(dim: str, labels: Iterable[str]) -> xr.DataArray:
    return xr.DataArray(np.array(list(labels)), dims=dim, name=dim)


def _lost(run: xr.Dataset, seed: int) -> xr.Dataset:
    """Shares of the score and of the repeat's benefit, by mode, for one model."""
    parts = [
        xr.concat([_of_mode(run.sel(mode=mode), on, seed) for mode in MODES], dim=_labels("mode", MODES))
        for on in ("icl", "repeat")
    ]
    return xr.merge(parts)


def _of_mode(run: xr.Dataset, on: str, seed: int) -> xr.Dataset:
    benefit = (run[f"{on}_without"] - run[on]).values
    there = np.isfinite(benefit)  # NaN where the other measure has more prompts
    benefit = benefit[there]
    joint, then, control = (
        run[f"{on}_{key}"].transpose(..., "prompt").values[..., there] for key in ("joint", "then", "control")
    )
    groups = np.stack([joint, joint - control.mean(0), then, *control])
    found = shares_lost(groups, np.zeros_like(benefit), benefit, seed)
    values: dict[str, Any] = {f"{on}_control_share": ("draw", found["share"][3:])}
    for at, name in enumerate(("share", "beyond", "then_share")):
        values |= {f"{on}_{name}{key.removeprefix('share')}": value[at] for key, value in found.items()}
    return xr.Dataset(values, {"draw": run["draw"].values})

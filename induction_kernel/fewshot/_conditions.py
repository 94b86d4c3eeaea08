"""Predictions for the same queries under several conditions, each compared with the first query by query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..data._episodes import Episodes
from ..model._anatomy import Model
from ..stats._shares import mean_share_difference_interval, share_interval
from ._predictions import predict

__all__ = ["compared_conditions"]

PAPER = "Han et al. 2025, section 4.2"


def compared_conditions(
    model: Model,
    conditions: Mapping[str, Episodes],
    method: str,
    seed: int,
    batch_size: int | None,
    *,
    progress: bool,
) -> xr.Dataset:
    """Accuracy, difference to the first condition and agreement with it, as documented by `retrieval_effect`."""
    seed = checked_seed(seed)
    runs = [predict(model, each, batch_size=batch_size, progress=progress) for each in conditions.values()]
    first = runs[0].drop_vars("set", errors="ignore")  # each condition has sets of its own
    correct = np.stack([run["correct"].values for run in runs])
    prediction = np.stack([run["prediction"].values for run in runs])
    same = (prediction == prediction[0]).astype(np.float64)
    each = {"accuracy": correct, "difference": correct - correct[0], "agreement": same}
    values: dict[str, Any] = {
        "correct": (("condition", "prompt"), correct),
        "prediction": (("condition", "prompt"), prediction),
        "log_probability": (
            ("condition", "prompt", "label"), np.stack([run["log_probability"].values for run in runs])
        ),
    }  # fmt: skip
    for key, of_prompt in each.items():
        low, high = _interval(key, of_prompt, seed)
        for name, value in ((key, of_prompt.mean(1)), (f"{key}_low", low), (f"{key}_high", high)):
            values[name] = ("condition", value)
    coords = {"condition": list(conditions)} | {
        key: first[key] for key in ("prompt", "label", "target", "text")
    }
    of_one = ("interval", "calibration", "pooling", "lane", "lane_reason")
    attrs = {key: value for key, value in first.attrs.items() if key not in of_one}
    return xr.Dataset(
        values,
        coords,
        attrs | {"method": method, "paper": PAPER, "interval": "Wilson, of differences Bonett & Price, 95%"},
    )


def _interval(key: str, of_prompt: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95% interval of each condition's mean over prompts."""
    if key != "difference":
        return share_interval(of_prompt.sum(1), of_prompt.shape[1])
    low, high = mean_share_difference_interval(of_prompt.T, seed=seed)
    low[0] = high[0] = 0.0  # the first condition does not differ from itself
    return low, high

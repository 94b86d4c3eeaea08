"""Controls of the vote: weights that need no head, and runs that only the labels' places explain.

Controls of the reconstruction of Han et al. 2025, section 5.2: equal weights (the majority label of the
demonstrations), the last label, a head's mean weight by position. What must be fitted on the prompts where the head is
chosen is put together in `_held_out`. It runs no model: permuted labels and another order are runs of the user's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ._votes import Ballots, as_ballots, as_predictions, vote_hits

__all__ = ["by_position", "control_weights", "permuted_run"]


def control_weights(weights: xr.Dataset) -> xr.Dataset:
    """Two ways to vote without looking at the query, in the format of `demonstration_weights`.

    "majority label": every demonstration counts alike; classes shown equally often are tied, which `vote`
    counts as a fair draw. "last label": only the demonstration right before the query counts.

    Args:
        weights: of `demonstration_weights` or any other source; only its labels are used.

    Returns:
        Dataset with `weight[prompt, control, demonstration]`, NaN where a prompt has fewer demonstrations, and the
        labels' coordinates.

    Raises:
        TypeError: not a Dataset. Refused: no labels of the demonstrations in it.

    Source: the controls are this package's.
    """
    ballots = as_ballots(weights)
    present = ballots.classes >= 0
    last = np.arange(present.shape[1]) == _latest(present)[:, None]
    found = np.stack([present / present.sum(1, keepdims=True), last.astype(np.float64)], axis=1)
    found[np.broadcast_to(~present[:, None], found.shape)] = np.nan
    dims = {"prompt", "demonstration"}
    coords = {key: coord for key, coord in weights.coords.items() if set(coord.dims) <= dims and coord.dims}
    if "label" in weights.coords:
        coords["label"] = weights["label"]
    return xr.Dataset(
        {"weight": (("prompt", "control", "demonstration"), found)},
        {**coords, "control": ["majority label", "last label"]},
        {"method": "control_weights"},
    )


def _latest(present: np.ndarray) -> np.ndarray:
    """Each prompt's last demonstration."""
    return present.shape[1] - 1 - present[:, ::-1].argmax(1)


def by_position(ballots: Ballots, source: int, prompts: np.ndarray) -> np.ndarray:
    """A source's mean weight at each place, counted back from the query, as weights of every prompt.

    Args:
        ballots: the weights.
        source: whose.
        prompts: bool `[prompt]`, over which the mean is.

    Returns:
        `[prompt, demonstration]`; 0 at places that none of these prompts has.
    """
    present = ballots.classes >= 0
    back = present[:, ::-1].cumsum(1)[:, ::-1] - 1  # 0 for the demonstration right before the query
    width = present.shape[1]
    counted = present & prompts[:, None]
    total = np.bincount(back[counted], ballots.weight[:, source][counted], minlength=width)
    count = np.bincount(back[counted], minlength=width)
    return np.where(present, (total / np.maximum(count, 1))[np.maximum(back, 0)], 0.0)


def permuted_run(weights: xr.Dataset, predictions: Any, rerun: xr.Dataset) -> xr.Dataset:
    """Do predictions follow when the labels in the prompt change places, as a vote with the same weights says?

    If in-context learning is kernel regression with weights that depend on the inputs alone, a run on the same
    demonstrations with other labels (`Episodes.permuted`) must be predicted by the first run's weights over the new
    labels. For a run with the demonstrations in another order (`Episodes.shuffled`), which no vote of the inputs can
    feel, `vote(weights, predictions=rerun)` is what compares.

    Args:
        weights: of the first run, `weight[prompt, *source, demonstration]`.
        predictions: of the first run, int `[prompt]` or what `predict` returned.
        rerun: what `predict` returned for the same prompts with other labels on their demonstrations.

    Returns:
        Dataset over the prompts and sources: `follows[prompt, *source]`, the agreement of the first run's weights
        over the new labels with the new prediction; `stays[prompt, *source]`, that of the same weights over the
        old labels with it, the control; and `moved[prompt]`, whether the model's prediction changed at all.

    Raises:
        TypeError: not Datasets. Refused: a run of other prompts, or without `prediction` and `label_class`.

    Source: the hypothesis is Han et al. 2025, section 5; this test of it is this package's.
    """
    ballots = as_ballots(weights, None, predictions)
    before = as_predictions(predictions, ballots)
    if not isinstance(rerun, xr.Dataset):
        raise TypeError(f"wanted the Dataset of fewshot.predict, got {type(rerun).__name__}")
    if not {"prediction", "label_class"} <= set(rerun.variables):
        raise Refused(
            f"wanted a run with `prediction` and `label_class`, got {[str(key) for key in rerun.variables]}"
        )
    after, classes = (
        as_predictions(rerun, ballots),
        rerun["label_class"].transpose("prompt", "demonstration").values,
    )
    if classes.shape != ballots.classes.shape or not np.array_equal(classes < 0, ballots.classes < 0):
        raise Refused(
            "wanted a run with other labels on the same demonstrations, got other prompts: "
            "fewshot.predict(model, episodes.permuted(seed))"
        )
    relabelled = replace(ballots, classes=classes.astype(np.int64))
    found = {
        name: (("prompt", *ballots.dims), ballots.over_sources(vote_hits(each, after)))
        for name, each in (("follows", relabelled), ("stays", ballots))
    }
    dims = {"prompt", *ballots.dims}
    coords = {key: coord for key, coord in weights.coords.items() if set(coord.dims) <= dims}
    return xr.Dataset({**found, "moved": ("prompt", before != after)}, coords, {"method": "permuted_run"})

"""Controls of the vote: weights of the majority label, the last label and by position; runs with permuted labels.

They belong to the reconstruction of Han et al. 2025, section 5.2. Controls that are fitted on the prompts on which the
head is chosen are put together in `_held_out`. No model is run: runs with permuted labels or in another order are made
by the user.
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
    """Weights of two controls that do not look at the query, in the format of `demonstration_weights`.

    "majority label": all demonstrations weigh the same; classes shown equally often are tied, which `vote` counts as a
    fair draw. "last label": only the demonstration right before the query has weight.

    Args:
        weights: Dataset of `demonstration_weights` or another source; only the labels of its demonstrations are used.

    Returns:
        Dataset with `weight[prompt, control, demonstration]`, in [0, 1], summing to 1, NaN where a prompt has fewer
        demonstrations; with the coordinates of the labels.

    Raises:
        TypeError: not a Dataset.
        Refused: a Dataset without labels of demonstrations.

    Source: these controls are this package's.
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
    """Index of each prompt's last demonstration, `[prompt]`."""
    return present.shape[1] - 1 - present[:, ::-1].argmax(1)


def by_position(ballots: Ballots, source: int, prompts: np.ndarray) -> np.ndarray:
    """A source's mean weight at each place, counted back from the query, as weights for every prompt.

    Args:
        ballots: the weights.
        source: index of the source (head).
        prompts: bool `[prompt]`, the prompts that the mean is taken over.

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
    """Whether predictions after a permutation of the labels are those that a vote with the old weights gives.

    If in-context learning is kernel regression with weights that depend on the inputs alone, the first run's weights
    over the new labels must predict a run on the same demonstrations with permuted labels (`Episodes.permuted`). For a
    run with the demonstrations in another order (`Episodes.shuffled`), which does not change such a vote, compare with
    `vote(weights, predictions=rerun)`.

    Args:
        weights: Dataset of the first run, with `weight[prompt, *source, demonstration]`.
        predictions: of the first run, int `[prompt]`, or the Dataset of `fewshot.predict`.
        rerun: the Dataset of `fewshot.predict` for the same prompts with other labels on their demonstrations.

    Returns:
        Dataset with `follows[prompt, *source]`, in [0, 1]: the agreement with the new prediction of a vote with the
        first run's weights over the new labels; `stays[prompt, *source]`, its control: the same over the old labels;
        and bool `moved[prompt]`: whether the model's prediction changed.

    Raises:
        TypeError: not Datasets.
        Refused: a run of other prompts, or without `prediction` and `label_class`.

    Source: the hypothesis is Han et al. 2025, section 5; this test of it is this package's.
    """
    ballots = as_ballots(weights, None, predictions)
    before = as_predictions(predictions, ballots)
    if not isinstance(rerun, xr.Dataset):
        raise TypeError(f"wanted the Dataset of fewshot.predict, got {type(rerun).__name__}")
    if not {"prediction", "label_class"} <= set(rerun.variables):
        raise Refused(
            "wanted the Dataset of fewshot.predict, with `prediction` and `label_class`, got variables "
            f"{[str(key) for key in rerun.variables]}"
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

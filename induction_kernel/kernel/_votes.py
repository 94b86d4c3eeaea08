"""`Ballots`: weights of demonstrations as checked arrays; and the weighted vote, its winners and its hits.

The vote of class y is sum_i a_i [y_i = y] (Han et al. 2025, section 5.2). Weights have one format whatever their source
(heads, sums of heads, explicit kernels, controls). Thresholds and held-out scores are in `_reconstruction` and
`_held_out`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..prompts._conversion import few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts

__all__ = [
    "Ballots", "as_ballots", "as_predictions", "class_weights", "hits", "permuted_hits", "vote_hits", "winners",
]  # fmt: skip

TIE = 1e-9  # votes are tied if closer than this share of the prompt's total weight: sums in any order differ by less
PREDICTIONS = (
    "wanted the model's predictions as classes [prompt], whole numbers, or what fewshot.predict returned"
)


@dataclass(frozen=True, eq=False)
class Ballots:
    """Weights of demonstrations as arrays, with all sources (heads, layers, kernels) along one axis.

    Attributes:
        weight: float64 `[prompt, source, demonstration]`, 0 where a prompt has fewer demonstrations.
        classes: int64 `[prompt, demonstration]`, the label's class, -1 where a prompt has fewer demonstrations.
        target: int64 `[prompt]`, the query's class, -1 where it is not known.
        labels: the label words by class, or "0", "1", ...
        dims: the dimensions of the sources, such as (layer, head).
        like: an array over these dimensions, for their coordinates.
        sets: int64 `[prompt]`, numbers from 0 of the sets of demonstrations that prompts share; all different if none.
    """

    weight: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    dims: tuple[Hashable, ...]
    like: xr.DataArray
    sets: np.ndarray

    def over_sources(self, values: np.ndarray) -> np.ndarray:
        """Values `[..., source]` with the last axis as the sources' own dimensions."""
        return values.reshape((*values.shape[:-1], *self.like.shape))

    def units(self, share: float) -> np.ndarray:
        """What is not split of each prompt: its set, if two or more fit in each part, else the prompt itself."""
        n = int(self.sets.max()) + 1
        return self.sets if 2 <= round(share * n) <= n - 2 else np.arange(len(self.sets))


def as_ballots(weights: Any, prompts: FewShotPrompts | None = None, predictions: Any = None) -> Ballots:
    """The weights of a Dataset in the format of `demonstration_weights`, checked.

    Args:
        weights: Dataset with `weight[prompt, *source, demonstration]` and the coordinates `label_class[prompt,
            demonstration]` and `target[prompt]`; `label`, the label words, if they are known.
        prompts: the prompts of the weights, for the label words; None if they are not needed.
        predictions: the Dataset of `fewshot.predict`, for the label words; otherwise for the number of classes.

    Raises:
        TypeError: not a Dataset.
        Refused: a missing variable or coordinate, weights that are not finite, other prompts than the weights'.
    """
    if not isinstance(weights, xr.Dataset):
        raise TypeError(
            f"wanted the Dataset of demonstration_weights(model, prompts), got {type(weights).__name__}"
        )
    needed = {"weight", "label_class", "target"}
    if not needed <= set(weights.variables) or not {"prompt", "demonstration"} <= set(weights["weight"].dims):
        raise Refused(
            "wanted `weight` over prompt and demonstration, with `label_class` and `target`, as demonstration_weights "
            f"returns it, got {[str(key) for key in weights.variables]}"
        )
    ordered = weights["weight"].transpose("prompt", ..., "demonstration")
    classes = _whole(weights["label_class"].transpose("prompt", "demonstration"))
    n, *_, width = ordered.shape
    if n == 0:
        raise Refused("wanted weights of at least one prompt, got none")
    weight, present = ordered.values.astype(np.float64).reshape(n, -1, width), classes >= 0
    if not present.any(1).all():
        row = int((~present.any(1)).argmax())
        raise Refused(f"prompt {row} has no demonstration, so there is no vote: leave it out")
    weight = np.where(present[:, None], weight, 0.0)
    if not np.isfinite(weight).all():
        row = int(np.isfinite(weight).all((1, 2)).argmin())
        raise Refused(
            f"wanted finite weights of all demonstrations, got NaN or infinite ones in prompt {row}"
        )
    target = _whole(weights["target"])
    labels = _labels(weights, prompts, predictions, classes, target)
    like = ordered.isel(prompt=0, demonstration=0, drop=True)
    sets = np.unique(weights["set"], return_inverse=True)[1] if "set" in weights.coords else np.arange(n)
    return Ballots(weight, classes, target, labels, like.dims, like, sets)


def _whole(classes: xr.DataArray) -> np.ndarray:
    """Classes as int64; -1 for NaN, with which xarray fills up prompts with fewer demonstrations when joining."""
    return np.nan_to_num(classes.values, nan=-1).astype(np.int64)


def _labels(
    weights: xr.Dataset, prompts: Any, predictions: Any, classes: np.ndarray, target: np.ndarray
) -> tuple[str, ...]:
    """The label words, from the prompts, the weights or the predictions; else numbers up to the largest class."""
    words: tuple[str, ...] | None = None
    if prompts is not None:
        found = few_shot_only(prompts).demonstrations
        if not np.array_equal(np.where(found.mask, found.classes, -1), classes):
            raise Refused(
                "these weights are of other prompts, whose demonstrations have other classes (label_class): pass the "
                "prompts they were read on"
            )
        words = tuple(found.labels)
    for given in (weights, predictions):
        if words is None and isinstance(given, xr.Dataset) and "label" in given.variables:
            words = tuple(str(word) for word in given["label"].values)
    largest = int(max(classes.max(), target.max()))
    if words is None:
        numbers = _numbers([] if isinstance(predictions, xr.Dataset) or predictions is None else predictions)
        if numbers.dtype.kind in "iu" and numbers.size:
            largest = max(largest, int(numbers.max()))
        words = tuple(str(y) for y in range(max(largest + 1, 2)))
    if largest >= len(words):
        raise Refused(f"wanted classes from 0 to {len(words) - 1}, the labels {list(words)}, got {largest}")
    return words


def as_predictions(predictions: Any, ballots: Ballots) -> np.ndarray:
    """The model's predicted classes, int64 `[prompt]`, from the Dataset of `fewshot.predict` or from numbers.

    Raises:
        TypeError: not whole numbers.
        Refused: another number of predictions than of prompts, or a class that does not exist.
    """
    given = predictions["prediction"].values if _has_prediction(predictions) else _numbers(predictions)
    n, most = len(ballots.target), len(ballots.labels) - 1
    if given.dtype.kind not in "iu":
        raise TypeError(f"{PREDICTIONS}, got {type(predictions).__name__}")
    if given.shape != (n,):
        raise Refused(f"wanted one prediction for each of {n} prompts, got shape {list(given.shape)}")
    if given.min() < 0 or given.max() > most:
        raise Refused(f"wanted predictions from 0 to {most}, got {given.min()} to {given.max()}")
    return given.astype(np.int64)


def _numbers(predictions: Any) -> np.ndarray:
    """Predictions as an array; TypeError for prompts, which numpy would read as nested lists."""
    if isinstance(predictions, Prompts):
        raise TypeError(
            f"{PREDICTIONS}, got prompts: fewshot.predict(model, prompts) has the model's predictions"
        )
    return np.asarray(predictions)


def _has_prediction(predictions: Any) -> bool:
    """Whether predictions are a Dataset; Refused if it has no `prediction[prompt]`."""
    if isinstance(predictions, xr.Dataset):
        if "prediction" not in predictions or predictions["prediction"].dims != ("prompt",):
            raise Refused(
                "wanted the Dataset of fewshot.predict, with `prediction` over prompt, got variables "
                f"{list(predictions.data_vars)}"
            )
        return True
    return False


def class_weights(weight: np.ndarray, classes: np.ndarray, labels: int) -> np.ndarray:
    """The vote of each class, sum_i a_i [y_i = y], `[prompt, source, label]`.

    Args:
        weight: `[prompt, source, demonstration]`.
        classes: `[prompt, demonstration]`, -1 where a prompt has fewer.
        labels: number of classes.
    """
    return weight @ (classes[..., None] == np.arange(labels)).astype(np.float64)


def winners(votes: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The winner's indicator, `[..., label]`: 1 for the largest vote (divided among tied classes), else 0.

    Args:
        votes: `[..., label]`.
        total: `[...]`, the sum of absolute weights; if it is 0, all classes are tied.
    """
    tied = votes >= votes.max(-1, keepdims=True) - TIE * total[..., None]
    return tied / tied.sum(-1, keepdims=True)


def hits(won: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Hits of each source, `[prompt, source]`: 1 if its winner is the wanted class, 1 / tied if tied, else 0.

    Args:
        won: of `winners`, `[prompt, source, label]`.
        wanted: `[prompt]`, the class to hit; hits are NaN where it is -1 (unknown).
    """
    found = np.take_along_axis(won, np.maximum(wanted, 0)[:, None, None], axis=-1)[..., 0]
    return np.where(wanted[:, None] >= 0, found, np.nan)


def vote_hits(ballots: Ballots, wanted: np.ndarray) -> np.ndarray:
    """Hits of the vote, `[prompt, source]`, as in `hits`."""
    votes = class_weights(ballots.weight, ballots.classes, len(ballots.labels))
    return hits(winners(votes, np.abs(ballots.weight).sum(-1)), wanted)


def permuted_hits(
    ballots: Ballots, wanted: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hits of the vote with the labels permuted among each prompt's demonstrations, for all sources alike.

    Prompts of a set have the same permutations: heads may look at the same demonstrations in all of them, whatever the
    labels, so that their hits are not independent.

    Args:
        ballots: the weights.
        wanted: `[prompt]`, the class to hit; -1 where unknown.
        permutations: number of permutations.
        rng: of the permutations.

    Returns:
        The mean over permutations, `[prompt, source]` (NaN where unknown), and the mean over prompts,
        `[permutation, source]`.
    """
    n_labels, sources = len(ballots.labels), ballots.weight.shape[1]
    by_prompt = np.full((len(wanted), sources), np.nan)
    by_draw = np.zeros((sources, permutations))
    known = np.flatnonzero(wanted >= 0)
    orders = dict[tuple[int, int], np.ndarray]()
    for row in known:
        there = np.flatnonzero(ballots.classes[row] >= 0)
        of_set = int(ballots.sets[row]), len(there)
        if of_set not in orders:
            orders[of_set] = rng.random((permutations, len(there))).argsort(1)
        labels = ballots.classes[row, there][orders[of_set]].T  # [demonstration, permutation]
        shown = (labels[..., None] == np.arange(n_labels)).astype(np.float64)
        weight = ballots.weight[row][:, there]
        votes = (weight @ shown.reshape(len(there), -1)).reshape(sources, permutations, n_labels)
        tied = votes >= votes.max(-1, keepdims=True) - TIE * np.abs(weight).sum(1)[:, None, None]
        found = tied[..., wanted[row]] / tied.sum(-1)
        by_prompt[row], by_draw = found.mean(1), by_draw + found
    return by_prompt, by_draw.T / max(len(known), 1)

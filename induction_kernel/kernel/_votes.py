"""Weights of demonstrations, checked, and the vote they make.

The vote of class y is sum_i a_i [y_i = y] (Han et al. 2025, section 5.2). Weights come in one format, whatever they
are of (heads, sums of heads, explicit kernels, controls). It judges nothing: see `_reconstruction` and `_held_out`.
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

TIE = 1e-9  # votes this close, as a share of the prompt's whole weight, are equal: sums in another order differ by less
PREDICTIONS = (
    "wanted the model's predictions as classes [prompt], whole numbers, or what fewshot.predict returned"
)


@dataclass(frozen=True, eq=False)
class Ballots:
    """Weights as arrays, sources in a row.

    Attributes:
        weight: float64 `[prompt, source, demonstration]`, 0 where a prompt has fewer demonstrations.
        classes: int64 `[prompt, demonstration]`, -1 there.
        target: int64 `[prompt]`, the query's class, -1 where unknown.
        labels: the label words, or "0", "1", ...
        dims: the dimensions of the sources.
        like: an array over these, for their coordinates.
    """

    weight: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    dims: tuple[Hashable, ...]
    like: xr.DataArray

    def over_sources(self, values: np.ndarray) -> np.ndarray:
        """The last axis, sources in a row, as the sources' own dimensions."""
        return values.reshape((*values.shape[:-1], *self.like.shape))


def as_ballots(weights: Any, prompts: FewShotPrompts | None = None, predictions: Any = None) -> Ballots:
    """Weights in the format of `demonstration_weights`, checked.

    Args:
        weights: Dataset with `weight[prompt, *source, demonstration]` and the coordinates `label_class[prompt,
            demonstration]` and `target[prompt]`; with `label`, the label words, where they are known.
        prompts: what the weights are of, for the label words; None where they are not needed.
        predictions: an `predict` Dataset, for the label words; else ignored.

    Raises:
        TypeError: not a Dataset. Refused: a variable or coordinate that is missing, weights that are not finite,
            prompts other than the weights'.
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
        raise Refused(f"prompt {row} has no demonstration, so that nothing votes: leave it out")
    weight = np.where(present[:, None], weight, 0.0)
    if not np.isfinite(weight).all():
        row = int(np.isfinite(weight).all((1, 2)).argmin())
        raise Refused(f"weights of prompt {row} are not finite where it has demonstrations")
    target = _whole(weights["target"])
    labels = _labels(weights, prompts, predictions, classes, target)
    like = ordered.isel(prompt=0, demonstration=0, drop=True)
    return Ballots(weight, classes, target, labels, like.dims, like)


def _whole(classes: xr.DataArray) -> np.ndarray:
    """Classes as int64; -1 where xarray put NaN, joining prompts with more and with fewer demonstrations."""
    return np.nan_to_num(classes.values, nan=-1).astype(np.int64)


def _labels(
    weights: xr.Dataset, prompts: Any, predictions: Any, classes: np.ndarray, target: np.ndarray
) -> tuple[str, ...]:
    """The label words: of the weights, the prompts or the predictions; else numbers up to the largest class."""
    words: tuple[str, ...] | None = None
    if prompts is not None:
        found = few_shot_only(prompts).demonstrations
        if not np.array_equal(np.where(found.mask, found.classes, -1), classes):
            raise Refused(
                "these weights are of other prompts: their demonstrations have other classes than label_class says"
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
    """The model's predictions `[prompt]` as classes, checked; of an `predict` Dataset or as numbers.

    Raises:
        TypeError: no whole numbers. Refused: another number of them than of prompts, or a class there is not.
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
    """Predictions as an array; TypeError for prompts, which numpy would take for nested lists."""
    if isinstance(predictions, Prompts):
        raise TypeError(
            f"{PREDICTIONS}, got prompts: fewshot.predict(model, prompts) has the model's predictions"
        )
    return np.asarray(predictions)


def _has_prediction(predictions: Any) -> bool:
    if isinstance(predictions, xr.Dataset):
        if "prediction" not in predictions or predictions["prediction"].dims != ("prompt",):
            raise Refused(
                "wanted the Dataset of fewshot.predict, with `prediction` over prompt, got variables "
                f"{list(predictions.data_vars)}"
            )
        return True
    return False


def class_weights(weight: np.ndarray, classes: np.ndarray, labels: int) -> np.ndarray:
    """Every class's weight, sum_i a_i [y_i = y]: `[prompt, source, demonstration]` -> `[prompt, source, label]`."""
    return weight @ (classes[..., None] == np.arange(labels)).astype(np.float64)


def winners(votes: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Each class's part of winning, `[..., label]`: 1 for the largest vote, 1 / tied where several are, else 0.

    Args:
        votes: `[..., label]`.
        total: `[...]`, the sum of the weights' sizes; where it is 0, every class is tied.
    """
    tied = votes >= votes.max(-1, keepdims=True) - TIE * total[..., None]
    return tied / tied.sum(-1, keepdims=True)


def hits(won: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far each source's winner is the class wanted, `[prompt, source]`; NaN where that is -1."""
    found = np.take_along_axis(won, np.maximum(wanted, 0)[:, None, None], axis=-1)[..., 0]
    return np.where(wanted[:, None] >= 0, found, np.nan)


def vote_hits(ballots: Ballots, wanted: np.ndarray) -> np.ndarray:
    """`hits` of the vote, `[prompt, source]`."""
    votes = class_weights(ballots.weight, ballots.classes, len(ballots.labels))
    return hits(winners(votes, np.abs(ballots.weight).sum(-1)), wanted)


def permuted_hits(
    ballots: Ballots, wanted: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`hits` with the labels permuted among each prompt's demonstrations, all sources seeing the same permutations.

    Args:
        ballots: the weights.
        wanted: `[prompt]`, the class to hit; -1 where unknown.
        permutations: how many.
        rng: of the permutations.

    Returns:
        `[prompt, source]`, the mean over permutations (NaN where unknown); and `[permutation, source]`, the mean
        over prompts.
    """
    n_labels, sources = len(ballots.labels), ballots.weight.shape[1]
    by_prompt = np.full((len(wanted), sources), np.nan)
    by_draw = np.zeros((sources, permutations))
    known = np.flatnonzero(wanted >= 0)
    for row in known:
        there = np.flatnonzero(ballots.classes[row] >= 0)
        order = rng.random((permutations, len(there))).argsort(1)
        labels = ballots.classes[row, there][order].T  # [demonstration, permutation]
        shown = (labels[..., None] == np.arange(n_labels)).astype(np.float64)
        weight = ballots.weight[row][:, there]
        votes = (weight @ shown.reshape(len(there), -1)).reshape(sources, permutations, n_labels)
        tied = votes >= votes.max(-1, keepdims=True) - TIE * np.abs(weight).sum(1)[:, None, None]
        found = tied[..., wanted[row]] / tied.sum(-1)
        by_prompt[row], by_draw = found.mean(1), by_draw + found
    return by_prompt, by_draw.T / max(len(known), 1)

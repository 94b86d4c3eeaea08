"""Accuracy, calibration error, Brier score and confusion matrix of label log-probabilities.

Calibration error: Guo et al. 2017, section 2; Brier score: Brier 1950. `_predictions` runs the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax

from ..stats._shares import mean_share_interval

__all__ = ["BINS", "calibration_error", "scores_of"]

BINS = 10


def scores_of(logs: np.ndarray, target: np.ndarray, sets: np.ndarray) -> dict[str, Any]:
    """The variables of `predict` that are computed from log-probabilities `[prompt, label]` and classes `[prompt]`.

    Accuracy, calibration error and Brier score are over the prompts whose class is known (not -1); NaN if none is. The
    interval of accuracy is over the `sets [prompt]` of demonstrations if there are several, and fewer than prompts.
    """
    prediction, known = logs.argmax(1), target >= 0
    correct = np.where(known, prediction == target, np.nan)
    n_labels = logs.shape[1]
    confusion = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(confusion, (target[known], prediction[known]), 1)
    values = {
        "prediction": ("prompt", prediction),
        "correct": ("prompt", correct),
        "confusion": (("label", "predicted"), confusion),
    }
    scalars = dict.fromkeys(
        ("accuracy", "accuracy_low", "accuracy_high", "calibration_error", "brier"), np.nan
    )
    if known.any():
        right, n = int(correct[known].sum()), int(known.sum())
        low, high = mean_share_interval(correct[known], sets=sets[known])
        share = softmax(logs[known], axis=1)
        scalars = {
            "accuracy": right / n, "accuracy_low": low, "accuracy_high": high,
            "calibration_error": calibration_error(share.max(1), correct[known]),
            "brier": ((share - np.eye(n_labels)[target[known]]) ** 2).sum(1).mean(),
        }  # fmt: skip
    return values | {key: ((), value) for key, value in scalars.items()}


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error, in [0, 1]: |accuracy - mean confidence| of each bin, weighted by its prompts.

    10 bins (low, high] of equal width; `confidence` and `correct` are `[prompt]`.

    Source: Guo et al. 2017, equations 1 to 3.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, correct - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(confidence))

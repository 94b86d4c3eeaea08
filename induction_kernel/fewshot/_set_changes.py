"""What ablating sets of heads changes: accuracy, probability of the right label and in-context-learning score, judged.

The statistics of `which_heads`: each change is paired by prompt or window with the untouched run, and compared with the
mean change of random heads. `_set_ablations` makes the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..stats._means import mean_interval
from ..stats._shares import mean_share_difference_interval

__all__ = ["INDUCTION", "RANDOM", "VECTOR", "changes_of"]

INDUCTION, VECTOR, RANDOM = "induction heads", "function-vector heads", "random heads"
UNCLEAR = "inconclusive"
HARM = {"accuracy": -1, "label_probability": -1, "icl_score": 1}
"""Measure -> the sign of a change for the worse."""


def changes_of(
    logs: np.ndarray,
    losses: np.ndarray,
    target: np.ndarray,
    counts: Sequence[int],
    n_controls: int,
    seed: int,
) -> xr.Dataset:
    """The measures with each set ablated, and what is said of them.

    Args:
        logs: label log-probabilities `[run, prompt, label]` in nats: the untouched run, then the sets of each share
            (induction heads, function-vector heads, random sets).
        losses: late less early loss `[run, window]`, likewise.
        target: the right class of each prompt.
        counts: number of sets of each share.
        n_controls: number of random sets asked for; fewer are filled up with NaN.
        seed: of the bootstrap.

    Returns:
        Dataset as documented by `which_heads`, without its coordinates `share` and `heads`.
    """
    place = np.arange(len(target))
    values = {
        "accuracy": (logs.argmax(-1) == target).astype(np.float64),
        "label_probability": np.exp(logs[:, place, target]),
        "icl_score": losses,
    }
    names = {"accuracy": "correct", "label_probability": "right_probability", "icl_score": "late_less_early"}
    variables: dict[str, Any] = {}
    for measure, flat in values.items():
        runs = _by_share(flat, counts, n_controls)  # [case, share, run]
        case = "window" if measure == "icl_score" else "prompt"
        variables[names[measure]] = ((case, "share", "run"), runs)
        variables |= _summary(measure, runs, seed)
    coords = {
        "set": [INDUCTION, VECTOR, RANDOM], "prompt": place, "window": np.arange(losses.shape[1]),
        "run": ["untouched", INDUCTION, VECTOR, *(f"{RANDOM} {i}" for i in range(n_controls))],
    }  # fmt: skip
    return xr.Dataset(variables, coords)


def _by_share(flat: np.ndarray, counts: Sequence[int], n_controls: int) -> np.ndarray:
    """Values `[run, case]` as `[case, share, run]`, each share with the untouched run first."""
    out = np.full((flat.shape[1], len(counts), 3 + n_controls), np.nan)
    begin = 1
    for at, count in enumerate(counts):
        out[:, at, 0] = flat[0]
        out[:, at, 1 : 1 + count] = flat[begin : begin + count].T
        begin += count
    return out


def _summary(measure: str, runs: np.ndarray, seed: int) -> dict[str, Any]:
    """The variables of one measure, from `[case, share, run]`."""
    by_set = np.stack([runs[..., 1], runs[..., 2], np.nanmean(runs[..., 3:], -1)], -1)
    change = by_set - runs[..., :1]
    excess, difference = change - change[..., 2:], change[..., 1] - change[..., 0]
    dims, out = ("share", "set"), dict[str, Any]()
    out[measure] = (dims, by_set.mean(0))
    for name, value, of in (
        ("change", change, dims),
        ("excess", excess, dims),
        ("difference", difference, dims[:1]),
    ):
        low, high = _interval(measure, value, seed)
        if name == "excess":  # of random heads over themselves, without error
            low[:, 2] = high[:, 2] = 0.0
        ends = {"": value.mean(0), "_low": low, "_high": high}
        out |= {f"{measure}_{name}{end}": (of, each) for end, each in ends.items()}
    said = _verdicts(measure, out, "excess", f"more than {RANDOM}", f"less than {RANDOM}")
    said[:, 2] = UNCLEAR
    out[f"{measure}_verdict"] = (dims, said)
    out[f"{measure}_decides"] = (dims[:1], _verdicts(measure, out, "difference", VECTOR, INDUCTION))
    out[f"{measure}_control"] = (("share", "draw"), (runs[..., 3:] - runs[..., :1]).mean(0))
    return out


def _interval(measure: str, values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    interval = mean_share_difference_interval if measure == "accuracy" else mean_interval
    low, high = interval(values, seed=seed)
    return np.array(low), np.array(high)


def _verdicts(measure: str, found: dict[str, Any], of: str, worse: str, better: str) -> np.ndarray:
    """`worse` where the interval holds harm alone, `better` where the opposite alone; else inconclusive."""
    low, high = (HARM[measure] * found[f"{measure}_{of}{end}"][1] for end in ("_low", "_high"))
    least, most = np.minimum(low, high), np.maximum(low, high)
    return np.select([least > 0, most < 0], [worse, better], UNCLEAR)

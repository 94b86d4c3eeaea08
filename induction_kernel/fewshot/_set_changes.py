"""What ablating sets of heads changes: accuracy, probability of the right label and in-context-learning score, judged.

The statistics of `which_heads`: each change is paired by prompt or window with the untouched run, and compared with
those of random sets of heads, with their mean over prompts and with their spread over sets. `_set_ablations` makes the
runs.
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
LEVEL = 0.05
FEWEST = 19  # random sets for a verdict: the smallest p with fewer is above the level


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
        Dataset as documented by `which_heads`, without its coordinates `share` and `heads`; attributes `level` and
        `n_verdicts`.
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
    said = [key for key in variables if key.endswith("_verdict")]
    n_verdicts = 3 * len(counts) * len(said)  # of two sets, and which of them decides
    return xr.Dataset(variables, coords, {"level": LEVEL, "n_verdicts": n_verdicts})


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
    control = (runs[..., 3:] - runs[..., :1]).mean(0)
    harm, of_random = HARM[measure] * change.mean(0)[:, :2], HARM[measure] * control
    p, p_less = _p_of_sets(harm, of_random), _p_of_sets(-harm, -of_random)
    apart = _p_of_difference(harm, of_random)
    said = _verdicts(measure, out, "excess", (f"more than {RANDOM}", f"less than {RANDOM}"), (p, p_less))
    enough = np.where(np.isfinite(control).sum(-1) < FEWEST, np.nan, apart)
    decides = _verdicts(measure, out, "difference", (VECTOR, INDUCTION), (enough, enough))
    return out | {
        f"{measure}_p": (dims, p),
        f"{measure}_p_less": (dims, p_less),
        f"{measure}_verdict": (dims, said),
        f"{measure}_difference_p": (dims[:1], apart),
        f"{measure}_decides": (dims[:1], decides),
        f"{measure}_control": (("share", "draw"), control),
    }


def _p_of_sets(harm: np.ndarray, of_random: np.ndarray) -> np.ndarray:
    """(1 + number of random sets with at least as much harm) / (1 + their number) `[share, set]`; NaN for random heads.

    Source: Phipson & Smyth 2010 (the set itself counts as one of the draws).
    """
    at_least = (of_random[:, None] >= harm[..., None]).sum(-1)  # absent sets, NaN, do not count
    p = (1 + at_least) / (1 + np.isfinite(of_random).sum(-1, keepdims=True))
    return np.concatenate([p, np.full((len(p), 1), np.nan)], 1)


def _p_of_difference(harm: np.ndarray, of_random: np.ndarray) -> np.ndarray:
    """(1 + number of pairs of random sets that differ at least as much) / (1 + number of pairs), `[share]`."""
    first, second = np.triu_indices(of_random.shape[1], 1)
    pairs = np.abs(of_random[:, first] - of_random[:, second])
    own = np.abs(harm[:, 1] - harm[:, 0]) - 1e-12  # equal shares count, whatever their rounding
    at_least = (pairs >= own[:, None]).sum(-1)
    return (1 + at_least) / (1 + np.isfinite(pairs).sum(-1))


def _interval(measure: str, values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    interval = mean_share_difference_interval if measure == "accuracy" else mean_interval
    low, high = interval(values, seed=seed)
    return np.array(low), np.array(high)


def _verdicts(
    measure: str, found: dict[str, Any], of: str, names: tuple[str, str], p: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The first name where interval and p show harm, the second where they show the opposite; else inconclusive."""
    low, high = (HARM[measure] * found[f"{measure}_{of}{end}"][1] for end in ("_low", "_high"))
    least, most = np.minimum(low, high), np.maximum(low, high)
    return np.select([(least > 0) & (p[0] <= LEVEL), (most < 0) & (p[1] <= LEVEL)], names, UNCLEAR)

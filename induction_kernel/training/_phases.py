"""`phase_window`: the window of the phase change in training, by a stated rule.

Olsson et al. choose the window from the derivative of the in-context-learning score and give no exact rule. Here it is
the region around the score's steepest descent in ln(tokens), as far as the slope exceeds a quarter of its largest
value; it counts as a window only if inside it the largest prefix-matching excess crosses .3 and the loss on a repeat
falls by at least 1 nat. A steepest descent always exists; without these conditions a model that only learns topics
would have a window too. Intervals are percentile bootstraps over prompts: they cover other prompts, not other seeds or
what happens between two checkpoints. `_onset_coupling` compares two curves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import __version__
from .._given import checked_seed, is_whole
from ..errors import Refused
from ..stats._means import percentiles
from ._onsets import (
    CURVES,
    DIRECTION,
    Numbers,
    at_tokens,
    check_curves,
    grid_of,
    heads_of,
    largest_excess,
    over_runs,
    resampled_means,
    slope_of,
    steepest,
    trained,
    values_of,
)

__all__ = ["EXCESS", "FALL", "SMOOTHING", "check_options", "onsets", "phase_window"]

EXCESS, FALL = 0.3, 1.0
"""The prefix-matching excess that has to be crossed in a window, and the nats by which the repeat loss has to fall."""
SMOOTHING = 0.05
RULE = (
    "the region around the steepest descent of the ICL score in ln(tokens) where the slope exceeds a quarter of its "
    "largest value, if the largest prefix-matching excess crosses .3 and the repeat loss falls by at least 1 nat in it"
)
ONSET = (
    "where the region around the steepest change in ln(tokens) begins, with the slope above a quarter of its largest "
    "value; of heads, the mean of those with at least half of the strongest one's score at the end of training, chosen "
    "on other prompts"
)


def phase_window(
    curves: xr.Dataset, *, smoothing: float = SMOOTHING, draws: int = 500, seed: int = 0
) -> xr.Dataset:
    """The window of the phase change and the onset of every curve, for every run.

    Args:
        curves: the result of `training_curves`; leading dimensions `model` and `seed` are kept.
        smoothing: standard deviation of the Gaussian that smooths slopes, in ln(tokens): .05 is 5% of the tokens.
        draws: of the bootstrap over prompts, at least 100.
        seed: of the bootstrap.

    Returns:
        Dataset over the runs; all but the first two and `heads` are NaN if there is no window:

        | variable | meaning |
        |---|---|
        | `exists` | whether there is a window |
        | `exists_share` | share of draws that have one |
        | `start`, `end` | of the window, in tokens |
        | `score_share` | part of the final in-context-learning score that forms in the window |
        | `fall` | of the repeat loss in the window, in nats |
        | `peak_excess` | largest prefix-matching excess at the end of the window |
        | `onset[curve]` | in tokens |
        | `resolution[curve]` | tokens between the checkpoints around the onset: more prompts do not make it finer |
        | `precedes[curve, other]` | share of draws in which `curve` has its onset before `other`, ties counting half |
        | `heads[curve]` | the heads whose mean a curve is, if any |

        Those from `start` to `onset` also with `_low` and `_high` (95%).

    Raises:
        TypeError: not a Dataset. Refused: variables or tokens missing, fewer than 4 checkpoints after
            step 0, options out of range.

    Source: Olsson et al. 2022, argument 1; the exact rule is this package's and is given in the attribute `rule`.
    """
    check_curves(curves, *CURVES, "prefix_matching_control")
    check_options(smoothing, draws)

    def of_run(run: xr.Dataset) -> xr.Dataset:
        return _window(trained(run), smoothing, draws, np.random.default_rng(checked_seed(seed)))

    attrs = {
        "method": "phase_window", "paper": "Olsson et al. 2022, argument 1; the rule is ours", "rule": RULE,
        "onset_rule": ONSET, "smoothing": smoothing, "draws": draws, "seed": seed, "confidence": 0.95,
        "interval": "percentile bootstrap over prompts", "induction_kernel": __version__,
    }  # fmt: skip
    return over_runs(curves, of_run).assign_attrs(attrs)


def check_options(smoothing: Any, draws: Any) -> None:
    """Raises Refused unless these are a width in ln(tokens) and a number of draws."""
    if not 0 < smoothing <= 1 or not is_whole(draws) or draws < 100:
        raise Refused(
            f"wanted smoothing in ln(tokens), above 0 and at most 1, and draws of at least 100; got {smoothing!r} and "
            f"{draws!r}"
        )


def onsets(run: xr.Dataset, name: str, smoothing: float, draws: int, rng: np.random.Generator) -> Numbers:
    """The onset of a curve of one run, in ln(tokens), `[1 + draws]`: over all prompts, then for each draw."""
    tokens = run["tokens"].values
    slopes = DIRECTION[name] * slope_of(
        resampled_means(values_of(run, name), draws, rng), tokens, smoothing=smoothing
    )
    return grid_of(tokens)[steepest(slopes)[0]]


def _window(run: xr.Dataset, smoothing: float, draws: int, rng: np.random.Generator) -> xr.Dataset:
    tokens, grid = run["tokens"].values, grid_of(run["tokens"].values)
    score, repeat, excess = (
        resampled_means(values, draws, rng)
        for values in (values_of(run, "icl_score"), values_of(run, "repeat_loss"), largest_excess(run))
    )
    start, end = (grid[edge] for edge in steepest(-slope_of(score, tokens, smoothing=smoothing)))

    def change(means: Numbers) -> tuple[Numbers, Numbers]:
        return at_tokens(means, tokens, start), at_tokens(means, tokens, end)

    (score_0, score_1), (repeat_0, repeat_1), (excess_0, excess_1) = map(change, (score, repeat, excess))
    exists = (excess_0 < EXCESS) & (excess_1 >= EXCESS) & (repeat_0 - repeat_1 >= FALL)
    found = {
        "start": np.exp(start), "end": np.exp(end), "score_share": (score_1 - score_0) / score[:, -1],
        "fall": repeat_0 - repeat_1, "peak_excess": excess_1,
    }  # fmt: skip
    values: dict[str, Any] = {"exists": bool(exists[0]), "exists_share": exists[1:].mean()}
    for name, drawn in found.items():
        values |= _interval(name, drawn, exists)
    of_curves = np.stack(
        [start if name == "icl_score" else onsets(run, name, smoothing, draws, rng) for name in CURVES]
    )
    order = _order(of_curves).assign(resolution=("curve", _spacing(tokens, of_curves[:, 0])))
    heads = xr.DataArray([" ".join(heads_of(run, name)) for name in CURVES], dims="curve")
    return xr.Dataset(values).merge(order if exists[0] else order.where(False)).assign(heads=heads)


def _interval(name: str, drawn: Numbers, exists: Any) -> dict[str, float]:
    """The value for all prompts, and the interval over the draws that have a window."""
    kept = drawn[1:][exists[1:]]
    if not exists[0] or not len(kept):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = percentiles(kept)
    return {name: float(drawn[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _order(places: Numbers) -> xr.Dataset:
    """Onsets from `[curve, draw]` with intervals, and how often one comes before another."""
    low, high = percentiles(places[:, 1:].T)
    later = places[None, :, 1:] - places[:, None, 1:]
    earlier = ((later > 0) + 0.5 * (later == 0)).mean(2)
    return xr.Dataset(
        {
            "onset": ("curve", np.exp(places[:, 0])),
            "onset_low": ("curve", np.exp(low)),
            "onset_high": ("curve", np.exp(high)),
            "precedes": (("curve", "other"), earlier),
        },
        {"curve": list(CURVES), "other": list(CURVES)},
    )


def _spacing(tokens: Any, places: Numbers) -> Numbers:
    """The tokens between the checkpoints on both sides of each place in ln(tokens)."""
    after = np.clip(np.searchsorted(tokens, np.exp(places)), 1, len(tokens) - 1)
    return np.diff(tokens).astype(np.float64)[after - 1]

"""One threshold for all heads together: the level holds for the largest excess of all, by sign flips or bootstrap.

Source: Westfall & Young 1993 (max-statistics by resampling).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._means import DRAWS, LEVEL, SKEWED_FROM, Array, resampled_moments

__all__ = ["Threshold", "threshold"]

EXCHANGEABLE = "score and control are exchangeable, but for the margin (sign flips of prompts)"
DOUBT = 0.1
"""Share of flips below which excesses count as skewed: above a test's usual level, as a false alarm costs little."""
NO_EXCESS = "the mean excess is at most the margin (max-t bootstrap: excesses are skewed)"


@dataclass(frozen=True, eq=False)
class Threshold:
    """The value that a cell's mean has to pass; the level is the probability that any cell without an effect passes.

    Attributes:
        at: `[cell]`; infinite if nothing could pass, NaN if the cell lacks finite values.
        tested: `[cell]`, whether the cell could be tested.
        null: the hypothesis tested and how, in words; "" if nothing is tested.
        why: why cells are not tested; "" if all are.
    """

    at: Array
    tested: np.ndarray[Any, np.dtype[np.bool_]]
    null: str
    why: str


def threshold(
    values: Any, *, margin: float = 0.0, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Threshold:
    """The mean that each cell of `[n, cell]` has to pass: margin plus a critical max-t times its standard error.

    The level holds for all cells together: by chance alone, the largest t over all cells would pass in 5% of cases (at
    level .05). Its critical value comes from flipping the signs of all values of a prompt together. This is exact if
    score and control are exchangeable, but gives false alarms of .2 to 1.0 if the mean is no excess and the values have
    a long lower tail. So the skewness of all cells together, and that of the lowest tenth of them, is compared with
    sign flips of the deviations from the means: if either is below nine in ten of the flips, the critical value is that
    of a max-t bootstrap, which holds the level for skewed values too and is higher.

    A cell between the two values, which would pass if values were symmetric, is not tested: more prompts would decide.
    Nothing is tested with fewer than 6 values, as no flip is then rare enough, or with fewer than 8 skewed ones, as the
    bootstrap is then too narrow. False alarms at level .05, with 144 cells, skewness 0, -1, -2, -4 and 8 to 32 values:
    at most .06 if all cells are alike, .08 if a tenth of them are skewed (simulated; with flips alone 1.0 and .7). A
    few skewed cells among many may still raise more with 8 values.

    Args:
        values: `[n, cell]`: excesses of prompts.
        margin: excess too small to matter.
        level: probability that any cell at all passes if none exceeds the margin.
        draws: number of flips, and of bootstrap samples.
        seed: of both.

    Source: Westfall & Young 1993 (max-statistics by resampling).
    """
    values = np.asarray(values, dtype=np.float64)
    defined = np.isfinite(values).all(0) if len(values) else np.zeros(values.shape[1:], dtype=bool)
    above, n = values[:, defined] - margin, len(values)
    at, tested = np.full(values.shape[1:], np.nan), np.zeros(values.shape[1:], dtype=bool)
    if not defined.any():
        return Threshold(at, tested, "", "no cell has a value for every prompt")
    at[defined] = np.inf
    if 0.5**n > level / 2:
        least = int(np.ceil(np.log2(2 / level)))
        return Threshold(
            at, tested, "", f"{n} prompts are too few for level {level:g}: wanted {least} or more"
        )
    rng = np.random.default_rng(seed)
    skewed = _is_skewed(above, rng)
    if skewed and n < SKEWED_FROM:
        why = f"excesses are skewed, and {n} prompts are too few to say how far: wanted {SKEWED_FROM} or more"
        return Threshold(at, tested, "", why)
    mean, why = above.mean(0), [] if defined.all() else ["some cells have no value for some prompts"]
    error = np.sqrt(_squared_errors(above, mean))
    passed = np.quantile(_largest_flipped(above, draws, rng), 1 - level) * error
    said = np.ones(mean.shape, dtype=bool)
    if skewed:
        least, passed = passed, np.quantile(_largest_resampled(above, draws, rng), 1 - level) * error
        said = (mean > passed) | (mean <= least)
        if not said.all():
            why.append(
                f"excesses are skewed, and {n} prompts are too few to tell cells like these from chance"
            )
    at[defined], tested[defined] = margin + passed, said
    return Threshold(at, tested, NO_EXCESS if skewed else EXCHANGEABLE, "; ".join(why))


def _squared_errors(values: Array, mean: Array) -> Array:
    """Squared standard errors of the means `[..., cell]` of values with flipped signs."""
    return np.maximum((values**2).mean(0) - mean**2, 1e-24) / (len(values) - 1)


def _largest_flipped(values: Array, draws: int, rng: np.random.Generator) -> Array:
    """The largest t over all cells, `[draw]`, with the signs of whole rows flipped."""
    parts = []
    for flips in _in_parts(rng.choice([-1.0, 1.0], size=(draws, len(values))), values.shape[1]):
        mean = flips @ values / len(values)
        parts.append((mean / np.sqrt(_squared_errors(values, mean))).max(1))
    return np.concatenate(parts)


def _largest_resampled(values: Array, draws: int, rng: np.random.Generator) -> Array:
    """The largest t over all cells, `[draw]`, of bootstrap samples of the deviations from the means."""
    away, parts = values - values.mean(0), []
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    for some in _in_parts(counts.astype(np.float64), values.shape[1]):
        mean, square = resampled_moments(away, some)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(mean == 0, 0, mean / np.sqrt(square))
        parts.append(t.max(1))
    return np.concatenate(parts)


def _in_parts(rows: Array, cells: int) -> Iterator[Array]:
    """A few rows at a time, so that products with `cells` columns stay small."""
    at_once = max(1, 4_000_000 // max(cells, 1))
    return (rows[at : at + at_once] for at in range(0, len(rows), at_once))


def _is_skewed(values: Array, rng: np.random.Generator) -> bool:
    """Whether all cells, or the lowest tenth, are skewed further down than nine in ten sign flips of the deviations."""
    away = values - values.mean(0)
    square = (away**2).mean(0)
    away, square = away[:, square > 1e-24], square[square > 1e-24]
    if not square.size:
        return False
    flips = np.concatenate([np.ones((1, len(values))), rng.choice([-1.0, 1.0], size=(400, len(values)))])
    every, lowest = [], []
    for some in _in_parts(flips, square.size):
        mean, cube = some @ away / len(values), some @ away**3 / len(values)
        variance = np.maximum(square - mean**2, 1e-3 * square)  # avoids skewness of a flip without spread
        skewness = np.sort((cube - 3 * mean * square + 2 * mean**3) / variance**1.5, axis=1)
        every.append(skewness.mean(1))
        lowest.append(skewness[:, : max(1, square.size // 10)].mean(1))
    found = (np.concatenate(each) for each in (every, lowest))
    return any(each[0] < np.quantile(each[1:], DOUBT) for each in found)

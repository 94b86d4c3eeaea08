"""The max-statistic threshold: one threshold for all heads together, by sign flips of prompts or a max-t bootstrap.

Its level holds for the largest excess of all heads. `heads.summarise` uses it for every result with values per prompt.
Three results have a null of their own and compute the max-statistic of its draws beside it: `vote` (labels permuted,
`kernel/_reconstruction`), `kernel_alignment` (similarities permuted, `kernel/_alignment`), and scores of weights
(random draws, `heads/_summary`).

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
"""Quantile of the flips below which values count as skewed; above a usual level, since a false alarm costs little."""
NO_EXCESS = "the mean excess is at most the margin (max-t bootstrap: excesses are skewed)"


@dataclass(frozen=True, eq=False)
class Threshold:
    """The value that each cell's mean must exceed, and what was tested; `threshold` makes it.

    Attributes:
        at: `[cell]`, the threshold; infinite if nothing could pass, NaN if a value of the cell is missing.
        tested: bool `[cell]`, whether the cell could be tested.
        null: the null hypothesis and the test, in words; "" if nothing is tested.
        why: why some cells are not tested; "" if all are.
    """

    at: Array
    tested: np.ndarray[Any, np.dtype[np.bool_]]
    null: str
    why: str


def threshold(
    values: Any, *, margin: float = 0.0, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Threshold:
    """Threshold of each cell's mean: the margin plus the critical max-t of all cells times the cell's standard error.

    The level holds for all cells together: by chance alone, the largest t over all cells would pass in 5% of cases (at
    level .05). The critical value comes from sign flips, of all values of a prompt together. These are exact if score
    and control are exchangeable, but give false alarms of .2 to 1.0 if there is no mean excess and the values have a
    long lower tail. So the skewness of all cells together, and that of the lowest tenth of them, is compared with that
    of sign-flipped deviations from the means. If either is below nine in ten of the flips, the critical value is that
    of a max-t bootstrap, which holds the level for skewed values too and is higher.

    A cell between these two thresholds, which would pass if values were symmetric, is not tested: more prompts would
    decide. (In simulations from 12 values on, three times as many decided nine in ten such cells at skewness -2, and
    six in ten or more at -4.) Nothing is tested with fewer than 6 values (at level .05), when no flip is rare enough,
    or with fewer than 8 skewed ones, when the bootstrap is too narrow. Simulated false alarms at level .05, with 144
    cells, skewness 0, -1, -2, -4 and 8 to 32 values: at most .06 if all cells are alike, .08 if a tenth of them are
    skewed (with flips alone 1.0 and .7). With 8 values, a few skewed cells among many may still cause more.

    Args:
        values: `[n, cell]`, excess of each prompt and cell.
        margin: excess that is too small to matter, in the unit of the values.
        level: probability, between 0 and 1, that any cell at all passes if no mean exceeds the margin.
        draws: number of sign flips, and of bootstrap samples.
        seed: of both.

    Returns:
        `Threshold` with `at[cell]` and `tested[cell]`; a cell passes if it is tested and its mean is above `at`.

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
        few = "1 prompt is" if n == 1 else f"{n} prompts are"
        return Threshold(at, tested, "", f"{few} too few for level {level:g}: wanted {least} or more")
    rng = np.random.default_rng(seed)
    skewed = _is_skewed(above, rng)
    if skewed and n < SKEWED_FROM:
        why = f"excesses are skewed, and {n} prompts are too few to say how far: wanted {SKEWED_FROM} or more"
        return Threshold(at, tested, "", why)
    mean, why = above.mean(0), [] if defined.all() else ["some cells have no value for some prompts"]
    error = np.sqrt(_squared_errors(above, mean))
    passed = _quantile(_largest_flipped(above, draws, rng), level) * error
    said = np.ones(mean.shape, dtype=bool)
    if skewed:
        least, passed = passed, _quantile(_largest_resampled(above, draws, rng), level) * error
        said = (mean > passed) | (mean <= least)
        if not said.all():
            why.append(
                f"excesses are skewed, and {n} prompts are too few to tell some cells from chance: about {3 * n} "
                "usually decide"
            )
    at[defined], tested[defined] = margin + passed, said
    return Threshold(at, tested, NO_EXCESS if skewed else EXCHANGEABLE, "; ".join(why))


def _quantile(largest: Array, level: float) -> float:
    """The value that `level` of the draws exceed; infinite where numpy would interpolate between infinite ones."""
    with np.errstate(invalid="ignore"):
        found = float(np.quantile(largest, 1 - level))
    return np.inf if np.isnan(found) else found


def _squared_errors(values: Array, mean: Array) -> Array:
    """Squared standard errors of means `[..., cell]` of values `[n, cell]` with any signs flipped."""
    return np.maximum((values**2).mean(0) - mean**2, 1e-24) / (len(values) - 1)


def _largest_flipped(values: Array, draws: int, rng: np.random.Generator) -> Array:
    """The largest t over all cells in each draw, `[draw]`, with the signs of whole rows (prompts) flipped."""
    parts = []
    for flips in _in_parts(rng.choice([-1.0, 1.0], size=(draws, len(values))), values.shape[1]):
        mean = flips @ values / len(values)
        parts.append((mean / np.sqrt(_squared_errors(values, mean))).max(1))
    return np.concatenate(parts)


def _largest_resampled(values: Array, draws: int, rng: np.random.Generator) -> Array:
    """The largest t over all cells in each draw, `[draw]`, of bootstrap samples of deviations from the means."""
    away, parts = values - values.mean(0), []
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    for some in _in_parts(counts.astype(np.float64), values.shape[1]):
        mean, square = resampled_moments(away, some)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(mean == 0, 0, mean / np.sqrt(square))
        parts.append(t.max(1))
    return np.concatenate(parts)


def _in_parts(rows: Array, cells: int) -> Iterator[Array]:
    """The rows in parts, so that products with `cells` columns fit in memory."""
    at_once = max(1, 4_000_000 // max(cells, 1))
    return (rows[at : at + at_once] for at in range(0, len(rows), at_once))


def _is_skewed(values: Array, rng: np.random.Generator) -> bool:
    """Whether the skewness of all cells, or of the lowest tenth, is below that of nine in ten sign-flipped samples."""
    away = values - values.mean(0)
    square = (away**2).mean(0)
    away, square = away[:, square > 1e-24], square[square > 1e-24]
    if not square.size:
        return False
    flips = np.concatenate([np.ones((1, len(values))), rng.choice([-1.0, 1.0], size=(400, len(values)))])
    every, lowest = [], []
    for some in _in_parts(flips, square.size):
        mean, cube = some @ away / len(values), some @ away**3 / len(values)
        variance = np.maximum(square - mean**2, 1e-3 * square)  # not 0, for flips without spread
        skewness = np.sort((cube - 3 * mean * square + 2 * mean**3) / variance**1.5, axis=1)
        every.append(skewness.mean(1))
        lowest.append(skewness[:, : max(1, square.size // 10)].mean(1))
    found = (np.concatenate(each) for each in (every, lowest))
    return any(each[0] < np.quantile(each[1:], DOUBT) for each in found)

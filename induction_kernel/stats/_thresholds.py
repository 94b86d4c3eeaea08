"""One threshold for all heads together: what luck gives the luckiest, by sign flips or by the bootstrap.

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
"""Share of the flips below which excesses count as skewed: larger than a test's level, since the doubt costs little."""
NO_EXCESS = "the mean excess is at most the margin (max-t bootstrap: excesses are skewed)"


@dataclass(frozen=True, eq=False)
class Threshold:
    """What the mean of a cell has to pass, so that no cell without an effect passes at the level.

    Attributes:
        at: `[cell]`; infinite where nothing could pass, NaN where a cell has no finite values.
        tested: `[cell]`, whether passing or not says anything.
        null: what is tested, and how, in words; "" where nothing is.
        why: why cells are not tested; "" where all are.
    """

    at: Array
    tested: np.ndarray[Any, np.dtype[np.bool_]]
    null: str
    why: str


def threshold(
    values: Any, *, margin: float = 0.0, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Threshold:
    """The mean that each cell of `[n, cell]` has to pass: margin plus a critical max-t times its standard error.

    The largest t over all cells is what luck gives the luckiest cell. Its critical value comes from flipping the signs
    of all values of a prompt together, which is exact where score and control are exchangeable, but gives false alarms
    of .2 to 1.0 where the mean is no excess and the values have a long tail below. So the skewness of all cells
    together, and that of the lowest tenth of them, is compared with what flips of the deviations from the means give:
    where either is below nine in ten of them, the critical value is that of a max-t bootstrap, which holds the level
    for skewed values too and is higher.

    A cell between the two, which would pass if values were symmetric, is not tested: more prompts would tell. With
    fewer than 6 values no flip is rare, and with fewer than 8 skewed ones no bootstrap is wide enough: then nothing is
    tested. False alarms at level .05, 144 cells, skewness 0, -1, -2, -4, 8 to 32 values: at most .06 where
    all cells are alike, .08 where a tenth of them are skewed (simulated; flips alone 1.0 and .7). A few skewed cells
    among many may still raise more with 8 values.

    Args:
        values: `[n, cell]`: excesses of prompts.
        margin: excess that is of no consequence.
        level: chance that any cell at all passes where none exceeds the margin.
        draws: of flips and bootstrap.
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
            why.append(f"excesses are skewed, and {n} prompts are too few to tell cells like these from luck")
    at[defined], tested[defined] = margin + passed, said
    return Threshold(at, tested, NO_EXCESS if skewed else EXCHANGEABLE, "; ".join(why))


def _squared_errors(values: Array, mean: Array) -> Array:
    """Squared standard errors of means `[..., cell]` that values have once their signs are flipped."""
    return np.maximum((values**2).mean(0) - mean**2, 1e-24) / (len(values) - 1)


def _largest_flipped(values: Array, draws: int, rng: np.random.Generator) -> Array:
    """The largest t over all cells, `[draw]`, with the signs of values flipped, a row as a whole."""
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
    """Rows a few at a time, so that a product with so many cells stays small."""
    at_once = max(1, 4_000_000 // max(cells, 1))
    return (rows[at : at + at_once] for at in range(0, len(rows), at_once))


def _is_skewed(values: Array, rng: np.random.Generator) -> bool:
    """Whether cells lean further down than sign flips of the deviations let nine in ten do: all, or a tenth of them."""
    away = values - values.mean(0)
    square = (away**2).mean(0)
    away, square = away[:, square > 1e-24], square[square > 1e-24]
    if not square.size:
        return False
    flips = np.concatenate([np.ones((1, len(values))), rng.choice([-1.0, 1.0], size=(400, len(values)))])
    every, lowest = [], []
    for some in _in_parts(flips, square.size):
        mean, cube = some @ away / len(values), some @ away**3 / len(values)
        variance = np.maximum(square - mean**2, 1e-3 * square)  # a flip that leaves no spread has no skewness
        skewness = np.sort((cube - 3 * mean * square + 2 * mean**3) / variance**1.5, axis=1)
        every.append(skewness.mean(1))
        lowest.append(skewness[:, : max(1, square.size // 10)].mean(1))
    found = (np.concatenate(each) for each in (every, lowest))
    return any(each[0] < np.quantile(each[1:], DOUBT) for each in found)

"""`onset_coupling`: whether two training curves change together beyond chance.

The statistic is the correlation over training of the two curves' slopes in ln(tokens), each counted positive in the
direction in which it improves (`_onsets`). Two nulls:

- within a run, one curve is shifted in time, around the ends: p is the share of all shifts whose correlation is at
  least the observed one. It assumes that without a link the change could have come anywhere in the range of ln(tokens)
  that the checkpoints cover. Effects of the learning-rate schedule or of the steep start of training on both curves
  then count as changing together, and a longer range makes p smaller.
- over seeds, each run's first curve is paired with the second curve of another: p is the share of all pairings whose
  mean correlation is at least that of the true one. It assumes only that seeds are exchangeable: the common effect of
  schedule and data is in every pairing. It needs seeds whose onsets differ.

Neither shows that one curve causes the other: see `evidence`.
"""

from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import xarray as xr

from .. import __version__
from .._given import checked_seed
from ..errors import Refused
from ..stats._means import percentiles
from ._onsets import DIRECTION, Numbers, check_curves, grid_of, over_runs, slope_of, trained, values_of
from ._phases import SMOOTHING, check_options, onsets

__all__ = ["exchanged_p", "onset_coupling", "shifted_p"]

FEWEST_SEEDS = 4  # with fewer, p cannot be below 1/6
ALL_PAIRINGS = 5040


def onset_coupling(
    curves: xr.Dataset,
    first: str,
    second: str,
    *,
    smoothing: float = SMOOTHING,
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """Whether two training curves change together, in each run and over seeds.

    Args:
        curves: the result of `training_curves`; leading dimensions `model` and `seed` are kept.
        first: "icl_score", "prefix_matching", "repeat_loss", "previous_token", "copying", "loss" or "sampled_loss".
        second: another one.
        smoothing: standard deviation of the Gaussian that smooths slopes, in ln(tokens).
        draws: draws of the bootstrap over prompts, at least 100; with more than 7 seeds, also of pairings.
        seed: of bootstrap and pairings.

    Returns:
        Dataset with `statistic` in [-1, 1] and `p_value` of each run; `difference`, how much later the second curve has
        its onset, in ln(tokens) (.1 is 10% more tokens), with `difference_low` and `_high` (95%, over prompts). With a
        dimension `seed`, for each model: `seeds_p_value` of the pairings (NaN with fewer than 4 seeds),
        `difference_mean` and `difference_spread` (standard deviation over seeds), and `onset_spread`, that of the first
        curve's onset, to compare it with.

    Raises:
        TypeError: not a Dataset. Refused: an unknown curve or the same twice, fewer than 4 checkpoints after step 0,
            options out of range.

    Source: the tests are ours; the claim is argument 1 of Olsson et al. 2022.
    """
    if first not in DIRECTION or second not in DIRECTION or first == second:
        raise Refused(f"wanted two different curves of {list(DIRECTION)}, got {first!r} and {second!r}")
    check_curves(curves, "icl_score", first, second)
    check_options(smoothing, draws)

    def of_run(run: xr.Dataset) -> xr.Dataset:
        run, rng = trained(run), np.random.default_rng(checked_seed(seed))
        statistic, p_value = shifted_p(*(_slope(run, name, smoothing) for name in (first, second)))
        places = [onsets(run, name, smoothing, draws, rng) for name in (first, second)]
        later = places[1] - places[0]
        low, high = percentiles(later[1:])
        values = {"statistic": statistic, "p_value": p_value, "onset": places[0][0]}
        return xr.Dataset(values | {"difference": later[0], "difference_low": low, "difference_high": high})

    found = over_runs(curves, of_run)
    if "seed" in curves.dims:
        rng = np.random.default_rng(checked_seed(seed))
        found["seeds_p_value"] = over_runs(
            curves, lambda runs: _over_seeds(runs, first, second, smoothing, draws, rng), dims=("model",)
        )["p_value"]
        found["difference_mean"] = found["difference"].mean("seed")
        found["difference_spread"] = found["difference"].std("seed", ddof=1)
        found["onset_spread"] = found["onset"].std("seed", ddof=1)
    attrs = {
        "method": "onset_coupling", "first": first, "second": second, "smoothing": smoothing, "draws": draws,
        "seed": seed, "null": "circular shifts in ln(tokens) within a run; pairings of seeds",
        "paper": "Olsson et al. 2022, argument 1; the tests are ours", "induction_kernel": __version__,
    }  # fmt: skip
    return found.drop_vars("onset").assign_attrs(attrs)


def shifted_p(first: Numbers, second: Numbers) -> tuple[float, float]:
    """Correlation of two slopes on one grid, and the share of circular shifts that reach it."""
    a, b = (_standard(slope) for slope in (first, second))
    at_shift = np.fft.irfft(np.fft.rfft(a) * np.fft.rfft(b).conj(), len(a)) / len(a)
    return float(at_shift[0]), float((at_shift >= at_shift[0] - 1e-12).mean())


def exchanged_p(first: Numbers, second: Numbers, *, draws: int, rng: np.random.Generator) -> float:
    """Share of the pairings of runs `[run, grid]` whose mean correlation is at least that of the true one."""
    n = len(first)
    table = _standard(first) @ _standard(second).T / first.shape[1]
    few = factorial(n) <= ALL_PAIRINGS
    # If pairings are drawn, the true one counts as a draw too
    drawn = permutations(range(n)) if few else [np.arange(n), *(rng.permutation(n) for _ in range(draws))]
    means = np.array([table[np.arange(n), list(order)].mean() for order in drawn])
    return float((means >= np.trace(table) / n - 1e-12).mean())


def _over_seeds(
    runs: xr.Dataset, first: str, second: str, smoothing: float, draws: int, rng: np.random.Generator
) -> xr.Dataset:
    """The p-value of the pairings, on the range of tokens that all seeds cover."""
    if runs.sizes["seed"] < FEWEST_SEEDS:
        return xr.Dataset({"p_value": np.nan})
    each = [trained(runs.isel(seed=i)) for i in range(runs.sizes["seed"])]
    grids = [grid_of(run["tokens"].values) for run in each]
    low, high = max(grid[0] for grid in grids), min(grid[-1] for grid in grids)
    common = np.linspace(low, high, len(grids[0]))
    slopes = (
        np.stack(
            [
                np.interp(common, grid, _slope(run, name, smoothing))
                for run, grid in zip(each, grids, strict=True)
            ]
        )
        for name in (first, second)
    )
    return xr.Dataset({"p_value": exchanged_p(*slopes, draws=draws, rng=rng)})


def _slope(run: xr.Dataset, name: str, smoothing: float) -> Numbers:
    means = values_of(run, name).mean(0)[None]
    return DIRECTION[name] * slope_of(means, run["tokens"].values, smoothing=smoothing)[0]


def _standard(slopes: Numbers) -> Numbers:
    """Slopes with mean 0 and standard deviation 1 over the grid; 0 if nothing varies."""
    centred = slopes - slopes.mean(-1, keepdims=True)
    return centred / np.maximum(centred.std(-1, keepdims=True), 1e-12)

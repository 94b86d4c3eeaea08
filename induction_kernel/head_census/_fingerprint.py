"""Which behaviours each head is named after, and how strongly: Holm over behaviours, the max-statistic over heads.

A behaviour is rejected as "of no head" if any head passes the threshold of `summarise` at the level that Holm's steps
leave to it; the heads that pass at that level, and are not weaker than a least strength, are named after it. So the
probability that a behaviour which no head of the model has is named at all is at most `level`, over all behaviours
together: of untrained models at most 5% show one. Strengths are measured on two halves of the prompts, to choose heads
by the first and to report the second.

Source: Holm 1979 (a simple sequentially rejective multiple test procedure); Westfall & Young 1993 (max-statistics).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..heads._summary import means_of, summarise
from ._behaviours import Behaviour

__all__ = ["fingerprints", "holm", "names", "strengths", "tested_together"]

DRAWS = 4000  # of the resamplings of each test: levels here are a tenth of .05 and less


def holm(
    summary_at: Callable[[str, float], xr.Dataset], names: list[str], level: float
) -> dict[str, tuple[float, xr.Dataset]]:
    """For each behaviour the level at which its heads are tested, and its summary at that level.

    Those that pass at `level` over their number are done; the others are tested at `level` over the number left, and so
    on until none passes.
    """
    done: dict[str, tuple[float, xr.Dataset]] = {}
    left = list(names)
    while left:
        at = level / len(left)
        now = {name: summary_at(name, at) for name in left}
        passing = [name for name in left if bool((now[name]["passes"] == 1).any())]
        if not passing:
            return done | {name: (at, now[name]) for name in left}
        done |= {name: (at, now[name]) for name in passing}
        left = [name for name in left if name not in passing]
    return done


def tested_together(
    results: Mapping[str, xr.Dataset], *, level: float, seed: int
) -> dict[str, tuple[float, xr.Dataset]]:
    """`holm` over the results of these behaviours, each of which has values by prompt."""

    def summary_at(name: str, at: float) -> xr.Dataset:
        return summarise(results[name], level=at, draws=DRAWS, seed=seed)

    return holm(summary_at, list(results), level)


def names(passes: np.ndarray, strength: np.ndarray, least: float) -> np.ndarray:
    """1 where a head passes and has at least this strength, else 0; NaN where it could not be tested.

    With prompts enough a head passes that differs from its control by a hair, and most heads do: significant is not
    large.
    """
    return np.where(np.isnan(passes), np.nan, (passes == 1) & (strength >= least))


def strengths(result: xr.Dataset, behaviour: Behaviour) -> tuple[np.ndarray, np.ndarray]:
    """Strength `[layer, head]` on every other prompt from the first, and on those from the second: in [0, 1].

    The excess as a share of the largest possible, (mean - null) / (most - null), where the null is the control, else
    chance; of a score without a largest value, as a share of what all heads with a positive excess have together. One
    value for both of a score of weights.
    """
    if "prompt" not in result["score"].dims:
        whole = _strength(means_of(result), behaviour)
        return whole, whole
    first, second = (_strength(means_of(result.isel(prompt=slice(at, None, 2))), behaviour) for at in (0, 1))
    return first, second


def _strength(means: xr.Dataset, behaviour: Behaviour) -> np.ndarray:
    excess = means["excess"].values.astype(np.float64)
    if behaviour.most is None:
        total = np.nansum(np.maximum(excess, 0.0))
        share = excess / total if total > 0 else np.zeros_like(excess)
    else:
        null = means["mean"].values - excess
        with np.errstate(invalid="ignore", divide="ignore"):
            share = excess / (behaviour.most - null)
    return np.clip(share, 0.0, 1.0)


def fingerprints(
    found: xr.Dataset, readable: Mapping[str, str], beyond: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """What each head is named after, `[layer, head]`, from `named` and `first_half` over (scorer, layer, head).

    Args:
        found: with `named` (1, 0 or NaN), `first_half`, `least`.
        readable: the behaviours' names in words.
        beyond: for each behaviour those that explain it: it does not set apart a head named after one of them.

    Returns:
        `fingerprint`, the names, strongest first ("unnamed" if none of those that could be tested, with those that
        could not although the head is strong enough; "not tested" if none could); `behaviour`, the name that makes the
        head particular, "" without one; `particular`, its strength times the share of the model's heads that are not
        named after it; `n_tested`, how many could be tested.
    """
    named, strength = found["named"].values, found["first_half"].values
    keys = [str(each) for each in found["scorer"].values]
    names = [readable[key] for key in keys]
    tested = np.isfinite(named)
    n_tested = tested.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        common = (named == 1).sum((1, 2)) / np.maximum(tested.sum((1, 2)), 1)
    apart = named == 1
    for at, key in enumerate(keys):
        for other in beyond[key]:
            if other in keys:
                apart[at] &= named[keys.index(other)] != 1
    special = np.where(apart, np.nan_to_num(strength) * (1 - common)[:, None, None], -1.0)
    strong = strength >= found["least"].values[:, None, None]
    unclear = ~tested & tested.any((1, 2), keepdims=True) & strong
    words = np.empty(n_tested.shape, dtype=object)
    behaviour = np.empty(n_tested.shape, dtype=object)
    for at in np.ndindex(*n_tested.shape):
        mine = [i for i in range(len(names)) if named[(i, *at)] == 1]
        mine.sort(key=lambda i, at=at: -strength[(i, *at)])
        words[at] = ", ".join(names[i] for i in mine)
        if not mine:
            open_ = [name for name, each in zip(names, unclear[(slice(None), *at)], strict=True) if each]
            words[at] = f"unnamed (too few prompts to test {', '.join(open_)})" if open_ else "unnamed"
        words[at] = words[at] if n_tested[at] else "not tested"
        best = int(special[(slice(None), *at)].argmax())
        behaviour[at] = keys[best] if special[(best, *at)] >= 0 else ""
    particular = np.where(n_tested > 0, np.maximum(special.max(0), 0.0), np.nan)
    return {
        "fingerprint": words.astype(str), "behaviour": behaviour.astype(str),
        "particular": particular, "n_tested": n_tested,
    }  # fmt: skip

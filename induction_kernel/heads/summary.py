"""How sure is a score? Means, intervals, and a threshold that holds for all heads together.

Intervals are percentile bootstraps over prompts. The threshold that marks a head is a max-statistic: the signs of
the prompts are flipped, every head gets a t-value, and the largest over all heads is kept (Westfall & Young 1993), so
that 144 heads raise a false alarm at the stated level together, not each. It runs no model: it reads the labelled
results of the scorers.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..given import checked_seed
from .naming import is_whole

__all__ = ["bootstrap", "check_options", "means_of", "one_scorer", "summarise"]


def summarise(
    scores: xr.Dataset,
    *,
    variable: str = "score",
    confidence: float = 0.95,
    draws: int = 2000,
    level: float = 0.05,
    margin: float = 0.02,
    seed: int = 0,
) -> xr.Dataset:
    """Mean, interval and significance of every head's score.

    Args:
        scores: what a scorer or `observe` returned: `score[prompt, layer, head]` with `control` or `chance`;
            or the score of a weight-based scorer, `score[layer, head]` with `null[draw, layer, head]`.
        variable: "score", or another one with a control of its own (`right` of `label_attention`).
        confidence: of the intervals (percentile bootstrap over prompts).
        draws: of the bootstrap and of the sign flips.
        level: chance that any head at all is marked where none exceeds the margin.
        margin: excess that is of no consequence; a head is marked when it reliably exceeds it. In the unit of
            the score.
        seed: of both resamplings.

    Returns:
        Dataset over (layer, head), and scorer where there are several: `mean`, `low`, `high`; `control`,
        where there is one; `chance`; `excess` (over the control where there is one, else over chance) with
        `excess_low` and `excess_high`; `threshold` (the excess that the head has to pass; it differs by head,
        with its spread); `passes`; `rank` (1 = largest excess); `n` (prompts). Weight-based scores have one
        value a head and no interval (NaN), and their threshold is the largest of all heads and random draws, in
        units of the spread of each head's own draws. Below 6
        prompts no head can pass at the 5% level; nor where the score has no credible null (the mass that label
        attention puts on labels: a random head may well prefer some tokens), where `threshold` is NaN.

    Raises:
        TypeError: not a Dataset of scores.
        Refused: no prompts; an option out of its range.

    Source: Westfall & Young 1993, Resampling-Based Multiple Testing (max-statistic by sign flips).
    """
    check_scores(scores)
    check_options(confidence, draws)
    if not (0 < level < 1 and margin >= 0):
        raise Refused(f"wanted level between 0 and 1 and margin >= 0, got level={level}, margin={margin}")
    if "mean" in scores and "passes" in scores:
        if (variable, confidence, draws, level, margin, seed) != ("score", 0.95, 2000, 0.05, 0.02, 0):
            raise Refused(
                "wanted scores, got a summary: give the options where it is made, summarise(scores, ...)"
            )
        return scores
    known = ["score"] + [key for key in scores.data_vars if f"{key}_control" in scores]
    if variable not in known:
        raise Refused(f"wanted variable in {known}, got {variable!r}")
    if "scorer" in scores.dims:
        options: dict[str, Any] = {"variable": variable, "confidence": confidence, "draws": draws}
        options |= {"level": level, "margin": margin, "seed": seed}
        parts = [summarise(scores.sel(scorer=name), **options) for name in scores["scorer"].values]
        return xr.concat(parts, dim="scorer", coords="minimal", compat="override", join="outer").assign_attrs(
            scores.attrs
        )
    if variable != "score":
        renamed = {variable: "score", f"{variable}_control": "control"}
        scores = scores.drop_vars(["score", "control"], errors="ignore").rename(renamed)
        scores = scores.assign_coords(tested=True)
    if "prompt" not in scores["score"].dims:
        if "null" not in scores:
            raise Refused(
                "these scores have no dimension prompt: pass them as the scorer gave them, since the mean over prompts "
                "is taken here; to keep one prompt, scores.isel(prompt=[0])"
            )
        return _weights(scores, margin)
    return _prompts(scores, confidence, draws, level, margin, np.random.default_rng(checked_seed(seed)))


def check_options(confidence: float, draws: int) -> None:
    """Refused unless these make an interval."""
    if not (isinstance(confidence, Real) and 0 < confidence < 1 and is_whole(draws) and draws >= 100):
        raise Refused(
            "wanted confidence between 0 and 1 and whole draws >= 100, "
            f"got confidence={confidence!r}, draws={draws!r}"
        )


def one_scorer(scores: Any) -> xr.Dataset:
    """The scores, if they are those of one scorer; Refused else."""
    check_scores(scores)
    if "scorer" in scores.dims:
        names = scores["scorer"].values.tolist()
        raise Refused(f"wanted one scorer, got {names}: choose with scores.sel(scorer=...)")
    return scores


def check_scores(scores: Any) -> None:
    """TypeError unless these are scores, or a summary of them."""
    if not isinstance(scores, xr.Dataset):
        raise TypeError(f"wanted the Dataset that a scorer returns, got {type(scores).__name__}")
    if not {"layer", "head"} <= set(scores.dims) or not {"score", "mean"} & set(scores.data_vars):
        raise TypeError(
            "wanted a Dataset with `score` (or `mean`, from summarise) over layer and head, "
            f"got variables {list(scores.data_vars)} over {list(scores.dims)}"
        )


def _prompts(
    scores: xr.Dataset, confidence: float, draws: int, level: float, margin: float, rng: Any
) -> xr.Dataset:
    """Summary of per-prompt scores."""
    ds = scores.transpose("prompt", "layer", "head", ...)
    n, *shape = ds["score"].shape
    if n == 0:
        raise Refused("wanted scores of at least one prompt, got none")
    score = ds["score"]
    flat, chance = (
        each.values.astype(np.float64).reshape(n, -1)
        for each in (score, ds["chance"].broadcast_like(score).transpose(*score.dims))
    )
    control = ds["control"].values.astype(np.float64).reshape(n, -1) if "control" in ds else None
    if control is not None:
        control = _of_every_prompt(control)
    excess = flat - (chance if control is None else control)
    low, high = bootstrap(flat, confidence, draws, rng)
    excess_low, excess_high = bootstrap(excess, confidence, draws, rng)
    threshold = margin + _max_t(excess - margin, level, draws, rng)
    if not bool(scores.coords.get("tested", True)):
        threshold = np.full_like(threshold, np.nan)
    values = {
        "mean": flat.mean(0), "low": low, "high": high, "chance": chance.mean(0), "excess": excess.mean(0),
        "excess_low": excess_low, "excess_high": excess_high, "threshold": threshold,
    }  # fmt: skip
    if control is not None:
        values["control"] = control.mean(0)
    return _labelled(ds, {key: value.reshape(shape) for key, value in values.items()}, n)


def _of_every_prompt(control: np.ndarray) -> np.ndarray | None:
    """The control `[prompt, cell]`, None where no prompt has one; Refused where only some have."""
    without = np.isnan(control).all(1)
    if without.all():
        return None
    if without.any():
        raise Refused(
            f"{int(without.sum())} of {len(control)} prompts have no control (the first is prompt "
            f"{int(without.argmax())}): summarise those with and those without one apart"
        )
    return control


def _weights(scores: xr.Dataset, margin: float) -> xr.Dataset:
    """Summary of a weight-based score: one value a head, the null from random draws."""
    ds = scores.transpose("draw", "layer", "head", ...)
    score, chance, null = (ds[key].values.astype(np.float64) for key in ("score", "chance", "null"))
    spread = null.std(0)  # the null of each head is as wide as its circuit is one-sided
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = np.nanmax((null - chance) / spread)
    nothing = np.full(score.shape, np.nan)
    values = {
        "mean": score, "low": nothing, "high": nothing, "chance": chance, "excess": score - chance,
        "excess_low": nothing, "excess_high": nothing, "threshold": margin + largest * spread,
    }  # fmt: skip
    return _labelled(ds, values, 0)


def _labelled(ds: xr.Dataset, values: dict[str, np.ndarray], n: int) -> xr.Dataset:
    dims = ("layer", "head")
    excess = values["excess"]
    order = np.argsort(np.argsort(-excess, axis=None, kind="stable")).reshape(excess.shape) + 1
    out = xr.Dataset({key: (dims, value) for key, value in values.items()})
    out = out.assign(passes=(dims, excess > values["threshold"]), rank=(dims, order), n=n)
    kept = {key: ds[key] for key in ("layer", "head", "name", "scorer") if key in ds.coords}
    return out.assign_coords(kept).assign_attrs(ds.attrs)


def bootstrap(values: np.ndarray, confidence: float, draws: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over axis 0: `[prompt, cell]` -> two `[cell]`."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    means = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n @ values
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def _max_t(values: np.ndarray, level: float, draws: int, rng: Any) -> np.ndarray:
    """The mean each cell of `[prompt, cell]` has to pass: critical max-t over all cells, times its spread."""
    n, defined = len(values), np.isfinite(values).all(0)
    if not defined.all():
        out = np.full(values.shape[1:], np.nan)
        if defined.any():
            out[defined] = _max_t(values[:, defined], level, draws, rng)
        return out
    if 0.5**n > level / 2:
        return np.full(values.shape[1:], np.inf)  # too few prompts for any sign flip to be rare
    square = (values**2).mean(0)

    def spread(mean: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(square - mean**2, 1e-24) / (n - 1))

    means = rng.choice([-1.0, 1.0], size=(draws, n)) @ values / n
    critical = np.quantile((means / spread(means)).max(1), 1 - level)
    return critical * spread(values.mean(0))


def means_of(scores: xr.Dataset) -> xr.Dataset:
    """`mean` and `excess` over (layer, head), without resampling."""
    if "mean" in scores:
        return scores
    mean = scores["score"].astype(np.float64)
    null = (
        scores["control"]
        if "control" in scores and bool(scores["control"].notnull().any())
        else scores["chance"]
    )
    excess = mean - null
    if "prompt" in mean.dims:
        mean, excess = mean.mean("prompt"), excess.mean("prompt")
    return xr.Dataset({"mean": mean, "excess": excess})

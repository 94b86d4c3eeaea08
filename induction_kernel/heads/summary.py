"""The head summary: mean, interval, threshold and rank of every head's score.

Intervals are those of `stats.mean_interval` over prompts, the threshold is that of `stats.threshold`: the t-value that
luck gives the luckiest of all heads, so that 144 heads raise a false alarm at the stated level together, not each. It
runs no model: it reads the labelled results of the scorers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..given import checked_seed
from ..stats import Threshold, check_confidence, mean_interval, threshold

__all__ = ["means_of", "one_scorer", "summarise"]

NO_NULL = "this score has no credible null: a random head may well prefer some tokens"


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
        confidence: of the intervals.
        draws: of the bootstrap and of the sign flips.
        level: chance that any head at all is marked where none exceeds the margin.
        margin: excess that is of no consequence; a head is marked when it reliably exceeds it. In the unit of
            the score.
        seed: of all resamplings.

    Returns:
        Dataset over (layer, head), and scorer where there are several:

        | variable | meaning |
        |---|---|
        | `mean`, `low`, `high` | mean over prompts and its interval |
        | `control` | the mean of the matched control, where there is one |
        | `chance` | the score of uniform attention, or as the scorer says |
        | `excess`, `excess_low`, `excess_high` | over the control where there is one, else over chance; its interval |
        | `threshold` | the excess that the head has to pass; it differs by head, with its spread |
        | `tested` | whether passing or not says anything (bool) |
        | `passes` | 1 or 0, NaN where not tested: compare with 1, since Python takes NaN for true |
        | `rank` | 1 is the largest excess |
        | `n` | prompts |

        Coordinates `null`, what is tested and how (`stats.threshold`), and `untested`, why heads are not tested: below
        6 prompts, below 8 where excesses are skewed, or where the score has no credible null (the mass that label
        attention puts on labels: a random head may well prefer some tokens). Weight-based scores have one value a head
        and no interval (NaN), and their threshold is the largest of all heads and random draws, in units of the spread
        of each head's own draws.

    Raises:
        TypeError: not a Dataset of scores.
        Refused: no prompts; an option out of its range.

    Source: Westfall & Young 1993, Resampling-Based Multiple Testing.
    """
    check_scores(scores)
    check_confidence(confidence, draws)
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
        said = ["null", "untested"]
        return xr.concat(parts, dim="scorer", coords=said, compat="override", join="outer").assign_attrs(
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
    return _prompts(scores, confidence, draws, level, margin, checked_seed(seed))


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
    scores: xr.Dataset, confidence: float, draws: int, level: float, margin: float, seed: int
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
    options: dict[str, Any] = {"confidence": confidence, "draws": draws, "seed": seed}
    low, high = mean_interval(flat, **options)
    excess_low, excess_high = mean_interval(excess, **options)
    found = threshold(excess, margin=margin, level=level, draws=draws, seed=seed)
    if not bool(scores.coords.get("tested", True)):
        nothing = np.full_like(found.at, np.nan)
        found = Threshold(nothing, np.zeros_like(found.tested), "", NO_NULL)
    values = {
        "mean": flat.mean(0), "low": low, "high": high, "chance": chance.mean(0), "excess": excess.mean(0),
        "excess_low": excess_low, "excess_high": excess_high, "threshold": found.at, "tested": found.tested,
    }  # fmt: skip
    if control is not None:
        values["control"] = control.mean(0)
    shaped = {key: value.reshape(shape) for key, value in values.items()}
    return _labelled(ds, shaped, n, null=found.null, untested=found.why)


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
        passed = margin + largest * spread
    nothing = np.full(score.shape, np.nan)
    values = {
        "mean": score, "low": nothing, "high": nothing, "chance": chance, "excess": score - chance,
        "excess_low": nothing, "excess_high": nothing, "threshold": passed, "tested": np.isfinite(passed + score),
    }  # fmt: skip
    why = "" if values["tested"].all() else "some heads have no score, or no random draws"
    return _labelled(ds, values, 0, null="no larger than of random draws of any head", untested=why)


def _labelled(
    ds: xr.Dataset, values: dict[str, np.ndarray], n: int, *, null: str, untested: str
) -> xr.Dataset:
    dims = ("layer", "head")
    excess = values["excess"]
    order = np.argsort(np.argsort(-excess, axis=None, kind="stable")).reshape(excess.shape) + 1
    with np.errstate(invalid="ignore"):
        passes = np.where(values["tested"], excess > values["threshold"], np.nan)
    out = xr.Dataset({key: (dims, value) for key, value in values.items()})
    out = out.assign(passes=(dims, passes), rank=(dims, order), n=n)
    kept = {key: ds[key] for key in ("layer", "head", "name", "scorer") if key in ds.coords}
    return out.assign_coords(kept).assign_coords(null=null, untested=untested).assign_attrs(ds.attrs)


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

"""The head summary: mean, interval, threshold and rank of every head, in one form whatever was measured.

Intervals are those of `stats.mean_interval` over prompts. The max-statistic threshold is `stats.threshold`, computed in
`stats/_thresholds`. Its level holds for all heads together: by chance alone, the largest excess of all heads would pass
in 5% of cases. `vote` and `kernel_alignment` bring their own threshold, and that of scores of weights is computed here,
from random draws. No model is run: `_results` reads the labelled results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..stats._means import check_confidence, mean_interval, moments
from ..stats._thresholds import NO_EXCESS, Threshold, threshold
from ._averages import averages, flattened, placed, ranks
from ._names import names_of
from ._results import (
    SEVERAL,
    Measured,
    check_result,
    is_judged,
    is_summary,
    measured,
    over_heads,
    per_prompt,
    sizes_of,
)

__all__ = ["means_of", "summarise"]

MARGIN = 0.02
SCALED = ("probability", "share", "4 x share", "ratio", "nats", "logits", "Pearson")
"""Beginnings of the units in which `MARGIN` is small."""
PERMUTED = {
    "vote": "which demonstration has which label does not matter (labels permuted within prompts)",
    "kernel_alignment": "which demonstration is how similar does not matter (similarities permuted within prompts)",
}
BOTH_WAYS = (
    "effects are as likely up as down, but for the margin (sign flips of prompts, half the level each way)",
    "the mean effect is within the margin (max-t bootstrap, half the level each way: effects are skewed)",
)


def summarise(
    result: xr.Dataset,
    *,
    variable: str | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    level: float = 0.05,
    margin: float | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Mean, interval, threshold and rank of every head, for any result that has one number per head.

    | result of | what is summarised | chance | tested |
    |---|---|---|---|
    | a scorer, `observe`, `copying`, `direct_effect`, `function_vector_effect` | `score` | as it says | prompts |
    | `ov_eigenvalues`, `qk_trace` | `score` | mean of random draws | by the draws |
    | `composition` | the largest `score` over `receiver`; `.sel(receiver="L1H0")` for one | as it says | no |
    | `sweep`, `knock_out`, `patch` by (layer, head) | `effect`, signed | 0 | over prompts, both ways |
    | `writers_and_cancellers` | `effect`, signed | 0 | over prompts, both ways |
    | `attribution` by (layer, head) | `estimate`, signed | 0 | over prompts, both ways |
    | `vote`, `kernel_alignment` | their `mean` | permuted labels; 0 | by their own permutations |
    | `label_logits` | `writes` | 0 | no |
    | `head_sizes` | one of its variables; the first for None | 0 | no |

    Args:
        result: the result of one of these functions, or a summary, which is returned unchanged. Each entry along
            `scorer` and `model` (results joined with `xr.concat(..., "model", join="outer")`, also of models of
            different shapes) is summarised by itself.
        variable: another variable that has a control (`right` of `label_attention`), or one of `head_sizes`; None for
            the above.
        confidence: of the intervals.
        draws: of the bootstrap and of the sign flips.
        level: probability that any head at all is marked if none exceeds the margin.
        margin: excess too small to matter, in the unit of the result; a head is marked if it reliably exceeds it. None
            for 0.02 in probabilities, shares, ratios, nats and logits, and for 0 in any other unit (products of
            weights, a custom metric), in which no size is small in itself.
        seed: of all resamplings.

    Returns:
        Dataset over (layer, head), and over `scorer` or `model` if the result has several:

        | variable | meaning |
        |---|---|
        | `mean`, `low`, `high` | mean over the prompts that have a value, and its interval |
        | `control` | mean of the matched control, if there is one |
        | `chance` | the value of a head that does nothing of the kind |
        | `excess`, `excess_low`, `excess_high` | over the control if there is one, else over chance; its interval |
        | `threshold` | the excess that the head has to pass (in absolute value, for effects); it differs by head |
        | `tested` | whether the head could be tested (bool) |
        | `passes` | 1 or 0, NaN if not tested: compare with 1, since NaN is true in Python |
        | `rank` | 1 is the largest excess; for effects see below; heads without a value come last |
        | `n` | prompts that have a value; 0 for weights |
        | `size` | for effects: the mean over prompts of their absolute value |

        Effects rank by how much worse they make the metric (a higher loss, a lower logit difference); those of a patch
        by how far they bring it to the value of `source`; those of a metric of which neither side is better (a
        function), and of `attribution` (Kramar et al. 2024), by `size`. The attribute `ranked_first` says which:
        "largest", "smallest" or "size".

        The coordinate `null` is the hypothesis tested and how (`stats.threshold`). `untested` says why heads are not
        tested: fewer than 6 prompts (7 for effects); fewer than 8 if excesses are skewed; a skewed head between the
        thresholds of sign flips and of the bootstrap (more prompts would decide); or no credible null (the total
        attention to labels: a random head may prefer some tokens). Weight-based scores have one value per head and no
        interval (NaN); their threshold is the largest over all heads and random draws, in units of the spread of each
        head's own draws. Attributes are those of the result, with `margin`, `level`, `confidence`, `draws`,
        `resampling_seed` and `ranked_first`.

    Raises:
        TypeError: not a Dataset over heads.
        Refused: not one number per head (a sweep by position); no prompts; an option out of its range, or given for a
            result that has its own threshold.

    Source: Westfall & Young 1993, Resampling-Based Multiple Testing.
    """
    check_result(result)
    check_confidence(confidence, draws)
    if not (0 < level < 1 and (margin is None or margin >= 0)):
        raise Refused(f"wanted level between 0 and 1 and margin >= 0, got level={level}, margin={margin}")
    options: dict[str, Any] = {
        "variable": variable, "confidence": confidence, "draws": draws, "level": level, "margin": margin, "seed": seed,
    }  # fmt: skip
    if is_summary(result):
        _check_untouched(options, "a summary", "summarise(scores, ...)")
        return result
    for dim in SEVERAL:
        if dim in result.dims:
            each = [summarise(result.isel({dim: at}), **options) for at in range(result.sizes[dim])]
            return _joined(each, dim).assign_attrs(result.attrs)
    if is_judged(result):
        _check_untouched(
            options, "a result with its own threshold", "kernel.vote(...) or kernel_alignment(...)"
        )
        return _said_of(_judged(result), result)
    found = measured(result, variable)
    own = {key: found.values.attrs[key] for key in ("unit", "title") if key in found.values.attrs}
    unit = str(own.get("unit", result.attrs.get("unit", SCALED[0])))
    margin = (MARGIN if unit.startswith(SCALED) else 0.0) if margin is None else float(margin)
    chosen = {"margin": margin, "level": level, "confidence": confidence, "draws": draws}
    n, seed = int(result.attrs.get("n_prompts", 0)), checked_seed(seed)
    if "prompt" in found.values.dims:
        out = _prompts(found, seed=seed, n=n, **chosen)
    else:
        out = _weights(found, margin=margin, n=n)
    out = _said_of(out, result).assign_attrs(
        chosen | own | {"resampling_seed": seed, "ranked_first": found.first}
    )
    return out.assign_coords(scorer=str(found.values.name)) if sizes_of(result) else out


def _said_of(summary: xr.Dataset, result: xr.Dataset) -> xr.Dataset:
    """The summary with the result's attributes, scorer and model."""
    kept = {key: result[key].variable for key in SEVERAL if key in result.coords}
    scorer = {} if "scorer" in kept else {"scorer": str(result.attrs.get("method", "score"))}
    return summary.assign_coords(kept | scorer).assign_attrs(result.attrs)


def means_of(result: xr.Dataset) -> xr.Dataset:
    """The part of `summarise` that needs no resampling: mean, chance, control, excess, rank, n, size.

    A summary, or a result with its own threshold, is summarised in full.
    """
    check_result(result)
    if is_summary(result) or is_judged(result):
        return summarise(result)
    found = measured(result)
    values = averages(found, int(result.attrs.get("n_prompts", 0)))
    return placed(found.values, values).assign_attrs(ranked_first=found.first)


def _check_untouched(options: dict[str, Any], what: str, where: str) -> None:
    untouched = {
        "variable": None, "confidence": 0.95, "draws": 2000, "level": 0.05, "margin": None, "seed": 0
    }  # fmt: skip
    if options != untouched:
        raise Refused(f"wanted scores, got {what}: give the options where it is made, {where}")


def _joined(each: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Summaries side by side; layers and heads that only some have are NaN, and not tested, in the others."""
    said = ["null", "untested"] + [key for key in ("receiver",) if key in each[0].coords]
    every = [one.assign_coords({key: one[key].astype(object) for key in said}) for one in each]
    out = xr.concat(every, dim=dim, coords=said, compat="override", join="outer")
    tested = out["tested"].fillna(False).astype(bool)  # where one model has no such head
    layers, heads = out["layer"].values.tolist(), out["head"].values.tolist()
    out = out.assign(tested=tested).assign_coords(name=(("layer", "head"), names_of(layers, heads)))
    return out.assign_coords({key: out[key].fillna("").astype(str) for key in said})


def _prompts(
    found: Measured, *, confidence: float, draws: int, level: float, margin: float, seed: int, n: int
) -> xr.Dataset:
    """Summary of one value per prompt and head."""
    values = averages(found, n)
    flat, chance, control = flattened(found)
    excess = flat - (chance if control is None else control)
    options: dict[str, Any] = {"confidence": confidence, "draws": draws, "seed": seed}
    values["low"], values["high"] = mean_interval(flat, **options)
    values["excess_low"], values["excess_high"] = mean_interval(excess, **options)
    options = {"margin": margin, "level": level, "draws": draws, "seed": seed}
    passed = _both_ways(excess, **options) if found.both_ways else threshold(excess, **options)
    if found.untested:
        nothing = np.full_like(passed.at, np.nan)
        passed = Threshold(nothing, np.zeros_like(passed.tested), "", found.untested)
    values |= {"threshold": passed.at, "tested": passed.tested}
    why = passed.why.replace("cell", "head")  # what `stats` calls a cell is a head here
    return _labelled(found.values, values, null=passed.null, untested=why)


def _both_ways(effects: np.ndarray, *, level: float, **options: Any) -> Threshold:
    """The absolute value that an effect has to pass on its side of 0, each side tested at half the level."""
    up, down = (threshold(side * effects, level=level / 2, **options) for side in (1, -1))
    above = ~(moments(effects)[1] < 0)
    nulls = sorted({BOTH_WAYS[each.null == NO_EXCESS] for each in (up, down) if each.null})
    why = sorted({f"{each.why} (each way is tested at half the level)" for each in (up, down) if each.why})
    at, tested = np.where(above, up.at, down.at), np.where(above, up.tested, down.tested)
    return Threshold(at, tested, "; ".join(nulls), "" if tested.all() else "; ".join(why))


def _weights(found: Measured, *, margin: float, n: int) -> xr.Dataset:
    """Summary of one value per head, with the null from random draws if there are any."""
    values = averages(found, n)
    excess = values["excess"]
    nothing = np.full(excess.shape, np.nan)
    values |= {"low": nothing, "high": nothing, "excess_low": nothing, "excess_high": nothing}
    if found.null is None:
        values |= {"threshold": nothing, "tested": np.zeros(excess.shape, dtype=bool)}
        return _labelled(found.values, values, null="", untested=found.untested)
    null = found.null.transpose("draw", "layer", "head").values.astype(np.float64)
    spread = null.std(0)  # each head's null has its own width
    with np.errstate(invalid="ignore", divide="ignore"):
        passed = margin + np.nanmax((null - values["chance"]) / spread) * spread
    values |= {"threshold": passed, "tested": np.isfinite(passed + excess)}
    why = "" if values["tested"].all() else "some heads have no score, or no random draws"
    return _labelled(found.values, values, null="no larger than of random draws of any head", untested=why)


def _judged(result: xr.Dataset) -> xr.Dataset:
    """Summary of means that have their own threshold, which is kept, as an excess over chance."""
    mean = over_heads(result["mean"], result)
    keys = ("low", "high", "threshold", "passes", *(key for key in ("chance", "n") if key in result))
    given = {key: _like(result[key], mean) for key in keys}
    chance = given.pop("chance", np.zeros(mean.shape))
    at, passes = given.pop("threshold") - chance, given.pop("passes")
    excess = mean.values - chance
    each = per_prompt(result)
    counted = np.zeros(mean.shape) if each is None else np.isfinite(each).sum(0).reshape(mean.shape)
    values = given | {
        "mean": mean.values, "chance": chance, "excess": excess, "threshold": at,
        "excess_low": given["low"] - chance, "excess_high": given["high"] - chance,
        "rank": ranks(excess), "tested": np.isfinite(excess) & (at > 1e-12), "n": given.get("n", counted).astype(int),
    }  # fmt: skip
    why = "" if values["tested"].all() else "some heads have no value, or permuting changes nothing"
    null = PERMUTED.get(str(result.attrs.get("method")), "permuted") if values["tested"].any() else ""
    return _labelled(mean, values, null=null, untested=why, passes=passes)


def _like(values: xr.DataArray, mean: xr.DataArray) -> np.ndarray:
    """Values `[layer, head]` in float64."""
    sizes = {dim: mean.sizes[dim] for dim in ("layer", "head")}
    return values.variable.set_dims(sizes).values.astype(np.float64)


def _labelled(
    like: xr.DataArray, values: dict[str, np.ndarray], *, null: str, untested: str, passes: np.ndarray | None = None
) -> xr.Dataset:  # fmt: skip
    shape = like.shape[-2:]
    values = {key: value.reshape(shape) for key, value in values.items()}
    size = values["excess"] if "size" not in values else np.abs(values["excess"])
    with np.errstate(invalid="ignore"):
        beyond = size > values["threshold"] if passes is None else passes
    values["passes"] = np.where(values["tested"], beyond, np.nan).astype(np.float64)
    return placed(like, values).assign_coords(null=null, untested=untested)

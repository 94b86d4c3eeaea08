"""Co-occurrence (argument 1 of Olsson et al. 2022): induction heads form when in-context learning does.

The in-context-learning (ICL) score, the prefix-matching score and the loss on a repeat change in one window of
training. The checks and their thresholds:

    runs with a window      in over half of the seeds (95% Wilson interval), or in 97.5% of one run's bootstrap samples
    formed in the window    over 75% of the final ICL score (as in Olsson et al.)
    distance of onsets      |ln(onset) - ln(start)| / (ln(end) - ln(start)) below 0.5: less than half a window
    changing together       p below 0.05 (`onset_coupling`): from four seeds on, by pairing each seed's first curve with
                            other seeds' second; for fewer, by circular shifts, the largest p of all runs

Changes at the same time are no proof that one causes the other. Olsson et al.'s fourth sign, the turn of the path of
per-token losses in their principal components, is reported without a check: on a logarithmic grid its sharpest turn may
be the end of the first descent, long before the window. The window is found by `phase_window`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import Refused
from ..loading._histories import training_history
from ..plots._loss_components import component_plot, slope_plot
from ..plots._phases import phase_plot
from ..training._loss_components import loss_components, loss_slope
from ..training._onset_coupling import onset_coupling
from ..training._onsets import FEWEST, check_curves
from ._argument import NO_TEXTS, Argument, Inputs, Part, SixArguments
from ._seed_intervals import mean_check, runs_of, window_check, windows_of
from ._verdicts import Check, inconclusive, judge
from ._wording import ends_of, millions

__all__ = ["CO_OCCURRENCE", "co_occurrence"]

FORMED, APART, CHANCE = 0.75, 0.5, 0.05
SHARE = "share of the final ICL score formed in the window"
AT_HAND = "wanted training checkpoints, got a loaded model, which has none: give its name or its folder"
OTHERS = {"prefix_matching": "prefix matching", "repeat_loss": "repeat loss"}


def co_occurrence(curves: xr.Dataset, *, window: xr.Dataset | None = None) -> xr.Dataset:
    """Whether the curves of one model change in one window of training, in one run or over seeds.

    Checks: runs have a window; over 75% of the final ICL score forms in it; prefix matching and repeat loss have their
    onset within half a window of the ICL score's; each changes together with it (p below 0.05). Over seeds, values are
    means with a 95% interval over the seeds that have a window; of one run, the interval is over its prompts; p-values
    have none. Where no run has a window, that check is contradicted, and with it the claim; the checks about the window
    are then NaN and inconclusive.

    Args:
        curves: what `training_curves` returned for one model, over `seed` where there are several.
        window: what `phase_window` found in these curves; None to find it.

    Returns:
        Dataset of the verdict (see `judge`), with the variables of `phase_window` over `seed`; `difference`,
        `statistic` and `p_value` of `onset_coupling` over `with` and `seed`; and `turn[seed]`, the tokens at which the
        path of the losses turns most sharply. A single run is seed 0. Inconclusive with fewer than 4 checkpoints after
        step 0.

    Raises:
        TypeError: `curves` is no Dataset.
        Refused: curves of several models, a missing curve, or windows of other runs.

    Source: Olsson et al. 2022, argument 1.
    """
    check_curves(curves, "icl_score", "prefix_matching", "repeat_loss", "sampled_loss")
    if "model" in curves.dims:
        raise Refused(
            f"wanted the curves of one model, got {[str(each) for each in curves['model'].values]}: choose with "
            ".sel(model=...), or test all of them with continuity"
        )
    kept = int((curves["tokens"] > 0).sum())
    if kept < FEWEST:
        reason = f"wanted at least {FEWEST} checkpoints of training after step 0, got {kept}"
        return inconclusive(CO_OCCURRENCE, reason)
    found = runs_of(windows_of(curves, window))
    width = np.log(found["end"].values / found["start"].values)
    share, low, high = (found[f"score_share{end}"].values for end in ("", "_low", "_high"))
    n = curves["icl_score"].sizes.get("prompt", 0)
    checks = [
        window_check(found, prompts=n),
        mean_check(SHARE, share, low, high, threshold=FORMED, prompts=n),
    ]
    pairs = [runs_of(onset_coupling(curves, "icl_score", other)) for other in OTHERS]
    for pair, name in zip(pairs, OTHERS.values(), strict=True):
        distance = (each / width for each in _distance(pair))
        title = f"distance of the onsets of ICL score and {name}, in windows"
        checks.append(mean_check(title, *distance, threshold=APART, above=False, prompts=n))
    for pair, name in zip(pairs, OTHERS.values(), strict=True):
        checks.append(_together(f"p-value of ICL score and {name} changing together", pair))
    kept = xr.concat([pair[["difference", "statistic", "p_value"]] for pair in pairs], "with")
    details = found.merge(kept.assign_coords({"with": list(OTHERS)}), combine_attrs="override")
    details = details.assign(turn=("seed", _sharpest_turns(runs_of(loss_components(curves)))))
    attrs = {"model": str(curves.attrs["model"])} if "model" in curves.attrs else {}
    return judge(CO_OCCURRENCE, checks, details, attrs=attrs)


def _distance(pair: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of two onsets, whichever is first, and the ends of its interval, by seed, in ln(tokens)."""
    value, low, high = (pair[f"difference{end}"].values for end in ("", "_low", "_high"))
    nearest = np.where((low < 0) & (high > 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return np.abs(value), nearest, np.maximum(np.abs(low), np.abs(high))


def _together(name: str, pair: xr.Dataset) -> Check:
    """The p-value over pairings of seeds where there are enough seeds; otherwise the largest over the runs' shifts."""
    paired = float(pair["seeds_p_value"]) if "seeds_p_value" in pair else np.nan
    p = paired if np.isfinite(paired) else float(pair["p_value"].max())
    name = f"{name}, {'over pairings of seeds' if np.isfinite(paired) else 'over shifts in time'}"
    n = pair.sizes["seed"]
    return Check(name, p, np.nan, np.nan, CHANCE, above=False, n=n, of="seeds" if n > 1 else "run", is_p=True)


def _sharpest_turns(components: xr.Dataset) -> np.ndarray:
    """For each seed, tokens at the checkpoint farthest from the straight line between the ends of the path."""
    found = []
    for seed in range(components.sizes["seed"]):
        run = components.isel(seed=seed)
        run = run.isel(checkpoint=np.flatnonzero(run["component"].notnull().all("pc")))
        away = run["component"].transpose("checkpoint", "pc").values
        away = away - away[0]
        distance = np.abs(away[:, 0] * away[-1, 1] - away[:, 1] * away[-1, 0])
        found.append(float(run["tokens"].values[distance.argmax()]))
    return np.array(found)


def _run(inputs: Inputs) -> xr.Dataset:
    if inputs.curves is not None:
        return co_occurrence(inputs.curves, window=inputs.window)
    if not isinstance(inputs.source, str | Path):
        return inconclusive(CO_OCCURRENCE, AT_HAND)
    training_history(inputs.source)  # raises NotDefined where a source has no checkpoints
    return inconclusive(CO_OCCURRENCE, NO_TEXTS)


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    if found.curves is None or found.window is None:
        return
    curves, window = found.curves.assign_attrs(model=found.model), found.window
    if bool(window["exists"]):
        start, end, share = ends_of(window)
        yield (
            f"The window is {window.attrs['rule']}. Here it runs from {start} to {end} tokens, and {share} of the "
            f"final score forms in it. {_order(window)}"
        )
    yield phase_plot(curves, window)
    yield (
        "The losses of one random token of each text, along their first two principal components: one point for each "
        "checkpoint, from a quarter of the tokens at which the window starts; points in the window have a rim. And the "
        "slope of the loss in the logarithm of the position in the context."
    )
    from_here = float(window["start"] if bool(window["exists"]) else curves["tokens"].max()) / 4
    # The first descent of the loss is far larger than all later changes.
    late = curves.sel(checkpoint=curves["tokens"].values > from_here)
    yield component_plot(loss_components(late).assign_attrs(model=found.model), window)
    yield slope_plot(loss_slope(curves).sel(position=slice(9, None)), window)


def _order(window: xr.Dataset) -> str:
    order = window.sortby("onset")
    said = [
        f"{str(one['curve'].item()).replace('_', ' ').replace('icl', 'ICL')} at {millions(one['onset'])} "
        f"({millions(one['onset_low'])} to {millions(one['onset_high'])})"
        for one in (order.isel(curve=at) for at in range(order.sizes["curve"]))
    ]
    return f"Onsets, in order of time: {'; '.join(said)}."


CO_OCCURRENCE = Argument(
    name="co_occurrence",
    title="1 Co-occurrence",
    claim="in-context-learning score, prefix matching and the loss on a repeat change in one window of training",
    paper=(
        "In the paper all models of two or more layers, and none of one layer, go through a short phase change early "
        "in training. In it the in-context-learning score falls from above −0.15 to about −0.4 nats (over 75% of it "
        "forms there), induction heads appear, and the path of the per-token losses turns. The paper rates this "
        "evidence medium and correlational, for models of every kind and size."
    ),
    limits=(
        "That two things appear at the same time is no proof that one causes the other: a third, such as the "
        "composition of layers in general, may cause both. Intervals over the prompts of one run do not say where the "
        "window of another seed would be."
    ),
    primary=SHARE,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

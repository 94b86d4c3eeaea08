"""Do induction heads form when in-context learning does? Argument 1 of Olsson et al. 2022: co-occurrence.

The in-context-learning (ICL) score, the prefix-matching score and the loss on a repeat turn in one window of training.
The thresholds:

    runs with a window      over half of the seeds (95% Wilson interval), or 97.5% of the resamplings of one run
    formed in the window    over 75% of the final ICL score (Olsson et al.: over 75%)
    onsets                  |ln(onset) - ln(start)| below ln(end) - ln(start): less than one window apart
    turning together        p below 0.05 that the two curves have nothing to do with one another (`turn_together`)

That two things come at once is no proof that one makes the other. Where the path of the losses in their principal
components turns (Olsson et al.'s fourth sign) is told but not judged: on a logarithmic grid its sharpest turn may be
the end of the first descent, long before the window. It finds no window itself (`phase_window` does).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import stats

from ..training.coupling import loss_components, turn_together
from ..training.phases import phase_window
from ..training.turning import FEWEST
from .spreads import mean_check, runs_of, window_check
from .verdicts import Check, judged, not_testable

__all__ = ["co_occurrence"]

CLAIM = "in-context-learning score, prefix matching and the loss on a repeat turn in one window of training"
FORMED, APART, CHANCE = 0.75, 1.0, 0.05
OTHERS = {"prefix_matching": "prefix matching", "repeat_loss": "repeat loss"}


def co_occurrence(curves: xr.Dataset, *, window: xr.Dataset | None = None) -> xr.Dataset:
    """Whether the curves of one model turn in one window, in one run or over seeds.

    All thresholds stand at the top of this file. Numbers over seeds are means with a 95% t interval over the seeds that
    have a window (p-values: Fisher's combination over all seeds), those of one run have the interval over its prompts.

    Args:
        curves: what `training_curves` returns for one model, maybe over `seed`.
        window: what `phase_window` found in these curves, if it is at hand.

    Returns:
        Dataset of verdict (`value`, `low`, `high`, `threshold`, `above`, `passed` over `check`), with everything that
        `phase_window` returns over `seed`, and `apart[other, seed]` (distance of the onset from that of the ICL score,
        in windows), `statistic[other, seed]` and `p_value[other, seed]` of `turn_together`, `turn[seed]` (tokens at
        which the path of the losses turns most). A single run is seed 0. Not testable with fewer than 4 checkpoints.

    Raises:
        TypeError: if `curves` is no Dataset.
        ValueError: if it has several models, or lacks a curve.

    Source: Olsson et al. 2022, argument 1.
    """
    if not isinstance(curves, xr.Dataset):
        raise TypeError(f"wanted the xarray.Dataset of training_curves, got {type(curves).__name__}")
    if "model" in curves.dims:
        raise ValueError(
            f"wanted the curves of one model, got {[str(each) for each in curves['model'].values]}: choose with "
            ".sel(model=...), or ask continuity for all of them"
        )
    kept = int((curves["tokens"] > 0).sum()) if "tokens" in curves.coords else 0
    if kept < FEWEST:
        reason = f"wanted at least {FEWEST} checkpoints of training after step 0, got {kept}"
        return not_testable("co_occurrence", CLAIM, reason)
    found = runs_of(phase_window(curves) if window is None else window)
    pairs = [runs_of(turn_together(curves, "icl_score", other)) for other in OTHERS]
    details = found.assign(
        {
            "apart": xr.concat([_apart(found, other)[0] for other in OTHERS], "other_curve"),
            "statistic": xr.concat([pair["statistic"] for pair in pairs], "other_curve"),
            "p_value": xr.concat([pair["p_value"] for pair in pairs], "other_curve"),
            "turn": ("seed", _turns(runs_of(loss_components(curves)))),
        }
    ).assign_coords(other_curve=list(OTHERS))
    share = [found[f"score_share{end}"].values for end in ("", "_low", "_high")]
    checks = [
        window_check(found),
        mean_check("share of the final ICL score formed in the window", *share, FORMED),
    ]
    for other, name in OTHERS.items():
        distance = [each.values for each in _apart(found, other)]
        said = f"distance of the onsets of ICL score and {name}, windows"
        checks.append(mean_check(said, *distance, APART, above=False))
    for pair, name in zip(pairs, OTHERS.values(), strict=True):
        checks.append(_together(f"p-value of ICL score and {name} turning together", pair["p_value"].values))
    attrs = {"model": str(curves.attrs["model"])} if "model" in curves.attrs else {}
    return judged("co_occurrence", CLAIM, checks, details, attrs=attrs)


def _apart(window: xr.Dataset, other: str) -> list[xr.DataArray]:
    """Distance of a curve's onset from that of the ICL score, in windows, and the ends of its interval, by seed."""
    onset = window.sel(curve=other, drop=True)
    width = np.log(window["end"]) - np.log(window["start"])
    middle, low, high = (
        (np.log(onset[f"onset{end}"]) - np.log(window["start"])) / width for end in ("", "_low", "_high")
    )
    nearest = xr.where((low < 0) & (high > 0), 0.0, np.minimum(abs(low), abs(high)))
    return [abs(middle), nearest, np.maximum(abs(low), abs(high))]


def _together(name: str, p_values: np.ndarray) -> Check:
    """The p-value of one run, or of all seeds together; a p-value has no interval of its own."""
    p = float(p_values[0]) if len(p_values) == 1 else float(stats.combine_pvalues(p_values).pvalue)
    return Check(name, p, p, p, CHANCE, above=False)


def _turns(components: xr.Dataset) -> np.ndarray:
    """Tokens at the checkpoint farthest from the straight line between the ends of the path, for each seed."""
    path = components["component"].isel(pc=slice(2)).transpose("seed", "checkpoint", "pc").values
    whole = path[:, -1] - path[:, 0]
    away = path - path[:, :1]
    distance = np.abs(away[..., 0] * whole[:, None, 1] - away[..., 1] * whole[:, None, 0])
    return components["tokens"].values[distance.argmax(1)].astype(float)

"""Co-perturbation (argument 2 of Olsson et al. 2022): smeared keys make induction heads form earlier.

A smeared key mixes each key with the one before it, so that a head can find what followed a token without a
previous-token head in an earlier layer. If induction heads cause the phase change, then with smeared keys

    one layer            a window, where the plain model has none
    two or more layers   an earlier window: mean over seeds of ln(start with smeared keys / start without) below 0

Runs are paired by their seed. Models are trained by `train_families`, and windows found by `phase_window`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from scipy import stats

from ..errors import Refused
from ..plots._phases import phase_plot
from ..training._onsets import check_curves
from ._argument import Argument, Inputs, Part, SixArguments, Table
from ._seed_intervals import mean_check, runs_of, share_check, window_check, windows_of
from ._verdicts import Check, inconclusive, judge
from ._wording import window_rows

__all__ = ["ABOUT_FAMILIES", "CO_PERTURBATION", "NO_FAMILY", "SMEARED", "co_perturbation", "layers_of"]

NO_FAMILY = "wanted curves of a family of models with smeared keys and without: train_families makes them"
ABOUT_FAMILIES = (
    "the families of models that come with the package (one and two layers, with smeared keys and without, several "
    "seeds each), trained on the same language: models like this one, not this model itself"
)
SMEARED = re.compile(r"[\s,_-]*smeared([\s_-]*keys)?", re.IGNORECASE)


def co_perturbation(
    curves: xr.Dataset, *, pairs: Mapping[str, str] | None = None, window: xr.Dataset | None = None
) -> xr.Dataset:
    """Whether smeared keys move the window of the phase change as expected if induction heads cause it.

    Two checks for each pair of models. One layer: over half of the plain model's seeds have no window, and over half of
    the smeared model's have one (95% Wilson intervals). Deeper: ln of the ratio of the windows' starts, paired by seed,
    is below 0 (95% interval over seeds; for one run of each, the interval spanned by their own intervals); and the
    smeared model's window is first in over half of the seeds, a missing window counting as infinitely late (for one run
    of each, it has a window at all).

    Args:
        curves: what `training_curves` returned, over `model`, and over `seed` where there are several.
        pairs: label of the plain model -> label of the one with smeared keys. None pairs every label with "smeared" in
            it with the same label without that word.
        window: what `phase_window` found in these curves; None to find it.

    Returns:
        Dataset of the verdict (see `judge`), with `log_ratio[pair, seed]` (NaN where one of the two has no
        window), `start[pair, keys, seed]` in tokens, `layers[pair]`, and for two or more seeds `p_value[pair]`
        (one-sided Wilcoxon signed-rank test of the log ratios; at least 1/32 with five seeds). Inconclusive without a
        pair.

    Raises:
        TypeError: `curves` or `window` is no Dataset.
        Refused: a label that is not among the models, windows of other runs, or a missing curve.

    Source: Olsson et al. 2022, argument 2.
    """
    check_curves(curves, "icl_score", "prefix_matching")
    known = [str(label) for label in curves["model"].values] if "model" in curves.dims else []
    pairs = _pairs(known) if pairs is None else dict(pairs)
    absent = sorted({*pairs, *pairs.values()} - set(known))
    if absent:
        raise Refused(
            f"wanted labels among the models {known}, got {absent}: name the models as the curves do"
        )
    if not pairs:
        why = "wanted curves of a model with smeared keys beside one without, got no pair"
        return inconclusive(CO_PERTURBATION, why)
    window = windows_of(curves, window)
    checks, parts = [], []
    for plain, smeared in pairs.items():
        layers = layers_of(curves.sel(model=plain))
        both = [runs_of(window.sel(model=label, drop=True)) for label in (plain, smeared)]
        n = curves["icl_score"].sizes.get("prompt", 0)
        checks += (_appears if layers == 1 else _moves)(plain, smeared, both[0], both[1], n)
        parts.append(_details(*both).assign(layers=layers))
    details = xr.concat(parts, "pair").assign_coords(pair=[" / ".join(pair[::-1]) for pair in pairs.items()])
    return judge(CO_PERTURBATION, checks, details)


def _pairs(labels: list[str]) -> dict[str, str]:
    """Label without "smeared" -> label with it, for all models that are there with and without."""
    bare = {label: SMEARED.sub("", label).strip() for label in labels if SMEARED.search(label)}
    return {plain: label for label, plain in bare.items() if plain in labels}


def layers_of(curves: xr.Dataset) -> int:
    """The number of layers, by how many have a finite score."""
    over = [dim for dim in curves["prefix_matching"].dims if dim != "layer"]
    return int(curves["prefix_matching"].notnull().any(over).sum())


def _appears(plain: str, smeared: str, control: xr.Dataset, changed: xr.Dataset, n: int) -> list[Check]:
    """The checks of one layer: no window without smeared keys, and one with them."""
    without = window_check(control, has=False, of=f"{plain}: ", prompts=n)
    return [without, window_check(changed, of=f"{smeared}: ", prompts=n)]


def _moves(plain: str, smeared: str, control: xr.Dataset, changed: xr.Dataset, n: int) -> list[Check]:
    """Checks of deeper models: the window is earlier on average and in most seeds; of one run, that it has one."""
    ratio, low, high = (
        np.log(changed[f"start{a}"].values / control[f"start{b}"].values)
        for a, b in (("", ""), ("_low", "_high"), ("_high", "_low"))
    )
    name = f"{smeared}: ln of its window's start over that of {plain}"
    checks = [mean_check(name, ratio, low, high, threshold=0.0, above=False, prompts=n)]
    seeds = control.sizes["seed"]
    if seeds == 1:
        return [*checks, window_check(changed, of=f"{smeared}: ", prompts=n)]
    first = int((_starts(changed) < _starts(control)).sum())
    name = f"{smeared}: share of seeds in which its window starts before that of {plain}"
    return [*checks, share_check(name, first, seeds)]


def _starts(window: xr.Dataset) -> np.ndarray:
    """Start of each window in tokens; infinite where there is none."""
    start = window["start"].values.astype(float)
    return np.where(np.isfinite(start), start, np.inf)


def _details(control: xr.Dataset, changed: xr.Dataset) -> xr.Dataset:
    start = xr.concat([control["start"], changed["start"]], "keys").assign_coords(keys=["plain", "smeared"])
    ratio = np.log(changed["start"].values / control["start"].values)
    found = xr.Dataset({"start": start, "log_ratio": ("seed", ratio)})
    known = ratio[np.isfinite(ratio)]
    p = np.asarray(stats.wilcoxon(known, alternative="less"))[1] if known.any() else np.nan
    return found.assign(p_value=float(p)) if control.sizes["seed"] > 1 else found


def _run(inputs: Inputs) -> xr.Dataset:
    if inputs.families is None:
        return inconclusive(CO_PERTURBATION, NO_FAMILY)
    found = co_perturbation(inputs.families, window=inputs.family_windows)
    return found.assign_attrs(about=ABOUT_FAMILIES) if inputs.shipped else found


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    if found.families is None or found.family_windows is None:
        return
    yield phase_plot(found.families, found.family_windows)
    dims = [dim for dim in ("model", "seed") if dim in found.family_windows.dims]
    header = [*dims, "start of the window", "end", "share of the score formed in it"]
    yield Table(header, window_rows(found.family_windows))


CO_PERTURBATION = Argument(
    name="co_perturbation",
    title="2 Co-perturbation",
    claim="with smeared keys one-layer models have the phase change, and deeper ones have it earlier",
    paper=(
        "A smeared key mixes each key with the one before it, so that a head can find what followed a token without "
        "the help of an earlier layer. In the paper one-layer models then go through the phase change, which they "
        "otherwise never do, and deeper models go through it earlier. The paper rates this evidence medium and "
        "interventional, and weak for large models."
    ),
    limits=(
        "Smeared keys may help other heads than induction heads. What moves is the time in training, which says "
        "nothing about what the trained model does."
    ),
    primary="smeared: ",
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

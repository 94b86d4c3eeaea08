"""Continuity (argument 6 of Olsson et al. 2022): whether the checks of an argument hold at every model.

Each check of the argument is judged at its weakest model: it holds only if it holds there, and is contradicted if it is
contradicted there. The weakest model of a check is

    one that contradicts it, otherwise one at which it is inconclusive, otherwise one at which it holds;
    among several, the one whose interval reaches farthest to the wrong side of the threshold

Models are few and chosen, so no interval over a population of models is given, and no trend with size is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ._argument import Argument, Inputs
from ._co_occurrence import co_occurrence
from ._co_perturbation import ABOUT_FAMILIES, NO_FAMILY, SMEARED, layers_of
from ._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE, NOT_DEFINED, Check, inconclusive, judge

__all__ = ["CONTINUITY", "continuity"]

NOT_TESTED = "not tested"
"""In place of a verdict, where an argument was not tested on a model."""


def continuity(models: xr.Dataset | Mapping[str, xr.Dataset | Sequence[xr.Dataset]]) -> xr.Dataset:
    """Whether the checks of an argument, or of several, hold at every model.

    Every check has to hold at every model on which its argument is defined; at a model that lacks a check which others
    have, it is inconclusive. Leave out plain models of one attention layer: they have no induction heads.

    Args:
        models: label -> what an argument returned for that model, or a list of what several arguments returned; or the
            curves of `training_curves` over `model`, on each of which `co_occurrence` is then tested.

    Returns:
        Dataset of the verdict (see `judge`), with a check for each one of the arguments ("co_occurrence: ..."), taken
        from its `weakest[check]` model. Over `check` and `model`: `value_of`, `low_of`, `high_of` and
        `check_verdict_of`; and `verdict_of[argument, model]`. Inconclusive where no argument is defined on two models
        or more.

    Raises:
        TypeError: a result that is no Dataset.
        Refused: a Dataset that is no argument's, or two of one argument for one model.

    Source: Olsson et al. 2022, argument 6.
    """
    results = _results(models)
    names = list(dict.fromkeys(name for parts in results.values() for name in parts))
    verdicts = [
        [str(parts[name].attrs["verdict"]) if name in parts else NOT_TESTED for parts in results.values()]
        for name in names
    ]
    defined = {name: _defined(name, results) for name in names}
    rows = [row for name, parts in defined.items() if len(parts) > 1 for row in _rows(name, parts)]
    if not rows:
        most = max(map(len, defined.values()), default=0)
        return inconclusive(
            CONTINUITY, f"wanted the checks of two or more models to compare, got those of {most}"
        )
    weakest = [min(row.items(), key=lambda item: _strength(item[1])) for row in rows]
    nothing = Check("", np.nan, np.nan, np.nan, np.nan)
    details = xr.Dataset(
        {
            f"{'check_' * (key == 'verdict')}{key}_of": (
                ("check", "model"),
                np.array([[getattr(row.get(label, nothing), key) for label in results] for row in rows]),
            )
            for key in ("value", "low", "high", "verdict")
        },
        {"check": [check.name for _, check in weakest], "model": list(results), "argument": names},
    )
    details = details.assign(
        verdict_of=(("argument", "model"), np.array(verdicts)),
        weakest=("check", [label for label, _ in weakest]),
    )
    checks = [check for _, check in weakest]
    return judge(CONTINUITY, checks, details, attrs={"models": len(results)})


def _defined(name: str, results: dict[str, dict[str, xr.Dataset]]) -> dict[str, xr.Dataset]:
    """Label -> result of this argument, of the models on which it is defined."""
    parts = {label: of[name] for label, of in results.items() if name in of}
    return {label: part for label, part in parts.items() if part.attrs["verdict"] != NOT_DEFINED}


def _results(models: object) -> dict[str, dict[str, xr.Dataset]]:
    """Label -> name of an argument -> its result."""
    if isinstance(models, xr.Dataset):
        if "model" not in models.dims:
            return {}
        labels = models["model"].values
        return {str(label): _named([co_occurrence(models.sel(model=label, drop=True))]) for label in labels}
    if not isinstance(models, Mapping):
        raise TypeError(
            f"wanted a mapping of label -> results, or curves over `model`, got {type(models).__name__}"
        )
    return {
        str(label): _named(list(parts) if isinstance(parts, list | tuple) else [parts])
        for label, parts in models.items()
    }


def _named(parts: Sequence[Any]) -> dict[str, xr.Dataset]:
    """Name of an argument -> its result on one model."""
    for part in parts:
        if not isinstance(part, xr.Dataset):
            raise TypeError(f"wanted the Datasets of arguments, got {type(part).__name__}")
        if "argument" not in part.attrs or "check" not in part.dims:
            raise Refused(f"wanted the Dataset of an argument, got one with {list(part.data_vars)}")
    names = [str(part.attrs["argument"]) for part in parts]
    if len(set(names)) < len(names):
        raise Refused(
            f"wanted each argument once for a model, got {names}: give each model a label of its own"
        )
    return dict(zip(names, parts, strict=True))


def _rows(name: str, parts: dict[str, xr.Dataset]) -> list[dict[str, Check]]:
    """For each check of an argument, label -> the check at that model."""
    titles = list(dict.fromkeys(str(title) for part in parts.values() for title in part["check"].values))
    return [
        {label: _check_of(f"{name}: {title}", title, part, parts) for label, part in parts.items()}
        for title in titles
    ]


def _check_of(name: str, title: str, part: xr.Dataset, parts: Mapping[str, xr.Dataset]) -> Check:
    """The check at one model; NaN where that model lacks it."""
    if title in part["check"]:
        one = part.sel(check=title)
        kept = {
            key: one[key].item()
            for key in ("value", "low", "high", "threshold", "above", "n", "of", "stated")
        }
        return Check(name, **kept, is_p=bool(one["is_p"]), why=str(one["why"].item()))
    one = next(each for each in parts.values() if title in each["check"]).sel(check=title)
    kept = {key: one[key].item() for key in ("threshold", "above", "stated")}
    return Check(name, np.nan, np.nan, np.nan, **kept, why="this model has no such check")


def _strength(check: Check) -> tuple[int, float]:
    """What models are ordered by: the verdict, then how far the interval's weaker end is beyond the threshold."""
    order = (CONTRADICTED, INCONCLUSIVE, HOLDS).index(check.verdict)
    end = check.value if check.is_p else check.low if check.above else check.high
    margin = end - check.threshold if check.above else check.threshold - end
    return order, float(np.nan_to_num(margin, nan=-np.inf))


def _run(inputs: Inputs) -> xr.Dataset:
    """On the models of the family that can have induction heads: with two or more layers, or with smeared keys."""
    families, windows = inputs.families, inputs.family_windows
    if families is None or windows is None:
        return inconclusive(CONTINUITY, NO_FAMILY)
    labels = [str(label) for label in families["model"].values] if "model" in families.dims else []
    tested = [name for name in labels if SMEARED.search(name) or layers_of(families.sel(model=name)) > 1]
    each = {
        name: co_occurrence(families.sel(model=name, drop=True), window=windows.sel(model=name, drop=True))
        for name in tested
    }
    found = continuity(each)
    return found.assign_attrs(about=ABOUT_FAMILIES) if inputs.shipped else found


CONTINUITY = Argument(
    name="continuity",
    title="6 Continuity",
    claim="what holds for one model holds for every model of the family, smaller or larger",
    paper=(
        "In the paper the same curves and the same kinds of heads are seen in models of all sizes; what causes "
        "in-context learning in small models is then likely to cause it in large ones too. The paper calls this an "
        "analogy, and needs it for large models only."
    ),
    limits=(
        "The models are few, chosen and small, so nothing follows about large ones. The paper itself removes no heads "
        "in large models: what it says about them rests on correlations, on weights and on this analogy."
    ),
    primary="share of the final ICL score",
    run=_run,
    draw=lambda found, result: (),
    source="Olsson et al. 2022",
)

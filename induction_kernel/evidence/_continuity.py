"""Continuity: whether the checks of an argument hold at every model. Argument 6 of Olsson et al. 2022.

A check of another argument holds at every model if it holds at the weakest, and is contradicted if it is at one:

    the weakest model of a check = one that contradicts it, else one that leaves it open, else one at which it holds;
    among several, the one whose interval reaches farthest to the wrong side

No interval over models is drawn from a population: models are few, and chosen. What is a trend (stronger in larger
models) is not asked. It measures nothing itself.
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

NOT_ASKED = "not asked"
"""In the place of the verdict of an argument that a model was not put through."""


def continuity(models: xr.Dataset | Mapping[str, xr.Dataset | Sequence[xr.Dataset]]) -> xr.Dataset:
    """Whether the checks of an argument, or of several, hold at every model.

    Every check has to hold at every model on which its argument is defined; at a model that lacks a check that others
    have it is inconclusive. Models of one attention layer, which have no induction heads, belong to another argument:
    leave them out.

    Args:
        models: label -> what an argument returned for that model (or several arguments did); or the curves of
            `training_curves` over `model`, for each of which `co_occurrence` is asked.

    Returns:
        Dataset of verdict, as in the other arguments, a check for each of theirs ("co_occurrence: ..."), which is that
        of its `weakest[check]` model. Beside it, over `check` and `model`: `value_of`, `low_of`, `high_of` and
        `check_verdict_of`; and `verdict_of[argument, model]`. Inconclusive with fewer than two models on which an
        argument is defined.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if a result is no verdict, or one model has two of one argument.

    Source: Olsson et al. 2022, argument 6.
    """
    results = _results(models)
    names = list(dict.fromkeys(name for parts in results.values() for name in parts))
    verdicts = [
        [str(parts[name].attrs["verdict"]) if name in parts else NOT_ASKED for parts in results.values()]
        for name in names
    ]
    defined = {name: _defined(name, results) for name in names}
    rows = [row for name, parts in defined.items() if len(parts) > 1 for row in _rows(name, parts)]
    if not rows:
        most = max(map(len, defined.values()), default=0)
        return inconclusive(CONTINUITY, f"wanted checks of two or more models to compare, got {most} of them")
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
    """Label -> verdict, of the models on which this argument is defined."""
    parts = {label: of[name] for label, of in results.items() if name in of}
    return {label: part for label, part in parts.items() if part.attrs["verdict"] != NOT_DEFINED}


def _results(models: object) -> dict[str, dict[str, xr.Dataset]]:
    """label -> name of an argument -> its verdict."""
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
    """The verdicts of one model by the name of the argument."""
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
    """Of each check of an argument, label -> the check."""
    titles = list(dict.fromkeys(str(title) for part in parts.values() for title in part["check"].values))
    return [
        {label: _check_of(f"{name}: {title}", title, part, parts) for label, part in parts.items()}
        for title in titles
    ]


def _check_of(name: str, title: str, part: xr.Dataset, parts: Mapping[str, xr.Dataset]) -> Check:
    """The check as it was judged at one model; without a number where that model lacks it."""
    if title in part["check"]:
        one = part.sel(check=title)
        kept = {
            key: one[key].item()
            for key in ("value", "low", "high", "threshold", "above", "n", "of", "stated")
        }
        return Check(name, **kept, is_p=bool(one["is_p"]), why=str(one["why"].item()))
    one = next(each for each in parts.values() if title in each["check"]).sel(check=title)
    kept = {key: one[key].item() for key in ("threshold", "above", "stated")}
    return Check(name, np.nan, np.nan, np.nan, **kept, why="there is no such check of this model")


def _strength(check: Check) -> tuple[int, float]:
    """How far a model is from breaking the check: by its verdict, then by the end of its interval on the wrong side."""
    order = (CONTRADICTED, INCONCLUSIVE, HOLDS).index(check.verdict)
    end = check.value if check.is_p else check.low if check.above else check.high
    margin = end - check.threshold if check.above else check.threshold - end
    return order, float(np.nan_to_num(margin, nan=-np.inf))


def _run(inputs: Inputs) -> xr.Dataset:
    """Of the models of the family with two layers or smeared keys, which can have induction heads."""
    families, windows = inputs.families, inputs.family_windows
    if families is None or windows is None:
        return inconclusive(CONTINUITY, NO_FAMILY)
    labels = [str(label) for label in families["model"].values] if "model" in families.dims else []
    able = [name for name in labels if SMEARED.search(name) or layers_of(families.sel(model=name)) > 1]
    each = {
        name: co_occurrence(families.sel(model=name, drop=True), window=windows.sel(model=name, drop=True))
        for name in able
    }
    found = continuity(each)
    return found.assign_attrs(about=ABOUT_FAMILIES) if inputs.shipped else found


CONTINUITY = Argument(
    name="continuity",
    title="6 Continuity",
    claim="what holds for one model holds for every model, smaller or larger",
    paper=(
        "In the paper the same curves and the same heads are seen in models of all sizes, and the argument is "
        "that what causes in-context learning in small ones is not likely to be another thing in large ones. The paper "
        "counts this as an analogy, and needs it for large models alone."
    ),
    limits=(
        "Models are few, chosen and small, so that no step to large ones follows. In large models the paper itself "
        "removes no heads: what it says of them rests on correlations, weights and this analogy."
    ),
    primary="share of the final ICL score",
    run=_run,
    draw=lambda found, result: (),
    source="Olsson et al. 2022",
)

"""Does what holds for one model hold for others, smaller and larger? Argument 6 of Olsson et al. 2022: continuity.

A check of another argument holds at every model if the interval of each model is beyond the threshold:

    low = min over models (low_m),  high = max over models (high_m),  value = mean over models (value_m)

so that the interval spans those of all models. No interval over models is drawn from a population: models are few, and
chosen. What is a trend (stronger in larger models) is not asked. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from .cooccurring import co_occurrence
from .verdicts import NOT_DEFINED, Check, judged, not_defined

__all__ = ["continuity"]

CLAIM = "what holds for one model holds for every model, smaller or larger"


def continuity(models: xr.Dataset | Mapping[str, xr.Dataset | Sequence[xr.Dataset]]) -> xr.Dataset:
    """Whether the checks of an argument, or of several, pass at every model.

    Every check has to pass at every model where its argument is testable; a model that lacks a check that others have
    does not pass it. Models of one attention layer, which have no induction heads, belong to another argument: leave
    them out.

    Args:
        models: label -> what an argument returned for that model (or several arguments did); or the curves of
            `training_curves` over `model`, for each of which `co_occurrence` is asked.

    Returns:
        Dataset of verdict, as in the other arguments, a check for each of theirs ("co_occurrence: ..."): `value` the
        mean over models, `low` and `high` the ends that span the intervals of all models. Beside it, over `model` and
        `check`: `value_of`, `low_of`, `high_of`, `passed_of`; and `verdict_of[argument, model]` in words. Not testable
        with fewer than two models on which an argument is testable.

    Raises:
        TypeError: if a result is no Dataset.
        Refused: if a result is no verdict, or one model has two of one argument.

    Source: Olsson et al. 2022, argument 6.
    """
    results = _results(models)
    names = list(dict.fromkeys(name for parts in results.values() for name in parts))
    verdicts = [
        [str(parts[name].attrs["verdict"]) if name in parts else NOT_DEFINED for parts in results.values()]
        for name in names
    ]
    testable = {
        name: sum(one != NOT_DEFINED for one in row) for name, row in zip(names, verdicts, strict=True)
    }
    compared = [name for name in names if testable[name] >= 2]
    if not compared:
        most = max(testable.values(), default=0)
        return not_defined(
            "continuity", CLAIM, f"wanted two or more models to compare, got {most} with a verdict"
        )
    rows = [row for name in compared for row in _rows(name, list(results), results)]
    checks = [_spanning(row) for row in rows]
    details = xr.Dataset(
        {
            f"{key}_of": (("check", "model"), np.array([row[key].values for row in rows]))
            for key in ("value", "low", "high", "passed")
        },
        {"check": [check.name for check in checks], "model": list(results), "argument": names},
    ).assign(verdict_of=(("argument", "model"), np.array(verdicts)))
    return judged("continuity", CLAIM, checks, details, attrs={"models": len(results)})


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


def _rows(name: str, labels: list[str], results: dict[str, dict[str, xr.Dataset]]) -> list[xr.Dataset]:
    """One Dataset over `model` for each check of an argument, without the models on which it is not testable."""
    parts = {label: results[label][name] for label in labels if name in results[label]}
    parts = {label: part for label, part in parts.items() if part.attrs["verdict"] != NOT_DEFINED}
    checks = list(dict.fromkeys(str(check) for part in parts.values() for check in part["check"].values))
    rows = []
    for check in checks:
        one = {label: part.sel(check=check) for label, part in parts.items() if check in part["check"]}
        first = next(iter(one.values()))
        values = {
            key: ("model", [float(one[label][key]) if label in one else np.nan for label in labels])
            for key in ("value", "low", "high")
        }
        passed = [label in one and bool(one[label]["passed"]) for label in labels]
        tested = [label in parts for label in labels]
        row = xr.Dataset({**values, "passed": ("model", passed), "tested": ("model", tested)})
        rows.append(
            row.assign(threshold=float(first["threshold"]), above=bool(first["above"])).assign_attrs(
                name=f"{name}: {check}"
            )
        )
    return rows


def _spanning(row: xr.Dataset) -> Check:
    """The check at all models at once; without an interval where one that is tested has none."""
    tested = row["tested"].values
    value, low, high = (row[key].values[tested] for key in ("value", "low", "high"))
    return Check(
        str(row.attrs["name"]), float(value.mean()), float(low.min()), float(high.max()),
        float(row["threshold"]), bool(row["above"]),
    )  # fmt: skip

"""The measured value of each head in a result, in one form: scores, effects, estimates, composition, label logits.

Summaries and comparisons read results through this file. A result without one number per head is refused, with advice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import Refused
from ._names import names_of

__all__ = [
    "Measured",
    "check_result",
    "is_judged",
    "is_measured",
    "is_summary",
    "measured",
    "one_result",
    "over_heads",
    "per_prompt",
    "sizes_of",
]

SEVERAL = ("model", "scorer")
"""Dimensions along which a Dataset holds several results."""
MEASURED = ("score", "effect", "estimate", "writes")
PREFER = "this score has no credible null: a random head may prefer some tokens"
NO_DRAWS = "one value per head, over all prompts together, without random draws to compare it with"
STRONGEST = "the largest over all receivers; for one pair, compare its excess over chance with its `spread`"
PAIR = "the mean and the spread over random rotations are known, not their largest"
SIZE = "a size without a null: it is described, not tested"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of each head.

    Attributes:
        values: `[prompt, layer, head]`, or `[layer, head]` if there is one value per head.
        chance: the value of a head that does nothing of the kind; broadcasts to `values`.
        control: `values` on the matched control, or None.
        null: `[draw, layer, head]`, values of random draws, or None.
        both_ways: whether values on both sides of chance are findings, as for effects.
        first: the excess that ranks first: the "largest", the "smallest", or the largest "size".
        untested: why heads cannot be tested on it; "" if they can.
    """

    values: xr.DataArray
    chance: xr.DataArray
    control: xr.DataArray | None = None
    null: xr.DataArray | None = None
    both_ways: bool = False
    first: Literal["largest", "smallest", "size"] = "largest"
    untested: str = ""


def check_result(result: Any) -> None:
    """TypeError unless this is a Dataset over layers and heads, as scorers and interventions return."""
    if not isinstance(result, xr.Dataset):
        raise TypeError(f"wanted the Dataset that a scorer returns, got {type(result).__name__}")
    if "layer" in result.dims and is_measured(result):
        return
    if "weight" in result and "demonstration" in result.dims:
        raise Refused(
            "weights of demonstrations are not one number per head: label_attention(model, prompts, pooling=...) "
            "scores how much attention there is in all, kernel.vote(weights, prompts) how often its vote is right"
        )
    if {"first", "second", "difference"} <= set(result.data_vars):
        raise Refused(
            "a comparison is of two scores and has no summary: summarise the two; "
            'head_map draws the comparison, top_heads(comparison, by="difference") ranks by it'
        )
    raise TypeError(
        "wanted a Dataset with `score` (or `effect`, or `mean` from summarise) over layer and head, "
        f"got variables {list(result.data_vars)} over {list(result.dims)}"
    )


def is_measured(result: xr.Dataset) -> bool:
    """Whether the result holds something that `summarise` reads."""
    return any(key in result for key in MEASURED) or "mean" in result or bool(sizes_of(result))


def sizes_of(result: xr.Dataset) -> list[str]:
    """Variables that describe heads and have no null, as of `head_sizes`; none in other results."""
    return [name for name in str(result.attrs.get("described", "")).split(", ") if name in result]


def is_summary(result: xr.Dataset) -> bool:
    """Whether `summarise` made it."""
    return {"mean", "passes", "rank"} <= set(result.data_vars)


def is_judged(result: xr.Dataset) -> bool:
    """Whether it has means with their own threshold, as those of `vote` and `kernel_alignment`."""
    return {"mean", "threshold", "passes"} <= set(result.data_vars) and not is_summary(result)


def one_result(result: Any) -> xr.Dataset:
    """The result if it is of one scorer and one model, else Refused."""
    if not isinstance(result, xr.Dataset) or not any(dim in result.dims for dim in SEVERAL):
        return result
    dim = next(dim for dim in SEVERAL if dim in result.dims)
    raise Refused(f"wanted one {dim}, got {_names(result, dim)}: choose with {_choice(result, dim)}")


def _names(result: xr.Dataset, dim: str) -> list[Any]:
    return result[dim].values.tolist()


def _choice(result: xr.Dataset, dim: Any) -> str:
    """The code that selects one entry of a dimension, for an error's advice."""
    names = _names(result, dim)
    by_name = dim in result.coords and len(set(names)) == len(names)
    return f".sel({dim}={names[0]!r})" if by_name else f".isel({dim}=0)"


def measured(result: xr.Dataset, variable: str | None = None) -> Measured:
    """What was measured of each head, in one form.

    Args:
        result: of one scorer and one model, neither a summary nor judged.
        variable: another variable that has a control, or one of several sizes; None for the main or first one.

    Raises:
        Refused: not one number per head (and prompt).
    """
    if names := sizes_of(result):
        return _size(result, names, variable)
    name = next(key for key in MEASURED if key in result)
    known = [name] + [str(key) for key in result.data_vars if f"{key}_control" in result]
    if variable is not None and variable not in known:
        raise Refused(f"wanted variable in {known}, got {variable!r}")
    if variable is not None and variable != name:
        found = Measured(result[variable], _chance(result), result[f"{variable}_control"])
    elif name in ("effect", "estimate"):
        found = Measured(result[name], xr.DataArray(0.0), both_ways=True, first=_first(result))
    elif name == "writes":
        found = Measured(result[name], xr.DataArray(0.0), untested=NO_DRAWS)
    else:
        found = _composed(result) if "spread" in result else _scored(result)
    return replace(found, values=over_heads(found.values, result))


def _size(result: xr.Dataset, names: list[str], variable: str | None) -> Measured:
    """One of several sizes, the first for None."""
    if variable is not None and variable not in names:
        raise Refused(f"wanted variable in {names}, got {variable!r}")
    values = over_heads(result[variable or names[0]], result)
    return Measured(values, xr.DataArray(0.0), untested=SIZE)


def _first(result: xr.Dataset) -> Literal["largest", "smallest", "size"]:
    """Which effect ranks first: what makes the metric worse, or, in a patch, what brings it towards that of the source.

    Estimates from gradients rank by size, and so do effects on a metric of which neither side is better, and those of a
    patch between runs that hardly differ.
    """
    if "effect" not in result or ("normalised" in result and not result["normalised"].notnull().any()):
        return "size"
    if "source_value" in result:
        return "largest" if (result["source_value"] - result["baseline"]).mean() > 0 else "smallest"
    better = result.attrs.get("better")
    return "largest" if better == "low" else "smallest" if better == "high" else "size"


def _scored(scores: xr.Dataset) -> Measured:
    """Scores per prompt, or weight-based scores with random draws."""
    untested = "" if bool(scores.coords.get("tested", True)) else PREFER
    if "prompt" not in scores["score"].dims and "null" not in scores:
        raise Refused(
            "these scores have no dimension prompt: pass them as the scorer gave them, since the mean over prompts "
            "is taken here; to keep one prompt, scores.isel(prompt=[0])"
        )
    null = scores["null"] if "prompt" not in scores["score"].dims else None
    return Measured(scores["score"], _chance(scores), scores.get("control"), null, untested=untested)


def _chance(scores: xr.Dataset) -> xr.DataArray:
    return scores["chance"] if "chance" in scores else xr.DataArray(np.nan)


def _composed(scores: xr.Dataset) -> Measured:
    """Composition of a sender with one receiver, or with the later head that reads most of it."""
    score, untested = scores["score"], PAIR
    if "receiver" in score.dims:
        there = score.notnull().any("receiver")
        at = score.fillna(-np.inf).argmax("receiver")
        names = xr.where(there, scores["receiver"].isel(receiver=at.drop_vars("name")), "")
        score = score.max("receiver").assign_coords(receiver=(("layer", "head"), names.values.astype(str)))
        untested = STRONGEST
    return Measured(score, _chance(scores), untested=untested)


def over_heads(values: xr.DataArray, result: xr.Dataset) -> xr.DataArray:
    """Values `[prompt, layer, head]` or `[layer, head]` with the heads' names; Refused for any other dimensions."""
    dims = set(map(str, values.dims))
    if not {"layer", "head"} <= dims:
        got = ", ".join(str(dim) for dim in values.dims if dim != "prompt") or "nothing"
        raise Refused(
            f'wanted one number for each layer and head, got it by ({got}): make it with by=("layer", "head"), or draw '
            "this with effect_map(result)"
        )
    if beyond := sorted(dims - {"prompt", "layer", "head"}):
        chosen = " and ".join(_choice(result, dim) for dim in beyond)
        raise Refused(
            f"wanted one number for each layer and head, got several, over {', '.join(beyond)}: choose one, e.g. with "
            f"{chosen}"
        )
    if result.attrs.get("site") in ("k", "v") and "name" not in result.coords:
        raise Refused(
            f"at site {result.attrs['site']!r} these are key/value heads, each shared by several heads: draw them with "
            'effect_map(result), or sweep site="z" or "pattern"'
        )
    there = {key: values.coords.get(key, np.arange(values.sizes[key])) for key in ("layer", "head")}
    names = names_of(*(np.asarray(each).tolist() for each in there.values()))
    ordered = values.transpose(*(dim for dim in ("prompt", "layer", "head") if dim in dims))
    return ordered.assign_coords(there | {"name": (("layer", "head"), names)})


def per_prompt(result: xr.Dataset) -> np.ndarray | None:
    """The values `[prompt, cell]` behind the means, in float64; None if the result does not hold them."""
    if is_summary(result):
        return None
    if is_judged(result):
        name = str(result.attrs.get("judged", "alignment"))
        values = result.get(name)
    else:
        values = measured(result).values
    if values is None or "prompt" not in values.dims:
        return None
    flat = values.transpose("prompt", "layer", "head").values.astype(np.float64)
    return flat.reshape(len(flat), -1)

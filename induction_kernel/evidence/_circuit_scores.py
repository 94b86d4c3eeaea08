"""Scores of every head by its weights and by its behaviour, for one model: what `mechanism` compares.

By weights: OV eigenvalues and QK-traces, with their distance from random rotations of the same circuits, and
K-composition with earlier heads. By behaviour: copying, prefix-matching, induction and previous-token scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from ..errors import NotDefined
from ..model._anatomy import Model
from ..scorers._attention import induction, prefix_matching, previous_token_on_text
from ..scorers._composition import composition
from ..scorers._copying import copying
from ..scorers._ov import ov_eigenvalues
from ..scorers._qk_trace import qk_trace
from ..training._phases import EXCESS

__all__ = ["PAIRS", "scores_of"]

DRAWS = 50
"""Number of random rotations of every circuit."""
PAIRS = {
    "eigenvalues and copying": ("ov_eigenvalues", "copying"),
    "QK-trace and prefix matching": ("qk_trace", "prefix_matching"),
    "K-composition and induction": ("k_composition", "induction"),
}
"""Name of a pair -> its score by weights and its score by behaviour."""


def scores_of(model: Model, prompts: Any, seed: int, progress: bool) -> tuple[xr.Dataset, dict[str, str]]:
    """All scores of one model over (layer, head), NaN where undefined; and pair -> why it is left out."""
    quiet: dict[str, Any] = {"progress": progress}
    previous = previous_token_on_text(model, prompts, **quiet)
    found = {
        "previous_token": _mean(previous),
        "copying": _mean(copying(model, **quiet)),
        "prefix_matching": _excess(prefix_matching(model, **quiet)),
        "induction": _excess(induction(model, **quiet)),
    }
    weights: dict[str, Callable[[], dict[str, xr.DataArray]]] = {
        "ov_eigenvalues": lambda: _with_distance(
            "ov_eigenvalues", ov_eigenvalues(model, draws=DRAWS, seed=seed, **quiet)
        ),
        "qk_trace": lambda: _with_distance(
            "qk_trace", qk_trace(model, prompts, draws=DRAWS, seed=seed, **quiet)
        ),
        "k_composition": lambda: {
            "k_composition": _with_previous_token_heads(model, found["previous_token"], progress)
        },
    }
    left_out = {}
    for pair, (key, _) in PAIRS.items():
        nothing = xr.full_like(found["copying"], np.nan)
        found |= {key: nothing} if key == "k_composition" else {key: nothing, f"{key}_spreads": nothing}
        try:
            found |= weights[key]()
        except NotDefined as reason:  # a score that these weights do not define
            left_out[pair] = str(reason)
    found["is_induction"] = found["prefix_matching"] > EXCESS
    scores = xr.Dataset({key: score.reset_coords(drop=True) for key, score in found.items()})
    return scores.assign_attrs(previous_token=f"on {previous.attrs['text']}"), left_out


def _with_distance(key: str, scores: xr.Dataset) -> dict[str, xr.DataArray]:
    """The score, and its distance from the mean of random rotations in their standard deviations (`..._spreads`)."""
    distance = (scores["score"] - scores["chance"]) / scores["null"].std("draw")
    return {key: scores["score"], f"{key}_spreads": distance}


def _mean(scores: xr.Dataset) -> xr.DataArray:
    return scores["score"].mean("prompt").astype(np.float64)


def _excess(scores: xr.Dataset) -> xr.DataArray:
    return (scores["score"] - scores["control"]).mean("prompt").astype(np.float64)


def _with_previous_token_heads(model: Model, previous: xr.DataArray, progress: bool) -> xr.DataArray:
    """K-composition of each head with earlier heads: a mean weighted by their previous-token scores."""
    found = composition(model, progress=progress)
    score = found["score"]
    total = (score * previous).sum(("layer", "head")) / previous.where(score.notnull()).sum(("layer", "head"))
    values = total.values.reshape(-1, found.sizes["head"])  # receivers are ordered layer by layer
    coords = {"layer": np.unique(found["receiver_layer"].values), "head": found["head"].values}
    return xr.DataArray(values, coords, ("layer", "head"))

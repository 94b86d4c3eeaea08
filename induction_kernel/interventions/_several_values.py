"""Sweeps that put several new values in the same places, one after another, over one untouched run of the prompts.

A score and its control differ only in what is put in. `sweep` would run the model once for each; here the untouched
run, its keys and values are computed once, and all edited runs share their batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from ..metrics._metric import Metric
from ..model._anatomy import Model, check_model
from ..prompts._prompts import Prompts
from ._activations import New
from ._edits import Given
from ._engine import labelled, run_cells
from ._intervention import Intervention
from ._plan import planned

__all__ = ["sweeps_at"]


def sweeps_at(
    model: Model,
    prompts: Prompts,
    values: Mapping[str, Mapping[int, New]],
    *,
    position: int,
    metric: Metric,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    max_tokens: int,
) -> dict[str, xr.Dataset]:
    """For each set of new values what `sweep` gives over the heads' z at one position, without that dimension.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: as many as fit one batch of `max_tokens`.
        values: name -> layer -> new value of z there.
        position: where z is edited.
        metric: what is measured.
        heads: only these are edited; None for all.
        layers: only these; None for all.
        max_tokens: tokens in one batch.

    Returns:
        Name -> Dataset with `value[prompt, layer, head]`, `baseline[prompt]` and `effect`, as of `sweep`.

    Raises:
        As `sweep`.
    """
    check_model(model)
    intervention, ready = Intervention(Given(), "z", metric), metric.ready(model, prompts)
    plan = planned(
        model, intervention, by=("layer", "head", "position"), length=ready.tokens.shape[1], heads=heads,
        layers=layers, positions=[position],
    )  # fmt: skip
    cells = [replace(cell, new=new) for new in values.values() for cell in plan.cells]
    found = run_cells(model, ready, cells, intervention, max_tokens=max_tokens, progress=False)
    parts = found.values.reshape(len(values), len(plan.cells), len(ready))
    return {
        name: labelled(model, ready, plan, replace(found, values=part), intervention)
        .isel(position=0, drop=True)
        .drop_vars("token")
        for name, part in zip(values, parts, strict=True)
    }

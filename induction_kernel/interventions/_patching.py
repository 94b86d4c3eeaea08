"""Activation patching: activations of one run put into another run, by layer, head and position.

Patching the clean run into the corrupted one shows which activations suffice (denoising), the corrupted into the clean
one which are necessary (noising). `_engine` runs the patched model; `_paths` patches single paths, and `_attribution`
estimates from gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..metrics._metric import Metric, MetricLike, as_metric
from ..metrics._standard import logit_difference
from ..model._anatomy import Model, check_model
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ._activations import New
from ._edits import Given
from ._edits_from_runs import FromRun, readings_by_piece, taken_from
from ._engine import labelled, run_cells
from ._intervention import Hold, Intervention
from ._plan import planned

__all__ = ["against_source", "patch", "source_value", "sweeps_at"]

_SMALL = 1e-3  # relative to the metric's size in both runs: a smaller difference is no denominator


def patch(
    model: Model,
    *,
    source: Any,
    into: Any,
    site: str = "resid_pre",
    by: Sequence[str] = ("layer", "position"),
    metric: MetricLike = logit_difference,
    hold: Hold = None,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric on `into` with each activation in turn replaced by that of the run on `source`; exact.

    With `pair = pairs(model, clean=..., corrupted=..., answers=...)`, denoising is
    `patch(model, source=pair.clean, into=pair.corrupted)`; noising has the two swapped.

    Args:
        model: any TransformerLens model; given back as it was.
        source: the prompts whose activations are taken, anything `as_prompts` takes.
        into: the prompts whose run is patched: as many, of the same lengths.
        site: which activation, as in `sweep`.
        by: the result's dimensions after `prompt`, as in `sweep`.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`.
        hold: as in `sweep`.
        heads: only these; None for all.
        layers: only these; None for all.
        positions: only these; None for all.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset as in `sweep` (`value[prompt, *by]`, `baseline[prompt]` on `into`, `effect`), with
        `source_value[prompt]`, the metric on `source`, and `normalised[*by]` = mean effect / mean (source_value -
        baseline): 0 if the patch changes nothing, 1 if it changes the metric to that of `source`; NaN, with a warning,
        if the metric hardly differs between the two runs. `effect_map(result, show="normalised")` draws it.

    Raises:
        TypeError: as `sweep`.
        Refused: as `sweep`; unequal numbers or lengths of prompts.

    Source: Heimersheim & Nanda 2024; Zhang & Nanda 2023.
    """
    check_model(model)
    metric = as_metric(metric)
    ready = metric.ready(model, into)
    intervention = Intervention(FromRun(as_prompts(model, source)), site, metric, hold)
    length = ready.tokens.shape[1]
    plan = planned(model, intervention, by=by, length=length, heads=heads, layers=layers, positions=positions)
    found = run_cells(
        model, ready, plan.cells, intervention, max_tokens=max_tokens, progress=progress, of_source=True
    )
    assert found.of_source is not None  # asked for
    shown = labelled(model, ready, plan, found, intervention).assign_attrs(method="patch")
    return against_source(shown, found.of_source, metric)


def against_source(found: xr.Dataset, source_values: np.ndarray, metric: Metric) -> xr.Dataset:
    """The result with `source_value[prompt]` and `normalised`, a ratio of means over the prompts that have a value.

    The metric reads the logits of `source` at the positions and targets of `into`, so that patching everything gives 1.
    """
    value = xr.DataArray(source_values, dims="prompt")
    gap = value - found["baseline"]
    least = _SMALL * float((abs(value) + abs(found["baseline"])).mean())
    if abs(float(gap.mean())) < least:
        warnings.warn(
            f"the runs on source and into hardly differ in {metric.name} (mean difference {float(gap.mean()):.3g}), "
            "so normalised effects are NaN: use prompts between which the metric differs",
            stacklevel=3,
        )
    below = gap.where(found["effect"].notnull()).mean("prompt")
    normalised = found["effect"].mean("prompt") / below.where(abs(below) >= least)
    return found.assign(source_value=value, normalised=normalised)


def source_value(model: Model, into: Prompts, source: Prompts, metric: Metric) -> np.ndarray:
    """`[prompt]`: the metric on the logits of `source`, read at the positions and targets of `into`."""
    length, values = into.tokens.shape[1], []
    for rows, wanted in readings_by_piece(model, metric, into, slice(0, len(into))):
        _, value = taken_from(model, source[rows], length, "resid_pre", set(), wanted)
        assert value is not None  # asked for
        values.append(value)
    return torch.cat(values).double().numpy()


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

"""The engine of all interventions: many edited runs together, each computed again only from where it differs.

A cell is one edited run of a sweep. The values are those of one whole run for each cell, but the untouched run is
computed once; layers before an edit, and positions before it if the lane can, are not run again; cells share a widened
batch (the prompts once for each cell) and join it at their first edited layer; only what the metric reads is
unembedded; a cell that changes nothing is not run. A lane is a way of running layers again: from the model's
parameters, or by its own blocks. `_edits` says what is edited, `_plan` makes the cells, `_batch` runs a batch, `_lanes`
chooses the lane, and `replay` runs a layer again. Every function that edits runs gives its cells to `run_cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..heads._names import names_of
from ..metrics._metric import MetricLike, as_metric, reading_of
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, check_model, kept_as_it_was, sizes
from ..model._runs import progress_bar
from ..prompts._prompts import Prompts, measured_on
from ..replay._lane_record import Way
from ._activations import Edit
from ._batch import Measured, job_of, run_batch
from ._edits import KnockOut
from ._edits_from_runs import Mean
from ._intervention import Hold, Intervention, new_values
from ._lanes import chosen_lane, on_batch
from ._plan import Cell, Plan, planned, prompts_at_once, tokens_at_once, within_memory

__all__ = ["Found", "concatenated", "knock_out", "labelled", "run_cells", "sweep"]


def sweep(
    model: Model,
    prompts: Any,
    *,
    edit: Edit | None = None,
    site: str = "z",
    by: Sequence[str] = ("layer", "head"),
    metric: MetricLike = repeat_loss,
    hold: Hold = None,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric with each head, layer or position edited in turn.

    The values are those of one whole run for each edit, up to rounding in the model's dtype, in a fraction of the time.

    | site | shape | by head | edits | `hold="patterns"` |
    |---|---|---|---|---|
    | `z` | `[prompt, position, head, d_head]` | yes | all but KnockOut | yes |
    | `v` | the same, of key/value heads | yes | all but KnockOut | yes |
    | `q`, `k` | the same before rotation, `k` of key/value heads | yes | all but KnockOut, ZeroValues | no |
    | `pattern` | `[prompt, head, query, key]` | yes | KnockOut, Mean, Resample, FromRun | no |
    | `attn_out`, `mlp_out` | `[prompt, position, d_model]` | no | all but KnockOut, ZeroValues | yes |
    | `resid_pre`, `resid_mid`, `resid_post` | the same | no | all but KnockOut, ZeroValues | yes |

    `by` is `()`, `("layer",)` or `("layer", "position")`, and by head `("layer", "head")` or
    `("layer", "head", "position")`. What is not in `by` is edited together. The position of a pattern is the position
    of its query. Under grouped-query attention a head of `k` or `v` is a key/value head, and editing it affects all
    query heads that share it.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are already on it act (each edit is then one
            whole run, at full cost).
        prompts: anything `as_prompts` takes; None for the metric's own.
        edit: what replaces the activation; None for `Mean()`, the mean over the matched control.
        site: which activation is edited.
        by: the result's dimensions after `prompt`.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`. It is called with one
            batch of the prompts at a time: take what belongs to a prompt from its argument `prompts`.
        hold: "patterns" to keep every pattern as in the untouched run (Olsson et al.'s pattern-preserving ablation).
        heads: only these are edited, as Head, (layer, head) or "L5H1"; None for all.
        layers: only these are edited; None for all.
        positions: only these are edited; None for all.
        max_tokens: tokens in one batch, with the prompts once for each edit; None to fit a quarter of the free memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `value[prompt, *by]`, `baseline[prompt]` of the untouched model and `effect` = value - baseline,
        in the metric's unit; NaN where a prompt has no such position, and at heads left out. Coordinates `layer`,
        `head`, `position`, `name[layer, head]`, `token[prompt, position]`; attributes `lane`, the way it was computed,
        and `lane_reason`, why no faster lane was used ("" if the fastest was).

    Raises:
        TypeError: an edit or a metric of another type.
        Refused: a combination that is not in the table; heads, layers or positions that are not there; prompts that
            lack what the metric reads; a metric that is not one finite number for each prompt.
        NotDefined: a site that the model does not have.
        MemoryError: a batch that does not fit: pass a smaller `max_tokens`.

    Source: Olsson et al. 2022, argument 3; Heimersheim & Nanda 2024; Zhang & Nanda 2023.
    """
    check_model(model)
    intervention = Intervention(Mean() if edit is None else edit, site, as_metric(metric), hold)
    ready = intervention.metric.ready(model, prompts)
    length = ready.tokens.shape[1]
    plan = planned(model, intervention, by=by, length=length, heads=heads, layers=layers, positions=positions)
    found = run_cells(model, ready, plan.cells, intervention, max_tokens=max_tokens, progress=progress)
    return labelled(model, ready, plan, found, intervention)


def knock_out(
    model: Model,
    prompts: Any,
    mask: Tensor | Callable[[Tensor, Tensor], Tensor],
    *,
    by: Sequence[str] = ("layer", "head"),
    metric: MetricLike = repeat_loss,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric with attention from chosen queries to chosen keys removed: `sweep` with `KnockOut`.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes; None for the metric's own.
        mask: bool, True is removed: `[query, key]`, `[prompt, query, key]` or `[prompt, head, query, key]`; or a
            function `(tokens, lengths) -> [prompt, query, key]` such as `masks.after_latest_copy`. In a causal model,
            entries of keys after the query do not matter.
        by: as in `sweep`; `()` for all chosen heads together.
        metric: as in `sweep`.
        heads: only these; None for all.
        layers: only these; None for all.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset as in `sweep`: `value[prompt, *by]`, `baseline[prompt]` and `effect`, in the metric's unit.

    Raises:
        TypeError: not a bool mask.
        Refused: a mask that does not broadcast, or that leaves a query nothing to attend to.

    Source: Geva et al. 2023 (attention knock-out).
    """
    ready = as_metric(metric).ready(model, prompts)
    if hasattr(mask, "mask"):
        raise TypeError(f"wanted a mask or a mask function, got the scorer {mask!r}: pass its .mask")
    if callable(mask):
        mask = mask(ready.tokens, ready.lengths)
    wanted = KnockOut(mask[:, None] if isinstance(mask, Tensor) and mask.ndim == 3 else mask)
    return sweep(
        model, ready, edit=wanted, site="pattern", by=by, metric=metric, heads=heads, layers=layers,
        max_tokens=max_tokens, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Found(Measured):
    """What `run_cells` measured.

    Attributes:
        way: how it was computed.
    """

    way: Way


def run_cells(
    model: Model,
    prompts: Prompts,
    cells: Sequence[Cell],
    intervention: Intervention,
    *,
    max_tokens: int | None = None,
    progress: bool = True,
    readings: bool = False,
    gradients: bool = False,
    of_source: bool = False,
) -> Found:
    """The metric of every cell on every prompt, and of the untouched model.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: the prompts to run on.
        cells: the edited runs; cells with new values of their own need prompts that fit one batch.
        intervention: what is edited in them, and what is measured.
        max_tokens: tokens in one widened batch; None to fit a quarter of the free memory.
        progress: a bar if it takes longer than two seconds.
        readings: whether to keep what the metric is computed from; only for metrics that read the same number of
            positions in all prompts.
        gradients: whether autograd records the cells' readings (never those of the untouched run).
        of_source: whether the metric on the run that the edit takes from is wanted too, read in the same pass.
    """
    length = prompts.tokens.shape[1]
    most = tokens_at_once(model, length, max_tokens)
    parts: list[Measured] = []
    layers = {layer for cell in cells if cell.new is None for layer in cell.touched}
    bar = progress_bar(len(cells) * len(prompts), progress=progress, unit="run")
    with within_memory(most), kept_as_it_was(model), bar:
        new = new_values(model, prompts, intervention, layers, of_source=of_source)
        chosen = chosen_lane(model, intervention, progress=progress)
        unembedded = _unembedded(chosen, prompts, intervention) if max_tokens is None else 0
        at_once = prompts_at_once(model, length, most, unembedded)
        for begin in range(0, len(prompts), at_once):
            rows = slice(begin, min(begin + at_once, len(prompts)))
            job = job_of(new, rows)
            chosen, lane = on_batch(model, chosen, job.prompts, intervention)
            options = {"readings": readings, "gradients": gradients}
            parts.append(run_batch(job, cells, lane, most, bar, **options))
            del lane  # before the next one is made
    return concatenated(parts, chosen)


def _unembedded(way: Way, prompts: Prompts, intervention: Intervention) -> int:
    """The number of positions of a prompt whose logits over the whole vocabulary a cell needs together."""
    if way.name == "model":
        return prompts.tokens.shape[1]
    wanted = reading_of(intervention.metric, prompts)
    return wanted.positions.shape[1] if wanted.ids is None else 0


def concatenated(parts: Sequence[Measured], way: Way) -> Found:
    """What was measured in all batches, in one piece."""
    without = [each.without for each in parts if each.without is not None]
    readings = [each.readings for each in parts if each.readings is not None]
    of_source = [each.of_source for each in parts if each.of_source is not None]
    return Found(
        np.concatenate([each.values for each in parts], 1), np.concatenate([each.baseline for each in parts]),
        np.concatenate(without) if without else None, torch.cat(readings, 1) if readings else None,
        np.concatenate(of_source) if of_source else None, way=way,
    )  # fmt: skip


def labelled(
    model: Model, prompts: Prompts, plan: Plan, found: Found, intervention: Intervention
) -> xr.Dataset:
    """The result of `sweep`: each cell's values in its place, the untouched model's, coordinates and attributes."""
    n, shape = len(prompts), tuple(len(plan.coords[name]) for name in plan.by)
    value = np.full((n, *shape), np.nan)
    for place, values in zip(plan.places, found.values, strict=True):
        value[(slice(None), *place)] = values
    if "position" in plan.by:  # then it is the last dimension
        beyond = np.array(plan.coords["position"]) >= prompts.lengths.numpy()[:, None]
        value[np.broadcast_to(beyond.reshape(n, *[1] * (len(shape) - 1), -1), value.shape)] = np.nan
    baseline = found.baseline.reshape(n, *[1] * len(shape))
    dims = ("prompt", *plan.by)
    coords: dict[str, Any] = {"prompt": np.arange(n), **plan.coords}
    size = sizes(model)
    of_their_own = intervention.site not in ("k", "v") or size.n_key_value_heads == size.n_heads
    if "head" in plan.by and of_their_own:
        names = names_of(plan.coords["layer"], plan.coords["head"])
        coords["name"] = (("layer", "head"), names)
    if "position" in plan.by:
        strings = [row + [""] * prompts.tokens.shape[1] for row in prompts.strings(model)]
        chosen = [[row[position] for position in plan.coords["position"]] for row in strings]
        coords["token"] = (("prompt", "position"), np.array(chosen))
    attrs = {
        "method": "sweep", "site": intervention.site, "by": " ".join(plan.by), **intervention.attrs, **found.way.attrs,
        **measured_on(model, prompts),
    }  # fmt: skip
    variables = {
        "value": (dims, value),
        "baseline": ("prompt", found.baseline),
        "effect": (dims, value - baseline),
    }
    return xr.Dataset(variables, coords, attrs)

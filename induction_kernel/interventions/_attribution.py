"""Attribution patching: a first-order estimate of the effect of every cell of a sweep, from one backward pass.

A cell is one edited run of a sweep. The estimate is good for choosing what to sweep; it is wrong where the metric is
far from linear in an activation (see `verify`). `_gradients` computes it, `_engine` the exact effects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..metrics._metric import MetricLike, as_metric
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, check_model, sizes
from ..model._runs import batches, progress_bar
from ..prompts._prompts import Prompts
from ..replay._blocks import Blocks
from ..replay._lane_record import Way
from ._activations import Edit
from ._batch import job_of
from ._engine import Found, labelled, run_cells
from ._gradients import by_rows, first_order
from ._intervention import Intervention, new_values
from ._lanes import chosen_lane, on_batch
from ._plan import Cell, Plan, planned, tokens_at_once, within_memory

__all__ = ["attribution"]


def attribution(
    model: Model,
    prompts: Any,
    *,
    edit: Edit,
    site: str = "z",
    by: Sequence[str] = ("layer", "head"),
    metric: MetricLike = repeat_loss,
    heads: Any = None,
    layers: Iterable[int] | None = None,
    qk_fix: bool = True,
    verify: int = 0,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The effect of every cell of a sweep, estimated from one forward and one backward pass on the untouched run.

    A cell is one edited run of the sweep. Its estimate is the sum over the edited entries of
    (new - old) * d metric / d activation; with `edit=FromRun(source)` this is attribution patching. Attention
    saturates: if a query attends almost only to one key, the gradient is nearly 0 even though a large change of the
    query or key would matter. So patterns (always), and queries and keys (with `qk_fix`), act through the exact pattern
    row of the edited run, and only what follows is linear. A cell with a position changes one key, any other cell all
    keys of its heads together.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are already on it act.
        prompts: anything `as_prompts` takes; None for the metric's own.
        edit: what would replace the activation.
        site: as in `sweep`.
        by: as in `sweep`; `()` for the sum over everything.
        metric: as in `sweep`; it must have a gradient (`label_accuracy` has none).
        heads: only these are edited; None for all. At sites k and v a head is a key/value head.
        layers: only these are edited; None for all.
        qk_fix: False for the plain gradient at q and k.
        verify: number of the strongest cells, and of others drawn at random, to run exactly too; 0 for none.
        seed: of that draw.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset in the metric's unit. The last three rows are there with `verify`; `cell` is "L0H1", "L0 pos 3" or
        "all":

        | variable | |
        |---|---|
        | `estimate` `[prompt, *by]` | of the effect (value - baseline); NaN as in `sweep` |
        | `size` `[*by]` | mean over prompts of the absolute estimate: rank by it, since signs do not cancel |
        | `baseline` `[prompt]` | the metric of the untouched model |
        | `exact`, `estimated` `[cell]` | effects, means over prompts |
        | `group` `[cell]` | coordinate: "strongest" or "random" |
        | attributes | `correlation`, `worst_miss`, `worst_cell`, `verified_by` |

        `correlation` is Pearson's over these cells (0 if one side does not vary, NaN for a single cell), `worst_miss`
        the largest |exact - estimated|, and `verified_by` the lane (the way of running layers again) that ran them. The
        attribute `lane_reason` says why pattern rows come from whole runs, if they do.

    Raises:
        TypeError: an edit or a metric of another type.
        Refused: what `sweep` refuses; a metric without a gradient; a `verify` that is not a whole number >= 0.
        MemoryError: as `sweep`.

    Source: Nanda 2023 (attribution patching); Kramar et al. 2024 (AtP*: absolute value inside the mean; QK fix).
    """
    check_model(model)
    intervention = Intervention(edit, site, as_metric(metric))
    ready = intervention.metric.ready(model, prompts)
    plan = planned(model, intervention, by=by, length=ready.tokens.shape[1], heads=heads, layers=layers)
    _check_verify(verify)
    seed = checked_seed(seed)
    found = _estimates(model, ready, plan, intervention, qk_fix, max_tokens, progress)
    out = _dataset(model, ready, plan, found, intervention, qk_fix=qk_fix)
    if not verify:
        return out
    chosen, groups = _chosen(plan, out["size"].values, verify, seed)
    cells = [plan.cells[i] for i in chosen]
    exact = run_cells(model, ready, cells, intervention, max_tokens=max_tokens, progress=progress)
    return _verified(out, plan, chosen, groups, exact).assign_attrs(seed=seed)


def _check_verify(verify: int) -> None:
    """Raise Refused unless this is a whole number, 0 or more."""
    if not is_whole(verify) or verify < 0:
        raise Refused(f"wanted verify, a whole number of cells to run exactly (0 for none), got {verify!r}")


def _estimates(
    model: Model,
    prompts: Prompts,
    plan: Plan,
    intervention: Intervention,
    qk_fix: bool,
    max_tokens: int | None,
    progress: bool,
) -> Found:
    """The estimates, as `values [cell, prompt]`, and the baseline."""
    layers = {layer for cell in plan.cells for layer in cell.touched}
    site = intervention.site
    intervention = replace(intervention, metric=replace(intervention.metric, without=None))
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    together = _batches(model, prompts, max_tokens)
    bar = progress_bar(len(prompts), progress=progress, unit="prompt")
    with within_memory(together[0].stop * prompts.tokens.shape[1]), bar:
        again = chosen_lane(model, intervention, among=(Blocks,)) if by_rows(site, qk_fix) else None
        new = new_values(model, prompts, intervention, layers)
        for rows in together:
            job, lane = job_of(new, rows), None
            if again is not None:
                again, lane = on_batch(model, again, job.prompts, intervention)
            values, entries = first_order(
                model, job.prompts, job.new, site=site, wanted=job.wanted, qk_fix=qk_fix,
                one_key="position" in plan.by, blocks=lane,
            )  # fmt: skip
            numbers = {layer: entry.cpu().double().numpy() for layer, entry in entries.items()}
            of_cells = np.stack([_of_cell(numbers, cell) for cell in plan.cells])
            parts.append((of_cells, values.cpu().double().numpy()))
            bar.update(len(job.prompts))
    estimates, baseline = zip(*parts, strict=True)
    way = Way("gradient", "" if again is None else again.reason)
    return Found(np.concatenate(estimates, 1), np.concatenate(baseline), way=way)


def _batches(model: Model, prompts: Prompts, max_tokens: int | None) -> list[slice]:
    """Batches small enough that all layers' activations and the logits can be kept for the backward pass."""
    length, size = prompts.tokens.shape[1], sizes(model)
    most = tokens_at_once(model, length, max_tokens)
    if max_tokens is None:
        most //= size.n_layers
    of_logits = batches(len(prompts), length, batch_size=None, cost=size.d_vocab)[0]
    at_once = max(1, min(most // length, of_logits.stop))
    return batches(len(prompts), length, batch_size=at_once, cost=1)


def _of_cell(entries: dict[int, np.ndarray], cell: Cell) -> np.ndarray:
    """`[prompt]`: the sum over the entries that the cell edits."""
    total = np.zeros(len(next(iter(entries.values()))))
    for layer, heads in cell.touched.items():
        entry = entries[layer] if heads is None else entries[layer][..., list(heads)]
        total += (entry if cell.position is None else entry[:, [cell.position]]).sum((1, 2))
    return total


def _dataset(
    model: Model, prompts: Prompts, plan: Plan, found: Found, intervention: Intervention, *, qk_fix: bool
) -> xr.Dataset:
    """The estimates in their places, their mean size, and the baseline."""
    from_zero = replace(found, baseline=np.zeros_like(found.baseline))
    placed = labelled(model, prompts, plan, from_zero, intervention)
    estimate = placed["value"]
    attrs = placed.attrs | {
        "method": "attribution",
        "qk_fix": ("yes" if qk_fix else "no") if intervention.site in ("q", "k") else "none",
    }
    variables = {
        "estimate": estimate,
        "size": abs(estimate).mean("prompt"),
        "baseline": ("prompt", found.baseline),
    }
    return xr.Dataset(variables, placed.coords, attrs)


def _chosen(plan: Plan, size: np.ndarray, verify: int, seed: int) -> tuple[list[int], list[str]]:
    """The cells to run exactly, and their groups: the strongest, strongest first, then random others."""
    of_cells = np.array([size[place] for place in plan.places])
    order = np.argsort(-of_cells, kind="stable")[: np.isfinite(of_cells).sum()]  # NaN come last
    strongest, others = order[:verify], order[verify:]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:verify].tolist()
    chosen = [*strongest.tolist(), *sorted(others[drawn].tolist())]
    return chosen, ["strongest"] * len(strongest) + ["random"] * len(drawn)


def _verified(out: xr.Dataset, plan: Plan, chosen: list[int], groups: list[str], found: Found) -> xr.Dataset:
    """The estimates, with the exact effects of the chosen cells."""
    estimate = np.stack([out["estimate"].values[(slice(None), *plan.places[i])] for i in chosen])
    effect = np.where(np.isnan(estimate), np.nan, found.values - found.baseline)
    exact, estimated = np.nanmean(effect, 1), np.nanmean(estimate, 1)
    vary = min(np.ptp(exact), np.ptp(estimated)) > 0
    without = 0.0 if len(chosen) > 1 else float("nan")
    miss = np.abs(exact - estimated)
    names = [_name(plan, i) for i in chosen]
    attrs = {
        "correlation": float(np.corrcoef(exact, estimated)[0, 1]) if vary else without,
        "worst_miss": float(miss.max()),
        "worst_cell": names[int(miss.argmax())],
        "verified_by": found.way.name,
    }
    with_cells = out.assign(exact=("cell", exact), estimated=("cell", estimated))
    return with_cells.assign_coords(cell=names, group=("cell", groups)).assign_attrs(attrs)


def _name(plan: Plan, index: int) -> str:
    """The name of a cell: "L0H1", "L0 pos 3", "L0H1 pos 3" or "all"."""
    at = {name: plan.coords[name][i] for name, i in zip(plan.by, plan.places[index], strict=True)}
    if not at:
        return "all"
    name = f"L{at['layer']}" + (f"H{at['head']}" if "head" in at else "")
    return name + (f" pos {at['position']}" if "position" in at else "")

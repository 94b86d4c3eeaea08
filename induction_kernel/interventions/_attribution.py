"""Attribution patching: the effect of every cell of a sweep, to first order, at the price of one backward pass.

Good for choosing what to sweep; where the model is far from linear in an activation it misses (see `verify`).
How the estimate is made says `_gradients`; the exact numbers come from `_engine`.
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
from ._lanes import chosen_lane
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
    """The effect of every cell of a sweep, estimated from one forward and one backward pass on the run that is edited.

    Estimate = sum over the cell's entries of (new - old) * d metric / d activation. With `edit=FromRun(source)` it is
    attribution patching. Attention saturates: where a row rests on one key its gradient is nearly 0 and says nothing of
    a large change. So patterns (always), and with `qk_fix` queries and keys, act through the exact pattern row: only
    what follows is linear. A cell with a position moves one key, any other cell all keys of its heads together.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that stand on it act.
        prompts: anything `as_prompts` takes; None for the metric's own.
        edit: what would stand in its place.
        site: as in `sweep`.
        by: as in `sweep`; `()` for the sum of all.
        metric: as in `sweep`; it must have a gradient (`label_accuracy` has none).
        heads: only these are edited; None for all. At sites k and v a head is a key/value head.
        layers: only these are edited; None for all.
        qk_fix: False for the plain gradient at q and k.
        verify: run this many of the strongest cells, and as many others drawn at random, exactly.
        seed: of that draw.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `estimate[prompt, *by]` of the effect (value - baseline), in the metric's unit, NaN as in `sweep`;
        `size[*by]`, the mean over prompts of its absolute value: rank by this (effects of different signs do not
        cancel); `baseline[prompt]`. With `verify`, along `cell` ("L0H1", "L0 pos 3", "all"): `exact`, `estimated`,
        means over prompts of the effect, coordinate `group` ("strongest", "random"), and attributes `correlation`
        (Pearson, over these cells; 0 where one side does not vary, NaN of a single cell), `worst_miss`, the largest
        |exact - estimated|, `worst_cell`, and `verified_by`, the lane that ran them. Attribute `lane_reason`: why
        pattern rows were had from whole runs, where they were.

    Raises:
        TypeError: an edit or a metric of another type.
        Refused: what `sweep` refuses; a metric without a gradient; a number of cells to verify that is none.
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
    if not is_whole(verify) or verify < 0:
        raise Refused(f"wanted a number of cells to verify, 0 for none, got {verify!r}")


def _estimates(
    model: Model,
    prompts: Prompts,
    plan: Plan,
    intervention: Intervention,
    qk_fix: bool,
    max_tokens: int | None,
    progress: bool,
) -> Found:
    """`values [cell, prompt]` are the estimates."""
    layers = {layer for cell in plan.cells for layer in cell.touched}
    site = intervention.site
    intervention = replace(intervention, metric=replace(intervention.metric, without=None))
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    together = _batches(model, prompts, max_tokens)
    bar = progress_bar(len(prompts), progress=progress, unit="prompt")
    with within_memory(together[0].stop * prompts.tokens.shape[1]), bar:
        again = chosen_lane(model, prompts, intervention, among=(Blocks,)) if by_rows(site, qk_fix) else None
        new = new_values(model, prompts, intervention, layers)
        for rows in together:
            job = job_of(new, rows)
            values, entries = first_order(
                model, job.prompts, job.new, site=site, wanted=job.wanted, qk_fix=qk_fix,
                one_key="position" in plan.by, blocks=again is not None and again.lane is Blocks,
            )  # fmt: skip
            numbers = {layer: entry.cpu().double().numpy() for layer, entry in entries.items()}
            of_cells = np.stack([_of_cell(numbers, cell) for cell in plan.cells])
            parts.append((of_cells, values.cpu().double().numpy()))
            bar.update(len(job.prompts))
    estimates, baseline = zip(*parts, strict=True)
    way = Way("gradient", "" if again is None else again.reason)
    return Found(np.concatenate(estimates, 1), np.concatenate(baseline), way=way)


def _batches(model: Model, prompts: Prompts, max_tokens: int | None) -> list[slice]:
    """All layers' activations are kept for the backward pass, and the logits."""
    length, size = prompts.tokens.shape[1], sizes(model)
    most = tokens_at_once(model, length, max_tokens)
    if max_tokens is None:
        most //= size.n_layers
    of_logits = batches(len(prompts), length, batch_size=None, cost=size.d_vocab)[0]
    at_once = max(1, min(most // length, of_logits.stop))
    return batches(len(prompts), length, batch_size=at_once, cost=1)


def _of_cell(entries: dict[int, np.ndarray], cell: Cell) -> np.ndarray:
    """`[prompt]`: the sum of what the cell touches."""
    total = np.zeros(len(next(iter(entries.values()))))
    for layer, heads in cell.touched.items():
        entry = entries[layer] if heads is None else entries[layer][..., list(heads)]
        total += (entry if cell.position is None else entry[:, [cell.position]]).sum((1, 2))
    return total


def _dataset(
    model: Model, prompts: Prompts, plan: Plan, found: Found, intervention: Intervention, *, qk_fix: bool
) -> xr.Dataset:
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
    """Which cells to run: the strongest, strongest first, and random others."""
    of_cells = np.array([size[place] for place in plan.places])
    order = np.argsort(-of_cells, kind="stable")[: np.isfinite(of_cells).sum()]  # NaN come last
    strongest, others = order[:verify], order[verify:]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:verify].tolist()
    chosen = [*strongest.tolist(), *sorted(others[drawn].tolist())]
    return chosen, ["strongest"] * len(strongest) + ["random"] * len(drawn)


def _verified(out: xr.Dataset, plan: Plan, chosen: list[int], groups: list[str], found: Found) -> xr.Dataset:
    """The estimates beside the exact effects of some cells."""
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
    at = {name: plan.coords[name][i] for name, i in zip(plan.by, plan.places[index], strict=True)}
    if not at:
        return "all"
    name = f"L{at['layer']}" + (f"H{at['head']}" if "head" in at else "")
    return name + (f" pos {at['position']}" if "position" in at else "")

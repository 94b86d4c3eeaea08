"""What does each edit change? A sweep: many runs at once, each done again only from where it differs.

Exact: the same numbers as one whole run a cell. The untouched run is computed once; layers before an edit, and
positions before it where the lane can, are not run again; cells share one widened batch and join it as their layer
comes; only what the metric reads is unembedded; a cell that changes nothing is not run. What is edited says
`edits`; which cells there are, `plan`; how a layer is done again, `replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..heads import Head
from ..metrics import (
    Metric,
    MetricLike,
    Reading,
    as_metric,
    one_a_prompt,
    part_of,
    read_off,
    reading,
    repeat_loss,
)
from ..model import (
    Model,
    check_model,
    describe,
    foreign_hooks,
    full_precision,
    kept_as_it_was,
    made_of,
    progress_bar,
    run,
    sizes,
    stream,
)
from ..prompts import Prompts, as_prompts
from ..replay.blocks import Blocks, at_positions
from ..replay.capture import tapped_run
from ..replay.decoder import Decoder
from ..replay.layers import looseness, supports
from .edits import HEAD_SITES, Edit, FromRun, Mean, New, Resample
from .plan import Cell, Plan, passes, planned, tokens_at_once
from .together import Lane, Together, found_in, tap

__all__ = ["Found", "Job", "job_of", "labelled", "lane_of", "right_here", "run_cells", "sweep"]

Hold = Literal["patterns"] | None


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
    """The metric with each part of the model edited in turn: as one whole run a cell, in a fraction of the time.

    The same numbers, to rounding in the model's dtype.

    | site | shape | by head | edits | `hold="patterns"` |
    |---|---|---|---|---|
    | `z` | `[prompt, position, head, d_head]` | yes | all but KnockOut | yes |
    | `v` | the same, of key/value heads | yes | all but KnockOut | yes |
    | `q`, `k` | the same before rotation, `k` of key/value heads | yes | all but KnockOut | no |
    | `pattern` | `[prompt, head, query, key]` | yes | KnockOut, Mean, Resample, FromRun | no |
    | `attn_out`, `mlp_out` | `[prompt, position, d_model]` | no | all but KnockOut | yes |
    | `resid_pre`, `resid_mid`, `resid_post` | the same | no | all but KnockOut | yes |

    `by` is `()`, `("layer",)` or `("layer", "position")`, and by head `("layer", "head")` or
    `("layer", "head", "position")`. What is not in `by` is edited together. The position of a pattern is its
    query's. Under grouped-query attention a head of `k` or `v` is a key/value head: its edit reaches all query
    heads that share it.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that stand on it act (each cell is then one
            whole run, at the usual speed).
        prompts: anything `as_prompts` takes; None for the metric's own.
        edit: what stands in its place; None for `Mean()`, the mean on the matched control.
        site: what is edited.
        by: what the result is by.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`, which gets one batch
            of the prompts after another, in order: take what belongs to a prompt from `prompts`.
        hold: "patterns" to hold every pattern at the untouched run's (Olsson et al.'s pattern-preserving ablation).
        heads: only these are edited, as Head, (layer, head) or "L5H1"; None for all.
        layers: only these are edited; None for all.
        positions: only these are swept; None for all.
        max_tokens: tokens in one widened batch; None to fit a quarter of the free memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `value[prompt, *by]`, `baseline[prompt]` of the untouched model and `effect` = value - baseline,
        in the metric's unit. NaN where a prompt has no such position, and at heads left out. Coordinates `layer`,
        `head`, `position`, `name[layer, head]`, `token[prompt, position]`; attribute `lane`, how it was computed.

    Raises:
        TypeError: an edit or a metric of another type.
        ValueError: what does not go together (see the table), what the model does not have, prompts that lack
            what the metric reads, a metric that is not one finite number a prompt.

    Source: Olsson et al. 2022, argument 3; Heimersheim & Nanda 2024; Zhang & Nanda 2023.
    """
    check_model(model)
    edit, metric = Mean() if edit is None else edit, as_metric(metric)
    ready = metric.ready(model, prompts)
    length = ready.tokens.shape[1]
    plan = planned(
        model, site=site, by=by, length=length, edit=edit, hold=hold, heads=heads, layers=layers, positions=positions
    )  # fmt: skip
    found = run_cells(
        model, ready, plan.cells, edit=edit, site=site, metric=metric, hold=hold, max_tokens=max_tokens,
        progress=progress,
    )  # fmt: skip
    return labelled(model, ready, plan, found, edit=edit, site=site, metric=metric, hold=hold)


@dataclass(frozen=True, eq=False)
class Found:
    """What `run_cells` measured: `values [cell, prompt]`, `baseline [prompt]`, `without` likewise or None, the lane."""

    values: np.ndarray
    baseline: np.ndarray
    without: np.ndarray | None
    lane: str


def run_cells(
    model: Model,
    prompts: Prompts,
    cells: Sequence[Cell],
    *,
    edit: Edit,
    site: str,
    metric: Metric,
    hold: Hold = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Found:
    """The metric of every cell on every prompt, beside the untouched model's."""
    length = prompts.tokens.shape[1]
    most = tokens_at_once(model, length, max_tokens)
    at_once = max(1, most // length)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    layers = {layer for cell in cells for layer in cell.touched}
    with kept_as_it_was(model), progress_bar(len(cells) * len(prompts), progress=progress, unit="run") as bar:
        new = None if isinstance(edit, FromRun | Resample) else edit.new(model, prompts, site, layers)
        if new is not None:
            _check_new(new, layers)
        if isinstance(edit, Resample):
            edit = edit.run(model, prompts)
        lane = lane_of(model, site, hold)
        for begin in range(0, len(prompts), at_once):
            rows = slice(begin, min(begin + at_once, len(prompts)))
            job = job_of(model, prompts, rows, edit, new, site, metric, hold, layers)
            if not begin:
                lane = right_here(model, job.prompts, lane)
            if lane is Blocks and not _widens(model, job.prompts.tokens):
                lane = None
            parts.append(_run_batch(job, cells, lane, most, bar))
    values, baseline, without = zip(*parts, strict=True)
    return Found(
        np.concatenate(values, 1), np.concatenate(baseline),
        None if without[0] is None else np.concatenate([each for each in without if each is not None]),
        "model" if lane is None else lane.name,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Job:
    """One batch of prompts: what is edited in it and what is read."""

    model: Model
    prompts: Prompts
    new: dict[int, New]
    site: str
    hold: Hold
    wanted: Reading
    without: Reading | None
    start: int  # no cell changes anything before it


def job_of(
    model: Model, prompts: Prompts, rows: slice, edit: Edit, new: dict[int, New] | None, site: str, metric: Metric,
    hold: Hold, layers: set[int],
) -> Job:  # fmt: skip
    """What is edited and read in these rows of the prompts; `new` is None for an edit from another run."""
    batch, start = prompts[rows], 0
    if new is None:
        assert isinstance(edit, FromRun)
        other = as_prompts(model, edit.other)
        if len(other) != len(prompts):
            raise ValueError(f"wanted as many prompts to take from, got {len(other)} for {len(prompts)}")
        of_batch = FromRun(other[rows]).new(model, batch, site, layers)
        start = _first_difference(batch, other[rows]) if _is_causal(model) else 0
    else:
        of_batch = {layer: _of_rows(each, rows, len(prompts), site) for layer, each in new.items()}
    without = None if metric.without is None else reading(part_of(metric.without, rows), batch)
    return Job(model, batch, of_batch, site, hold, reading(part_of(metric, rows), batch), without, start)


def _check_new(new: Any, layers: set[int]) -> None:
    if not isinstance(new, dict) or not all(isinstance(new.get(layer), New) for layer in layers):
        raise TypeError(
            f"wanted an edit whose `new` returns {{layer: New(scale, value)}} for layers {sorted(layers)}, got "
            f"{repr(new)[:200]}"
        )


def _of_rows(new: New, rows: slice, n: int, site: str) -> New:
    """A new value for some of n prompts; one without a dimension of prompts is of all."""
    dims = 4 if site in HEAD_SITES else 3

    def cut(value: Tensor) -> Tensor:
        return value[rows] if value.ndim == dims and value.shape[0] == n > 1 else value

    return New(new.scale, cut(new.value), None if new.removed is None else cut(new.removed))


def _first_difference(prompts: Prompts, other: Prompts) -> int:
    """The first position where any two real tokens differ; the length where none do."""
    length = min(prompts.tokens.shape[1], other.tokens.shape[1])
    real = torch.arange(length) < prompts.lengths[:, None]
    differs = ((prompts.tokens[:, :length] != other.tokens[:, :length]) & real).any(0)
    return int(differs.int().argmax()) if bool(differs.any()) else prompts.tokens.shape[1]


def _run_batch(
    job: Job, cells: Sequence[Cell], lane_class: type[Lane] | None, most: int, bar: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """`values [cell, prompt]`, `baseline [prompt]`, and `without [prompt]` where the metric has one."""
    n, length = job.prompts.tokens.shape
    if lane_class is None:
        return _whole_runs(job, cells, bar)
    lane = lane_class(job.model, job.prompts.tokens)

    clean = _untouched(lane, job.wanted)
    baseline = _numbers(one_a_prompt(job.wanted, clean))
    without = (
        None if job.without is None else _numbers(one_a_prompt(job.without, _untouched(lane, job.without)))
    )
    values = np.tile(baseline, (len(cells), 1))
    starts = [_start(cell, job, length) for cell in cells]
    read_last = int(job.wanted.positions[job.wanted.there].max()) if _is_causal(job.model) else length
    moving = [index for index, start in enumerate(starts) if start <= read_last]
    bar.update((len(cells) - len(moving)) * n)
    starts = starts if lane.saves_positions else [0] * len(cells)
    costs = [n * (length - start) for start in starts]
    for group in passes(moving, cells, starts=starts, cost=costs, most=most):
        together = Together(
            lane, cells, job.new, job.site, job.hold is not None, job.wanted, clean, starts[group[0]]
        )
        for index, found in together.run(group):
            values[index] = _numbers(one_a_prompt(job.wanted, found))
        bar.update(len(group) * n)
    return values, baseline, without


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _start(cell: Cell, job: Job, length: int) -> int:
    """The first position where the cell's run differs; the length where it never does."""
    if cell.new is not None:
        return 0
    if cell.position is None:
        return job.start
    return cell.position if cell.position >= job.start else length


def _whole_runs(
    job: Job, cells: Sequence[Cell], bar: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """One whole run of the model a cell: honours whatever hooks stand on it."""
    tokens, n_layers = job.prompts.tokens, sizes(job.model).n_layers
    patterns: dict[int, Tensor] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        patterns[layer] = pattern

    def measured(taps: dict[int, Any], held: dict[int, Tensor]) -> tuple[np.ndarray, Tensor]:
        logits = tapped_run(job.model, tokens, taps, held).cpu()
        return _numbers(one_a_prompt(job.wanted, read_off(logits, job.wanted))), logits

    if job.hold:
        stream(job.model, tokens, keep, {"pattern": set(range(n_layers))})
    baseline, logits = measured({}, {})
    without = (
        None if job.without is None else _numbers(one_a_prompt(job.without, read_off(logits, job.without)))
    )
    values = np.tile(baseline, (len(cells), 1))
    for index, cell in enumerate(cells):
        if _start(cell, job, tokens.shape[1]) < tokens.shape[1]:
            taps = {layer: {job.site: tap([cell], job.new, job.site, layer, 0)} for layer in cell.touched}
            held = {layer: pattern for layer, pattern in patterns.items() if layer >= cell.first}
            values[index], _ = measured(taps, held)
        bar.update(len(tokens))
    return values, baseline, without


_TRUSTED: WeakKeyDictionary[Any, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


def lane_of(model: Model, site: str, hold: Hold) -> type[Lane] | None:
    """The fastest way of doing layers again that is right on this model; None for whole runs."""
    if foreign_hooks(model):
        return None
    known, parts = _TRUSTED.setdefault(model, {}), made_of(model)
    for lane in (Decoder, Blocks) if supports(model) else (Blocks,):
        key = (lane, site, hold, parts)
        if key not in known:
            known[key] = _agrees(model, lane, site, hold)
        if known[key]:
            return lane
    return None


def _is_causal(model: Model) -> bool:
    """Whether nothing at a position depends on later ones, so that what comes before an edit need not run."""
    if foreign_hooks(model):
        return False  # they may do anything
    known, key = _TRUSTED.setdefault(model, {}), ("causal", made_of(model))
    if key not in known:
        size = sizes(model)
        tokens = torch.arange(2 * min(7, size.n_ctx)).view(2, -1) % size.d_vocab
        tokens[1, :-1] = tokens[0, :-1]
        tokens[1, -1] = (tokens[0, -1] + 1) % size.d_vocab
        a, b = full_precision(run(model, tokens))[:, :-1]
        known[key] = bool(((a - b).abs() <= looseness(model) * (1 + a.abs())).all())
    return known[key]


def right_here(model: Model, prompts: Prompts, lane: type[Lane] | None) -> type[Lane] | None:
    """The lane if it gives the model's own untouched run on the longest of these very prompts; else the next."""
    if lane is None:
        return None
    longest = int(prompts.lengths.argmax())
    tokens = prompts.tokens[longest : longest + 1, : int(prompts.lengths[longest])]
    seen: list[Tensor] = []
    last = sizes(model).n_layers - 1
    stream(model, tokens, lambda site, layer, resid: seen.append(resid), {"resid_post": {last}})
    for each in (lane, Blocks) if lane is Decoder else (lane,):
        apart = (each(model, tokens).final - seen[0]).abs()
        if bool((apart <= looseness(model) * (1 + seen[0].abs().max())).all()):
            return each
    return None


def _widens(model: Model, tokens: Tensor) -> bool:
    """Whether a block can do as many prompts twice over: what it was given is widened by the shape it has."""
    known, key = _TRUSTED.setdefault(model, {}), ("widens", len(tokens), made_of(model))
    if key not in known:
        try:
            lane = Blocks(model, tokens[:, :7])
            twice = lane.resid_pre(0)[None].expand(2, -1, -1, -1)
            both, once = (lane.step(0, rows, 0) for rows in (twice, twice[:1]))
            known[key] = bool(((both - once).abs() <= looseness(model) * (1 + once.abs().max())).all())
        except (IndexError, RuntimeError, TypeError, ValueError):
            known[key] = False  # whole runs can
    return known[key]


def _untouched(lane: Lane, wanted: Reading) -> Tensor:
    """What is read of the untouched run."""
    return next(found_in(lane, at_positions(lane.final[None], wanted.positions), wanted))


def _agrees(model: Model, lane: type[Lane], site: str, hold: Hold) -> bool:
    """Whether the lane gives the logits of whole hooked runs, on random edits of random tokens."""
    size, generator = sizes(model), torch.Generator().manual_seed(0)
    length, middle = min(7, size.n_ctx), size.n_layers // 2
    prompts = as_prompts(model, torch.randint(size.d_vocab, (2, length), generator=generator))
    heads = (0,) if site in HEAD_SITES else None
    new = dict.fromkeys(range(size.n_layers), _random(site, length, size, generator))
    one = Cell({middle: heads})
    groups = [
        [one, one],
        [Cell({size.n_layers - 1: heads})],
        [Cell({middle: heads}, length // 2)],
    ]  # two widen a batch

    loose = looseness(model)
    try:
        for cells in groups:
            whole, mine = (_logits(model, prompts, cells, new, site, hold, of) for of in (None, lane))
            if len(whole) != len(mine):
                return False  # a cell moves something in one of them alone
            pairs = zip(whole, mine, strict=True)
            if any(bool(((a - b).abs() > loose * (1 + a.abs().max())).any()) for a, b in pairs):
                return False
        return True
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # the lane cannot do this model at all; a whole run can, or says why not


def _logits(
    model: Model, prompts: Prompts, cells: list[Cell], new: dict[int, New], site: str, hold: Hold,
    lane: type[Lane] | None,
) -> list[Tensor]:  # fmt: skip
    """Logits of the untouched run and of each cell's, which a lane runs together."""
    kept: list[Tensor] = []

    def keep(logits: Tensor, _: Prompts) -> Tensor:
        kept.append(full_precision(logits))
        return torch.zeros(len(logits))

    job = Job(model, prompts, new, site, hold, reading(as_metric(keep), prompts), None, 0)
    with progress_bar(0, progress=False) as bar:
        _run_batch(job, cells, lane, len(cells) * prompts.tokens.numel(), bar)
    return kept


def _random(site: str, length: int, size: Any, generator: torch.Generator) -> New:
    if site == "pattern":
        row = torch.ones(length, length).tril()
        return New(0.0, row / row.sum(-1, keepdim=True))
    shape = (length, 1, size.d_head) if site in HEAD_SITES else (length, size.d_model)
    return New(0.5, torch.randn(shape, generator=generator))


def labelled(
    model: Model,
    prompts: Prompts,
    plan: Plan,
    found: Found,
    *,
    edit: Edit,
    site: str,
    metric: Metric,
    hold: Hold,
) -> xr.Dataset:
    """The cells in their places, beside the untouched model's value."""
    n, shape = len(prompts), tuple(len(plan.coords[name]) for name in plan.by)
    value = np.full((n, *shape), np.nan)
    for place, values in zip(plan.places, found.values, strict=True):
        value[(slice(None), *place)] = values
    if "position" in plan.by:  # the last dimension, where there is one
        beyond = np.array(plan.coords["position"]) >= prompts.lengths.numpy()[:, None]
        value[np.broadcast_to(beyond.reshape(n, *[1] * (len(shape) - 1), -1), value.shape)] = np.nan
    baseline = found.baseline.reshape(n, *[1] * len(shape))
    dims = ("prompt", *plan.by)
    coords: dict[str, Any] = {"prompt": np.arange(n), **plan.coords}
    if "head" in plan.by and site not in ("k", "v"):
        names = [[str(Head(layer, head)) for head in plan.coords["head"]] for layer in plan.coords["layer"]]
        coords["name"] = (("layer", "head"), np.array(names))
    if "position" in plan.by:
        strings = [row + [""] * prompts.tokens.shape[1] for row in prompts.strings(model)]
        chosen = [[row[position] for position in plan.coords["position"]] for row in strings]
        coords["token"] = (("prompt", "position"), np.array(chosen))
    attrs = {
        "method": "sweep", "site": site, "edit": type(edit).__name__, "hold": hold or "none", "by": " ".join(plan.by),
        "metric": metric.name, "unit": metric.unit, "lane": found.lane, "n_prompts": n,
        "convention": "of z and v, what is left without the share of the value bias is removed or scaled",
        **describe(model),
    }  # fmt: skip
    variables = {
        "value": (dims, value),
        "baseline": ("prompt", found.baseline),
        "effect": (dims, value - baseline),
    }
    return xr.Dataset(variables, coords, attrs)

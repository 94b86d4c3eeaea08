"""What does the model lose without these heads, or without these entries of attention?

After Olsson et al. 2022 ("direct ablation"). Single heads understate what a group does, because others take
over: always look at single and joint effects, and at random heads of the same layers. How it is computed says
`engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import Refused
from ..given import checked_seed
from ..heads import Head, HeadLike, as_heads, random_heads, top_heads
from ..heads.naming import is_whole
from ..metrics import MetricLike, as_metric, repeat_loss
from ..model import Model, check_model, sizes
from ..prompts.batch import measured_on
from .edits import CONVENTION, Edit, KnockOut, Mean, check_edit
from .engine import Found, run_cells, sweep
from .jobs import Hold
from .plan import Cell

__all__ = ["ablate", "ablation_curve", "knock_out", "shares_lost"]


def ablate(
    model: Model,
    prompts: Any,
    heads: HeadLike | Iterable[HeadLike],
    *,
    edit: Edit | None = None,
    metric: MetricLike = repeat_loss,
    hold: Hold = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric with these heads removed together, beside the metric of the untouched model.

    Choose the heads on other prompts than these: the best of many heads looks better than it is where it was
    chosen.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes; None for the metric's own.
        heads: one or several, as Head, (layer, head) or "L5H1".
        edit: what stands in the place of their z; None for `Mean()`, the mean on the matched control. `Zero()` for
            z := 0; `ZeroValues()` leaves the value bias.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`.
        hold: "patterns" to hold every pattern at the untouched run's, so that only values move.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `value`, `baseline` and `effect` = value - baseline, each `[prompt]`, in the metric's
        unit; and where the metric knows its value without the ability (`repeat_loss`: the loss of the first
        copy), `share`, with `share_low` and `share_high` (95%, bootstrap over prompts): the share of the
        benefit that is lost, a ratio of means, 0 if nothing changes and 1 if the benefit is gone. Above 1
        means destroyed, not a size; NaN where the model has no reliable benefit to lose.

    Raises:
        TypeError: an edit of another type.
        Refused: no heads, heads the model does not have, prompts that lack what the metric reads.

    Source: Olsson et al. 2022, argument 3.
    """
    chosen = _checked_heads(model, heads)
    found, attrs = _joint(
        model,
        prompts,
        [chosen],
        edit=edit,
        metric=metric,
        hold=hold,
        max_tokens=max_tokens,
        progress=progress,
    )
    value, baseline = found.values[0], found.baseline
    variables = {"value": value, "baseline": baseline, "effect": value - baseline}
    shares = {key: float(share[0]) for key, share in shares_lost(found).items()}
    return xr.Dataset(
        {key: ("prompt", values) for key, values in variables.items()} | shares,
        {"prompt": np.arange(len(baseline))},
        {"method": "ablate", "heads": " ".join(map(str, chosen)), **attrs},
    )


def ablation_curve(
    model: Model,
    prompts: Any,
    scores: xr.Dataset | Sequence[HeadLike],
    *,
    ks: Iterable[int] | int | None = None,
    edit: Edit | None = None,
    metric: MetricLike = repeat_loss,
    controls: int = 20,
    control: str = "same layer",
    seed: int = 0,
    hold: Hold = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The k strongest heads removed together, beside as many random other heads of the same layers.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes, other than the heads were scored on; None for the metric's own.
        scores: a score Dataset (or what `summarise` made of it), or the heads in order, strongest first.
        ks: how many heads; None for 1, 2, 4, ... as far as the layers have other heads to compare with.
        edit: what stands in the place of their z; None for `Mean()`.
        metric: as in `ablate`.
        controls: random sets for each k.
        control: "same layer", or "any layer" where layers have too few other heads. Random heads are never among
            the strongest of the largest k.
        seed: of the draws.
        hold: as in `ablate`.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `value[prompt, k]`, `control[prompt, k, draw]`, `baseline[prompt]`, `effect` and
        `control_effect` (differences to the baseline), and where the metric has one, `share[k]` with `share_low`,
        `share_high` (as in `ablate`) and `control_share[k, draw]`. Coordinates `heads[k]` and
        `control_heads[k, draw]` (names), `k`, `draw`.

    Raises:
        TypeError: scores, an edit or a metric of another type.
        Refused: a k below 1 or beyond the heads there are, no draws, a layer with too few other heads.

    Source: Olsson et al. 2022, argument 3.
    """
    check_model(model)
    if not is_whole(controls) or controls < 1:
        raise Refused(f"wanted controls >= 1 random sets, got {controls!r}")
    seed, ranked = checked_seed(seed), _ranked(model, scores)
    counts, drawn = _compared(model, ranked, ks, controls=controls, control=control, seed=seed)
    groups = [ranked[:k] for k in counts] + [heads for sets in drawn for heads in sets]
    found, attrs = _joint(
        model, prompts, groups, edit=edit, metric=metric, hold=hold, max_tokens=max_tokens, progress=progress
    )
    n, baseline = len(counts), found.baseline
    value, random = found.values[:n].T, found.values[n:].reshape(n, controls, -1).transpose(2, 0, 1)
    variables: dict[str, Any] = {
        "value": (("prompt", "k"), value),
        "effect": (("prompt", "k"), value - baseline[:, None]),
        "control": (("prompt", "k", "draw"), random),
        "control_effect": (("prompt", "k", "draw"), random - baseline[:, None, None]),
        "baseline": ("prompt", baseline),
    }
    if shares := shares_lost(found):
        variables |= {key: ("k", share[:n]) for key, share in shares.items()}
        variables["control_share"] = (("k", "draw"), shares["share"][n:].reshape(n, controls))
    names = [" ".join(map(str, heads)) for heads in groups]
    coords = {
        "prompt": np.arange(len(baseline)), "k": counts, "draw": np.arange(controls),
        "heads": ("k", np.array(names[:n])), "control_heads": (("k", "draw"), np.array(names[n:]).reshape(n, -1)),
    }  # fmt: skip
    return xr.Dataset(
        variables, coords, {"method": "ablation_curve", "control": control, "seed": seed, **attrs}
    )


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
    """The metric where heads may not attend from chosen queries to chosen keys: `sweep` with `KnockOut`.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes; None for the metric's own.
        mask: bool, True is removed: `[query, key]`, `[prompt, query, key]` or `[prompt, head, query, key]`; or a
            function `(tokens, lengths) -> [prompt, query, key]` such as `masks.after_latest_copy`. Entries beyond the
            query (the future) may be either.
        by: as in `sweep`; `()` for all heads chosen together.
        metric: as in `sweep`.
        heads: only these; None for all.
        layers: only these; None for all.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        As `sweep`.

    Raises:
        TypeError: not a bool mask. Refused: a mask that does not fit, or that leaves a query nothing.

    Source: Geva et al. 2023 (attention knock-out).
    """
    ready = as_metric(metric).ready(model, prompts)
    if hasattr(mask, "mask"):
        raise TypeError(f"wanted a mask or a mask function, got a scorer: pass its own, {mask!r}.mask")
    if callable(mask):
        mask = mask(ready.tokens, ready.lengths)
    wanted = KnockOut(mask[:, None] if isinstance(mask, Tensor) and mask.ndim == 3 else mask)
    return sweep(
        model, ready, edit=wanted, site="pattern", by=by, metric=metric, heads=heads, layers=layers,
        max_tokens=max_tokens, progress=progress,
    )  # fmt: skip


def _checked_heads(model: Model, heads: Any) -> list[Head]:
    size = sizes(model)
    chosen = as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)
    if not chosen:
        raise Refused("wanted at least one head to ablate, got none")
    return chosen


def _joint(
    model: Model, prompts: Any, groups: Sequence[Sequence[Head]], *, edit: Edit | None, metric: MetricLike,
    hold: Hold, max_tokens: int | None, progress: bool,
) -> tuple[Found, dict[str, Any]]:  # fmt: skip
    """Each group of heads edited together in one run."""
    edit, metric = Mean() if edit is None else edit, as_metric(metric)
    check_edit(edit, "z")
    ready = metric.ready(model, prompts)
    cells = [
        Cell({layer: tuple(h.head for h in heads if h.layer == layer) for layer in {h.layer for h in heads}})
        for heads in groups
    ]
    found = run_cells(
        model, ready, cells, edit=edit, site="z", metric=metric, hold=hold, max_tokens=max_tokens, progress=progress
    )  # fmt: skip
    attrs = {
        "edit": type(edit).__name__, "hold": hold or "none", "metric": metric.name, "unit": metric.unit,
        **found.way.attrs, "convention": CONVENTION, **measured_on(model, ready),
    }  # fmt: skip
    return found, attrs


def _ranked(model: Model, scores: Any) -> list[Head]:
    """Every head by its score, strongest first; or the heads given."""
    if isinstance(scores, xr.Dataset):
        return top_heads(scores, None)
    ordered = isinstance(scores, Sequence) or hasattr(scores, "tolist") or hasattr(scores, "columns")
    if isinstance(scores, str) or not ordered:
        raise TypeError(f"wanted scores of heads, or heads strongest first, got {type(scores).__name__}")
    given = _checked_heads(model, scores)
    if len(given) < len(scores):
        raise Refused(f"wanted each head once, got {len(scores)} that are {' '.join(map(str, given))}")
    return given


def _compared(
    model: Model,
    ranked: list[Head],
    ks: Iterable[int] | int | None,
    *,
    controls: int,
    control: str,
    seed: int,
) -> tuple[list[int], list[list[list[Head]]]]:
    """How many heads to remove, and the random sets beside each."""
    if ks is None:
        return _as_many_as_compare(model, ranked, controls=controls, control=control, seed=seed)
    given = list(ks) if isinstance(ks, Iterable) else [ks]
    counts = sorted({int(k) for k in given if is_whole(k)})
    if not counts or len(counts) < len(set(given)) or counts[0] < 1 or counts[-1] > len(ranked):
        raise Refused(f"wanted ks from 1 to {len(ranked)} heads, got {ks!r}")
    drawn = [
        [
            random_heads(
                model, like=ranked[:k], exclude=ranked[: counts[-1]], seed=seed + draw, control=control
            )
            for draw in range(controls)
        ]
        for k in counts
    ]
    return counts, drawn


def _as_many_as_compare(
    model: Model, ranked: list[Head], *, controls: int, control: str, seed: int
) -> tuple[list[int], list[list[list[Head]]]]:
    powers = [2**i for i in range(len(ranked).bit_length())]
    for last in range(len(powers), 1, -1):
        try:
            return _compared(model, ranked, powers[:last], controls=controls, control=control, seed=seed)
        except ValueError:  # too few other heads
            continue
    return _compared(model, ranked, powers[:1], controls=controls, control=control, seed=seed)


def shares_lost(found: Found) -> dict[str, np.ndarray]:
    """Of every cell, the ratio of means with its bootstrap interval over prompts."""
    if found.without is None:
        return {}
    benefit, effect = found.without - found.baseline, found.values - found.baseline
    n = len(benefit)
    drawn = torch.randint(n, (2000, n), generator=torch.Generator().manual_seed(0)).numpy()
    means = benefit[drawn].mean(1)
    if n < 2 or np.quantile(means, 0.025) <= 0:
        return dict.fromkeys(("share", "share_low", "share_high"), np.full(len(effect), np.nan))
    low, high = zip(
        *(np.quantile(each[drawn].mean(1) / means, [0.025, 0.975]) for each in effect), strict=True
    )
    return {
        "share": effect.mean(1) / benefit.mean(),
        "share_low": np.array(low),
        "share_high": np.array(high),
    }

"""Ablation of heads: single ones, groups, and the strongest heads beside random ones of the same layers.

After Olsson et al. 2022 ("direct ablation"). Ablating single heads understates what a group does, because other
heads take over: look at single and at joint effects, and at random heads of the same layers. `_engine` runs the
edited model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._names import Head, HeadLike
from ..metrics._metric import MetricLike, as_metric
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, check_model
from ..model._outputs import n_outputs
from ..prompts._prompts import measured_on
from ..stats._ratios import shares_lost
from ._activations import Edit
from ._compared_sets import Sets, cells_of, checked_heads, compared_sets, ranked_heads
from ._edits_from_runs import Mean
from ._engine import Found, run_cells
from ._intervention import Hold, Intervention

__all__ = [
    "NO_BENEFIT", "Sets", "ablate", "ablation_curve", "caution", "compared_sets", "curve_of", "groups_removed",
    "joint_of", "shares_lost",
]  # fmt: skip

NO_BENEFIT = "No share: the repetition brings this model no reliable benefit that could be lost."


def ablate(
    model: Model,
    prompts: Any,
    heads: HeadLike | Iterable[HeadLike],
    *,
    edit: Edit | None = None,
    metric: MetricLike = repeat_loss,
    hold: Hold = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The metric with these heads ablated together, and the metric of the untouched model.

    Choose the heads on other prompts than these: on the prompts it was chosen on, the best of many heads looks better
    than it is.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes; None for the metric's own.
        heads: one or several, as Head, (layer, head) or "L5H1".
        edit: what replaces their z; None for `Mean()`, the mean over the matched control. `Zero()` sets z to 0,
            `ZeroValues()` to the value bias.
        metric: a metric, or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`.
        hold: "patterns" to keep every pattern as in the untouched run, so that only values change.
        seed: of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset in the metric's unit; `without` and the shares for a metric that has `without` (see `Metric`):

        | variable | |
        |---|---|
        | `value`, `baseline` `[prompt]` | the metric with the heads ablated, and of the untouched model |
        | `effect` `[prompt]` | value - baseline |
        | `without` `[prompt]` | the value without the ability (`repeat_loss`: the loss on the first copy) |
        | `share` | share of the benefit that is lost, a ratio of means: 0 if nothing changes, 1 if all is lost |
        | `share_low`, `share_high` | its 95% interval over prompts (`stats.ratio`) |

        A share above 1 means that the benefit is destroyed; how far above has no meaning. It is NaN, with a warning, if
        the model has no reliable benefit to lose. The attribute `cautions` says why a share is NaN, or that the value
        without the ability is above the loss of uniform guessing, so that part of the benefit is only that the model is
        no longer worse than guessing; else it is "".

    Raises:
        TypeError: an edit or a metric of another type.
        Refused: no heads, heads the model does not have, prompts that lack what the metric reads.

    Source: Olsson et al. 2022, argument 3.
    """
    chosen, seed = checked_heads(model, heads), checked_seed(seed)
    intervention = _of_heads(edit, metric, hold)
    found, attrs = groups_removed(
        model, prompts, [chosen], intervention, max_tokens=max_tokens, progress=progress
    )
    return _warned(joint_of(model, found, chosen, seed, attrs))


def _warned(found: xr.Dataset) -> xr.Dataset:
    """The result, with a warning to the caller of `ablate` or `ablation_curve` if it has no share."""
    if found.attrs.get("cautions", "").startswith(NO_BENEFIT):
        warnings.warn(f"{NO_BENEFIT} So share is NaN: read effect instead.", stacklevel=3)
    return found


def joint_of(
    model: Model, found: Found, chosen: Sequence[Head], seed: int, attrs: dict[str, Any]
) -> xr.Dataset:
    """The result of `ablate`, from what was measured for one group."""
    shares, attrs = _shares(model, found, seed, attrs)
    value, baseline = found.values[0], found.baseline
    variables = {"value": value, "baseline": baseline, "effect": value - baseline}
    shares = {key: float(share[0]) for key, share in shares.items()}
    if found.without is not None:
        variables["without"] = found.without
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
    """The metric with the k strongest heads ablated together, and with as many random other heads of the same layers.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes, not those the heads were scored on; None for the metric's own.
        scores: a score Dataset (or its summary by `summarise`), or the heads in order, strongest first.
        ks: how many heads; None for 1, 2, 4, ... as long as the layers have enough other heads to compare with.
        edit: what replaces their z; None for `Mean()`.
        metric: as in `ablate`.
        controls: number of different random sets for each k; fewer if the layers have no more (`n_controls`).
        control: "same layer", or "any layer" if layers have too few other heads. Random heads are never among the
            strongest ones of the largest k.
        seed: of the random sets and of the bootstrap.
        hold: as in `ablate`.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with `value[prompt, k]`, `control[prompt, k, draw]`, `baseline[prompt]`, `effect` and
        `control_effect` (differences from the baseline); for a metric that has `without`, also `share[k]` with
        `share_low`, `share_high` (as in `ablate`), `control_share[k, draw]` and `without[prompt]`. `n_controls[k]`
        random sets were measured, all different; beyond them `control...` is NaN. Coordinates `k`, `draw`,
        `heads[k]` and `control_heads[k, draw]` (names). The attribute `cautions` is as in `ablate`, and also says if
        ablating more heads costs less than ablating some of them.

    Raises:
        TypeError: scores, an edit or a metric of another type.
        Refused: a k below 1 or above the number of heads; no controls.
        NotDefined: a layer with too few other heads.

    Source: Olsson et al. 2022, argument 3.
    """
    check_model(model)
    if not is_whole(controls) or controls < 1:
        raise Refused(f"wanted controls >= 1 random sets, got {controls!r}")
    seed, ranked = checked_seed(seed), ranked_heads(model, scores)
    sets = compared_sets(model, ranked, ks, controls=controls, control=control, seed=seed)
    intervention = _of_heads(edit, metric, hold)
    found, attrs = groups_removed(
        model, prompts, sets.groups, intervention, max_tokens=max_tokens, progress=progress
    )
    return _warned(curve_of(model, found, sets, attrs))


def curve_of(model: Model, found: Found, sets: Sets, attrs: dict[str, Any]) -> xr.Dataset:
    """The result of `ablation_curve`, from what was measured for `sets.groups`."""
    counts, drawn, groups = sets.counts, sets.drawn, sets.groups
    shares, attrs = _shares(model, found, sets.seed, attrs)
    n, baseline = len(counts), found.baseline
    value, random = found.values[:n].T, _by_draw(found.values[n:], drawn).transpose(2, 0, 1)
    variables: dict[str, Any] = {
        "value": (("prompt", "k"), value),
        "effect": (("prompt", "k"), value - baseline[:, None]),
        "control": (("prompt", "k", "draw"), random),
        "control_effect": (("prompt", "k", "draw"), random - baseline[:, None, None]),
        "baseline": ("prompt", baseline),
        "n_controls": ("k", [len(sets) for sets in drawn]),
    }
    attrs |= {"method": "ablation_curve", "control": sets.control, "seed": sets.seed}
    if shares:
        variables |= {key: ("k", share[:n]) for key, share in shares.items()}
        variables["control_share"] = (("k", "draw"), _by_draw(shares["share"][n:], drawn))
        variables["without"] = ("prompt", found.without)
        attrs["cautions"] = " ".join(filter(None, [attrs["cautions"], _cheaper(counts, shares["share"][:n])]))
    names = np.array([" ".join(map(str, heads)) for heads in groups], object)
    coords = {
        "prompt": np.arange(len(baseline)), "k": counts, "draw": np.arange(random.shape[2]),
        "heads": ("k", names[:n].astype(str)),
        "control_heads": (("k", "draw"), _by_draw(names[n:], drawn, nothing="").astype(str)),
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs)


def _by_draw(values: np.ndarray, drawn: Sequence[Sequence[Any]], nothing: Any = np.nan) -> np.ndarray:
    """The values of all random sets, given in the order of k, as `[k, draw, ...]`; some ks have fewer sets."""
    out = np.full((len(drawn), max(map(len, drawn)), *values.shape[1:]), nothing, values.dtype)
    begin = 0
    for at, sets in enumerate(drawn):
        out[at, : len(sets)] = values[begin : begin + len(sets)]
        begin += len(sets)
    return out


def _cheaper(counts: Sequence[int], shares: np.ndarray) -> str:
    """A sentence if ablating more heads costs less than ablating some of them; else ""."""
    for at in range(1, len(counts)):
        best = int(np.argmax(shares[:at]))
        if shares[at] < shares[best]:
            return (
                f"The {counts[at]} strongest heads together cost less ({shares[at]:.2f}) than the {counts[best]} "
                f"strongest ({shares[best]:.2f}): some of them work against the others."
            )
    return ""


def _of_heads(edit: Edit | None, metric: MetricLike, hold: Hold) -> Intervention:
    """An intervention on z, by default with `Mean()`."""
    return Intervention(Mean() if edit is None else edit, "z", as_metric(metric), hold)


def groups_removed(
    model: Model,
    prompts: Any,
    groups: Sequence[Sequence[Head]],
    intervention: Intervention | None = None,
    *,
    max_tokens: int | None = None,
    progress: bool = True,
) -> tuple[Found, dict[str, Any]]:
    """Each group of heads edited together in one run: what was measured, and the attributes of the result."""
    intervention = _of_heads(None, repeat_loss, None) if intervention is None else intervention
    ready = intervention.metric.ready(model, prompts)
    cells, index = cells_of(groups)
    found = run_cells(model, ready, cells, intervention, max_tokens=max_tokens, progress=progress)
    found = replace(found, values=found.values[index])
    return found, {**intervention.attrs, **found.way.attrs, **measured_on(model, ready)}


def _shares(
    model: Model, found: Found, seed: int, attrs: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The shares of the benefit that are lost (none if the metric has no `without`), and attributes with cautions."""
    shares = shares_lost(found.values, found.baseline, found.without, seed)
    if found.without is None:
        return shares, dict(attrs)
    known = bool(np.isfinite(shares["share"]).any())
    said = caution(model, float(found.without.mean()), attrs["unit"]) if known else NO_BENEFIT
    return shares, attrs | {"cautions": said}


def caution(model: Model, without: float, unit: str) -> str:
    """A sentence if a loss is above that of uniform guessing; else ""."""
    guessing = float(np.log(n_outputs(model)))
    if not unit.startswith("nats") or without <= guessing:
        return ""
    return (
        f"On the first copy the loss is {without:.2f} nats, above the {guessing:.2f} of guessing uniformly, so part of "
        "the measured benefit is only that the model is no longer worse than guessing."
    )

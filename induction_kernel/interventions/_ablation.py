"""Ablation of heads: single ones, groups, and the strongest heads beside random ones of the same layers.

After Olsson et al. 2022 ("direct ablation"). Single heads understate what a group does, because others take
over: always look at single and joint effects, and at random heads of the same layers. How it is computed says
`_engine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from ._compared_sets import Sets, checked_heads, compared_sets, ranked_heads
from ._edits import Mean
from ._engine import Found, run_cells
from ._intervention import Hold, Intervention
from ._plan import Cell

__all__ = [
    "Sets",
    "ablate",
    "ablation_curve",
    "caution",
    "compared_sets",
    "curve_of",
    "groups_removed",
    "joint_of",
    "shares_lost",
]

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
        seed: of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `value`, `baseline` and `effect` = value - baseline, each `[prompt]`, in the metric's
        unit; and where the metric knows its value without the ability (`repeat_loss`: the loss of the first
        copy), `share`, with `share_low` and `share_high` (95%, `stats.ratio` over prompts): the share of the
        benefit that is lost, a ratio of means, 0 if nothing changes and 1 if the benefit is gone. Above 1
        means destroyed, not a size; NaN where the model has no reliable benefit to lose. Beside it `without[prompt]`,
        that value without the ability, and the attribute `cautions`: why `share` is NaN, if it is; a sentence where the
        value without the ability is above the loss of guessing uniformly, since the benefit is then partly that of no
        longer being wrong; else "".

    Raises:
        TypeError: an edit of another type.
        Refused: no heads, heads the model does not have, prompts that lack what the metric reads.

    Source: Olsson et al. 2022, argument 3.
    """
    chosen, seed = checked_heads(model, heads), checked_seed(seed)
    intervention = _of_heads(edit, metric, hold)
    found, attrs = groups_removed(
        model, prompts, [chosen], intervention, max_tokens=max_tokens, progress=progress
    )
    return joint_of(model, found, chosen, seed, attrs)


def joint_of(
    model: Model, found: Found, chosen: Sequence[Head], seed: int, attrs: dict[str, Any]
) -> xr.Dataset:
    """What `ablate` returns, of a run of one group."""
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
    """The k strongest heads removed together, beside as many random other heads of the same layers.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: anything `as_prompts` takes, other than the heads were scored on; None for the metric's own.
        scores: a score Dataset (or what `summarise` made of it), or the heads in order, strongest first.
        ks: how many heads; None for 1, 2, 4, ... as far as the layers have other heads to compare with.
        edit: what stands in the place of their z; None for `Mean()`.
        metric: as in `ablate`.
        controls: different random sets for each k; fewer where the layers have no more (`n_controls`).
        control: "same layer", or "any layer" where layers have too few other heads. Random heads are never among
            the strongest of the largest k.
        seed: of the random sets and of the bootstrap.
        hold: as in `ablate`.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset with `value[prompt, k]`, `control[prompt, k, draw]`, `baseline[prompt]`, `effect` and
        `control_effect` (differences to the baseline), and where the metric has one, `share[k]` with `share_low`,
        `share_high` (as in `ablate`), `control_share[k, draw]` and `without[prompt]`. `n_controls[k]` different random
        sets were measured, each once; beyond them `control...` is NaN. Coordinates `heads[k]` and
        `control_heads[k, draw]` (names), `k`, `draw`. Attribute `cautions` as in `ablate`, and where more heads cost
        less than some of them.

    Raises:
        TypeError: scores, an edit or a metric of another type.
        Refused: a k below 1 or beyond the heads there are, no draws. NotDefined: a layer with too few other heads.

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
    return curve_of(model, found, sets, attrs)


def curve_of(model: Model, found: Found, sets: Sets, attrs: dict[str, Any]) -> xr.Dataset:
    """What `ablation_curve` returns, of a run of `sets.groups`."""
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
    """`[k, draw, ...]` of values of all random sets, one k after another; some ks have fewer sets."""
    out = np.full((len(drawn), max(map(len, drawn)), *values.shape[1:]), nothing, values.dtype)
    begin = 0
    for at, sets in enumerate(drawn):
        out[at, : len(sets)] = values[begin : begin + len(sets)]
        begin += len(sets)
    return out


def _cheaper(counts: Sequence[int], shares: np.ndarray) -> str:
    """Says where more heads cost less than some of them."""
    for at in range(1, len(counts)):
        best = int(np.argmax(shares[:at]))
        if shares[at] < shares[best]:
            return (
                f"The {counts[at]} strongest heads together cost less ({shares[at]:.2f}) than the {counts[best]} "
                f"strongest ({shares[best]:.2f}): some of them work against the others."
            )
    return ""


def _of_heads(edit: Edit | None, metric: MetricLike, hold: Hold) -> Intervention:
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
    """Each group of heads edited together in one run: what was found, and the attributes of such results."""
    intervention = _of_heads(None, repeat_loss, None) if intervention is None else intervention
    ready = intervention.metric.ready(model, prompts)
    cells = [
        Cell({layer: tuple(h.head for h in heads if h.layer == layer) for layer in {h.layer for h in heads}})
        for heads in groups
    ]
    found = run_cells(model, ready, cells, intervention, max_tokens=max_tokens, progress=progress)
    return found, {**intervention.attrs, **found.way.attrs, **measured_on(model, ready)}


def _shares(
    model: Model, found: Found, seed: int, attrs: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The shares of the benefit that are lost, where the metric knows one, and the attributes with their cautions."""
    shares = shares_lost(found.values, found.baseline, found.without, seed)
    if found.without is None:
        return shares, dict(attrs)
    known = bool(np.isfinite(shares["share"]).any())
    said = caution(model, float(found.without.mean()), attrs["unit"]) if known else NO_BENEFIT
    return shares, attrs | {"cautions": said}


def caution(model: Model, without: float, unit: str) -> str:
    """Says where a loss is above that of guessing uniformly, else nothing."""
    guessing = float(np.log(n_outputs(model)))
    if not unit.startswith("nats") or without <= guessing:
        return ""
    return (
        f"On the first copy the loss is {without:.2f} nats, above the {guessing:.2f} of guessing uniformly: part of "
        "the benefit of the repeat is that the model is no longer wrong."
    )

"""What does the model lose without these heads, or without these entries of attention?

After Olsson et al. 2022 ("direct ablation"). Single heads understate what a group does, because others take
over: always look at single and joint effects, and at random heads of the same layers. How it is computed says
`_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from .._given import checked_seed
from ..errors import NotDefined, Refused
from ..heads._choice import random_sets, top_heads
from ..heads._names import Head, HeadLike, as_heads, is_whole
from ..metrics import MetricLike, as_metric, repeat_loss
from ..model._anatomy import Model, check_model, sizes
from ..model._outputs import n_outputs
from ..prompts._prompts import measured_on
from ..stats._ratios import ratio
from ._batch import Hold
from ._edits import CONVENTION, Edit, KnockOut, Mean, check_edit
from ._engine import Found, run_cells, sweep
from ._plan import Cell

__all__ = [
    "Sets",
    "ablate",
    "ablation_curve",
    "compared_sets",
    "curve_of",
    "groups_removed",
    "joint_of",
    "knock_out",
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
    chosen, seed = _checked_heads(model, heads), checked_seed(seed)
    found, attrs = groups_removed(
        model, prompts, [chosen], edit=edit, metric=metric, hold=hold, max_tokens=max_tokens, progress=progress
    )  # fmt: skip
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
    seed, ranked = checked_seed(seed), _ranked(model, scores)
    sets = compared_sets(model, ranked, ks, controls=controls, control=control, seed=seed)
    found, attrs = groups_removed(
        model, prompts, sets.groups, edit=edit, metric=metric, hold=hold, max_tokens=max_tokens, progress=progress
    )  # fmt: skip
    return curve_of(model, found, sets, attrs)


@dataclass(frozen=True)
class Sets:
    """The heads of a curve: strongest first, how many are removed together, and the random sets beside each."""

    ranked: list[Head]
    counts: list[int]
    drawn: list[list[list[Head]]]
    control: str
    seed: int

    @property
    def groups(self) -> list[list[Head]]:
        """What is removed together: the strongest of every count, then all random sets."""
        return [self.ranked[:k] for k in self.counts] + [heads for sets in self.drawn for heads in sets]


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


def groups_removed(
    model: Model, prompts: Any, groups: Sequence[Sequence[Head]], *, edit: Edit | None = None,
    metric: MetricLike = repeat_loss, hold: Hold = None, max_tokens: int | None = None, progress: bool = True,
) -> tuple[Found, dict[str, Any]]:  # fmt: skip
    """Each group of heads edited together in one run: what was found, and the attributes of such results."""
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


def compared_sets(
    model: Model,
    ranked: list[Head],
    ks: Iterable[int] | int | None,
    *,
    controls: int,
    seed: int,
    control: str = "same layer",
) -> Sets:
    """How many heads to remove, and the random sets beside each."""
    if ks is None:
        return _as_many_as_compare(model, ranked, controls=controls, control=control, seed=seed)
    given = list(ks) if isinstance(ks, Iterable) else [ks]
    counts = sorted({int(k) for k in given if is_whole(k)})
    if not counts or len(counts) < len(set(given)) or counts[0] < 1 or counts[-1] > len(ranked):
        raise Refused(f"wanted ks from 1 to {len(ranked)} heads, got {ks!r}")
    options: dict[str, Any] = {"exclude": ranked[: counts[-1]], "seed": seed, "control": control}
    drawn = [random_sets(model, like=ranked[:k], n=controls, **options) for k in counts]
    return Sets(ranked, counts, drawn, control, seed)


def _as_many_as_compare(model: Model, ranked: list[Head], *, controls: int, control: str, seed: int) -> Sets:
    powers = [2**i for i in range(len(ranked).bit_length())]
    for last in range(len(powers), 1, -1):
        try:
            return compared_sets(model, ranked, powers[:last], controls=controls, control=control, seed=seed)
        except NotDefined:  # too few other heads
            continue
    return compared_sets(model, ranked, powers[:1], controls=controls, control=control, seed=seed)


def shares_lost(
    values: np.ndarray, baseline: np.ndarray, without: np.ndarray | None, seed: int
) -> dict[str, np.ndarray]:
    """Of `values [cell, prompt]`, the ratios of means over prompts with intervals; NaN without a reliable benefit."""
    if without is None:
        return {}
    benefit = without - baseline
    share = np.stack(ratio((values - baseline).T, benefit, seed=seed))
    share[:] = np.where(benefit.mean() > 0, share, np.nan)
    return dict(zip(("share", "share_low", "share_high"), share, strict=True))

"""Direct ablation (argument 3 of Olsson et al. 2022): in-context learning without induction heads.

In Olsson et al. 2022, ablating induction heads removes most of the in-context-learning (ICL) score of attention-only
models. Here induction heads are chosen at the end of training (excess of prefix matching above .3, on other random
tokens than those measured) and removed in three ways (zero, mean, pattern-preserving; see `_ablation_runs`): each
alone, all together, and, for comparison, as many random other heads of the same layers. The share lost is
1 - score without / score, a ratio of means over prompts. Six checks, two for each way: the share lost is above
SHARE = 0.5 ("most"), and it exceeds the average share that random heads lose by more than BEYOND = 0.25 (intervals over
prompts: `stats.ratio`).

Where there are checkpoints, the same is measured at each of them; in the phases before, in and after the window of the
phase change; and along the change: <u, L without - L>, where u is the change of the per-token losses over the window,
scaled to length 1. It is negative where a head does what the phase change brought. Heads chosen at the end of training
are not induction heads at its start, so before the window their share is that of heads that become ones; the share of
the heads that would be chosen at each checkpoint is given beside it.

On a model without induction heads the argument is not defined: it is about what removing them does. Where the score of
these prompts is not reliably below 0 it is inconclusive: there is nothing to lose. Effects of single heads understate
what heads do together, because other heads take over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from ..errors import NotDefined, Refused
from ..heads._choice import random_sets
from ..heads._names import Head
from ..loading._histories import training_history
from ..loading._sources import load
from ..metrics._by_position import token_losses
from ..model._anatomy import Model, check_model
from ..training._checkpoints import over_checkpoints
from ..training._curves import Band, Curves, training_curves
from ..training._merged import with_names
from ..training._phases import EXCESS, phase_window
from ._ablation_figures import figures_of
from ._ablation_runs import MODES, Removal, chosen_heads, other_heads
from ._argument import NO_TEXTS, Argument, Inputs, Part, SixArguments
from ._lost_shares import shares_of
from ._verdicts import Check, inconclusive, judge, not_defined

__all__ = ["DIRECT_ABLATION", "direct_ablation"]

SHARE, BEYOND = 0.5, 0.25
CONTROLS = 20
FEWEST = 5
"""Checkpoints that a window needs."""
LOST = "share of the ICL score lost without the induction heads"
FEW = 16
"""Prompts of repeated tokens for a large model."""


def direct_ablation(
    source: Any,
    *,
    prompts: Any = None,
    n: int = 48,
    early: Band | None = None,
    late: Band | None = None,
    window: xr.Dataset | tuple[float, float] | None = None,
    checkpoints: Any = None,
    by_head: bool = True,
    share: float = SHARE,
    beyond: float = BEYOND,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """How much of in-context learning is lost without the induction heads, and without random heads, along training.

    Six checks at the end of training: in each of three ways of removing them ("zero", "mean", "patterns") the share of
    the ICL score lost is above `share`, and exceeds what random heads lose by more than `beyond`.

    Args:
        source: a model; or "tiny", a run's folder, or a name with training checkpoints, each of which is measured.
        prompts: what the in-context-learning score is measured on, as in `training_curves`; None for stories of the
            synthetic language, where that is what the model reads.
        n: number of stories, and of prompts of repeated tokens.
        early: positions of the early band, as in `training_curves`.
        late: positions of the late band, likewise.
        window: the window of the phase change: what `phase_window` returned for this run, or `(start, end)` in tokens;
            None to measure it first.
        checkpoints: training steps; None for all there are.
        by_head: whether each head is also removed by itself, which takes one run for each head and prompt.
        share: threshold of the share lost.
        beyond: threshold of the difference to the share that random heads lose.
        seed: for all prompts and draws.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset of the verdict (see `judge`) at the end of training. `mode` is "zero", "mean" or "patterns"; where there
        are several checkpoints, all variables have a leading `checkpoint` (with `tokens`), except `phase_...`.

        | variable | meaning |
        |---|---|
        | `icl[prompt]` | the ICL score of the untouched model, in nats |
        | `icl_joint[mode, prompt]` | what removing the induction heads together adds to it, in nats |
        | `icl_effect[mode, prompt, layer, head]` | the same for each head alone |
        | `icl_control[mode, draw, prompt]` | the same for up to 20 different sets of random heads |
        | `icl_then[mode, prompt]` | for the heads that would be chosen at this checkpoint; 0 where there are none |
        | `icl_n_then` | how many heads these are |
        | `icl_share[mode]` | share of the score lost, with `_low` and `_high`; NaN where there is no score to lose |
        | `icl_beyond[mode]` | its difference to random heads' share, with `_low` and `_high` |
        | `icl_control_share[mode, draw]`, `icl_then_share[mode]` | shares lost by the other two groups |
        | `repeat...` | all of these for the loss of a second copy and its benefit |
        | `phase_icl_share[phase, mode]`, ... | with a window: means over checkpoints before, in, after it |
        | `change_effect[prompt, layer, head]` | with a window: <u, L without - L> is its sum over prompts |
        | `change_joint[prompt]`, `change_control[draw, prompt]` | the same for the other groups |

        The last two rows are measured in the mode "patterns". Attributes: `induction_heads`, `control` ("same layer",
        or "any layer" where layers have too few other heads), `window_start` and `window_end`. Not defined where no
        head is chosen, or there are too few others to compare with; inconclusive where the score is not reliably
        below 0.

    Raises:
        TypeError: neither a model nor a source.
        Refused: no prompts for a model that does not read the synthetic language; prompts too short for the bands;
            thresholds outside [0, 1); a window that does not end after it starts; a source without checkpoints.

    Source: Olsson et al. 2022, argument 3 and "before-and-after vectors".
    """
    _check(window, share, beyond)
    texts = Curves(prompts=prompts, n=n, early=early, late=late, seed=seed)
    steps = training_history(source).steps(checkpoints) if isinstance(source, str | Path) else []
    last: Any = load(source, checkpoint=steps[-1]) if steps else source
    check_model(last)
    texts.icl_prompts(last)  # wrong models and prompts are refused before anything runs
    heads = chosen_heads(last, n=n, seed=seed)
    if not heads:
        return not_defined(DIRECT_ABLATION, f"no head's prefix matching exceeds its control by {EXCESS}")
    try:
        controls, control = _controls(last, heads, seed)
    except NotDefined as few:
        return not_defined(DIRECT_ABLATION, f"no random heads to compare with: {few}")
    removal = Removal(heads=tuple(heads), controls=controls, texts=texts, n=n, seed=seed, by_head=by_head)
    attrs: dict[str, Any] = {"induction_heads": " ".join(map(str, heads)), "control": control, "seed": seed}
    if not steps:
        return _verdict(shares_of(with_names(removal(last)), None, seed), share, beyond, attrs)
    span = _window(source, texts, window, progress)
    if span is not None:
        removal = replace(removal, direction=_direction(source, texts, span))
        attrs |= {"window_start": span[0], "window_end": span[1]}
    found = over_checkpoints(source, {"without": removal}, checkpoints=steps, progress=progress)
    found = found.rename({key: str(key).removeprefix("without_") for key in found.data_vars})
    return _verdict(shares_of(found, span, seed), share, beyond, attrs)


def _check(window: Any, share: float, beyond: float) -> None:
    if not (0 <= share < 1 and 0 <= beyond < 1):
        raise Refused(f"wanted shares in [0, 1) as thresholds, got share={share} and beyond={beyond}")
    if isinstance(window, xr.Dataset):
        if not {"exists", "start", "end"} <= set(window.data_vars) or window["exists"].ndim:
            raise Refused(
                f"wanted the window of one run, got {list(window.data_vars)} over {dict(window.sizes)}: pass "
                "phase_window(curves.sel(model=..., seed=...))"
            )
    elif window is not None and not (len(window) == 2 and 0 <= window[0] < window[1]):
        raise Refused(
            f"wanted window as (start, end) in tokens, start before end, or of phase_window, got {window!r}"
        )


def _controls(model: Model, heads: Sequence[Head], seed: int) -> tuple[tuple[tuple[Head, ...], ...], str]:
    """Random sets of as many other heads, and which layers they are from."""
    control = other_heads(model, heads)
    drawn = random_sets(model, like=heads, n=CONTROLS, seed=seed, control=control)
    return tuple(map(tuple, drawn)), control


def _window(
    source: str | Path, texts: Curves, window: xr.Dataset | tuple[float, float] | None, progress: bool
) -> tuple[float, float] | None:
    """The window in tokens; None where there is none."""
    if window is None:
        if len(training_history(source).tokens) < FEWEST:
            return None
        options = {"prompts": texts.prompts, "early": texts.early, "late": texts.late}
        window = phase_window(training_curves(source, seed=texts.seed, progress=progress, **options))
    if isinstance(window, tuple):
        return window
    return (float(window["start"]), float(window["end"])) if bool(window["exists"]) else None


def _direction(source: str | Path, texts: Curves, window: tuple[float, float]) -> Tensor:
    """The change of every token's loss from the last checkpoint before the window to the first after it, length 1."""
    tokens = training_history(source).tokens
    first = max((step for step, seen in tokens.items() if seen <= window[0]), default=min(tokens))
    last = min((step for step, seen in tokens.items() if seen >= window[1]), default=max(tokens))
    start, end = (
        token_losses(model, texts.icl_prompts(model)[0]).double().nan_to_num()
        for model in (load(source, checkpoint=step) for step in (first, last))
    )
    return (end - start) / (end - start).norm()


def _verdict(found: xr.Dataset, share: float, beyond: float, attrs: dict[str, Any]) -> xr.Dataset:
    """The verdict by what was found at the end of training."""
    last = found.isel(checkpoint=-1) if "checkpoint" in found.dims else found
    if bool(last["icl_share"].isnull().any()):
        mean = float(last["icl"].mean())
        why = f"wanted prompts whose in-context-learning score is reliably below 0, got a mean of {mean:.3g} nats"
        return inconclusive(DIRECT_ABLATION, why)
    checks, n = [], int(last["icl"].notnull().sum())
    for key, words, threshold in (
        ("share", LOST, share),
        ("beyond", "more than without random heads, share of the ICL score", beyond),
    ):
        for mode in MODES:
            value, low, high = (
                float(last[f"icl_{key}{end}"].sel(mode=mode)) for end in ("", "_low", "_high")
            )
            checks.append(Check(f"{words} ({mode})", value, low, high, threshold, n=n, of="prompts"))
    return judge(DIRECT_ABLATION, checks, found, attrs=attrs)


def _run(inputs: Inputs) -> xr.Dataset:
    """On every checkpoint where there are any, with the window already found; otherwise on the model."""
    if not inputs.texts:
        return inconclusive(DIRECT_ABLATION, NO_TEXTS)
    options: dict[str, Any] = {"n": FEW} if inputs.large else {}
    options |= {"by_head": not inputs.large, "seed": inputs.seed, "progress": inputs.progress, **inputs.texts}
    if not inputs.steps:
        return direct_ablation(inputs.model, **options)
    return direct_ablation(inputs.source, checkpoints=inputs.steps, window=inputs.window, **options)


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    return figures_of(result)


DIRECT_ABLATION = Argument(
    name="direct_ablation",
    title="3 Direct ablation",
    claim="removing the induction heads removes most of in-context learning",
    paper=(
        "In the paper's attention-only models most of the in-context-learning score is lost when induction heads are "
        "removed. The paper rates this as strong causal evidence that induction heads make some of in-context learning "
        "in small models; that they make most of it, as strong evidence in models without MLPs and as medium evidence "
        "in models with them. For large models it has no such evidence."
    ),
    limits=(
        "Removing a head gives later layers input that no text would, so three ways of removing it are compared, each "
        "with random heads beside it. Heads chosen at the end of training were not yet induction heads before the "
        "window. A score in a synthetic language, or on one text, is not all of in-context learning."
    ),
    primary=LOST,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

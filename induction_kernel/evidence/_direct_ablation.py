"""Direct ablation (argument 3 of Olsson et al. 2022): in-context learning without induction heads.

Olsson et al. 2022: ablating induction heads removes most of the in-context-learning score of attention-only models.
Here: induction heads are chosen at the end of training (excess of prefix matching above .3, on repeats of other random
tokens than those measured), and removed in three ways (zero, mean, pattern-preserving; see `_ablation_runs`),
each alone, all together, and beside random other heads of the same layers. The share lost is 1 - score without /
score, a ratio of means over prompts. Six checks: in each of the three ways the share lost is above SHARE = 0.5
("most"), and more than random heads lose, on average, by BEYOND = 0.25 of the score (intervals over prompts:
`stats.ratio`).

Where there are checkpoints: the same at each of them; before, in and after the window of the phase change; and
<u, L without - L>, u the change of per-token losses over the window, to unit length: negative where a head does what
the phase change brought. Heads chosen at the end are no induction heads at first, so their share before the window is
that of what becomes one; the share of heads chosen at each checkpoint stands beside it.

On a model without induction heads the argument is not defined: it says what follows from removing them, and that a
model has none is told by `co_occurrence`. Where the score of these prompts is not reliably below 0 it is inconclusive:
there is nothing to lose. Single heads understate what they do together, because others take over.
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
"""Checkpoints that a window takes."""
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
    """How much of in-context learning is lost without the induction heads, beside random heads, along training.

    Args:
        source: a model; or "tiny", a run's folder, or a name with training checkpoints, which are all measured.
        prompts: what the in-context-learning score is measured on, as in `training_curves`; None for stories of the
            synthetic language, where that is what the model reads.
        n: stories; prompts of repeated tokens.
        early: positions of the early band, as in `training_curves`.
        late: likewise.
        window: of the phase change: what `phase_window` returned of this run, or `(start, end)` in tokens; None to
            measure it first.
        checkpoints: training steps; None for all there are.
        by_head: whether each head is removed by itself too: one run per head and prompt.
        share: threshold of the share lost.
        beyond: threshold of how much more is lost than without random heads, as a share.
        seed: of all prompts and draws.
        progress: bars on what takes longer than two seconds.

    Returns:
        The verdict (see `evidence`), at the end of training, and its grounds. `mode` is "zero", "mean" or "patterns";
        all but `mode`, `phase` and shares have a leading `checkpoint` (with `tokens`) where there are several.
        In nats: `icl[prompt]`, the score; `icl_joint[mode, prompt]`, what removing the induction heads adds to it;
        `icl_effect[mode, prompt, layer, head]` of each head; `icl_control[mode, draw, prompt]` of up to 20 different
        random sets;
        `icl_then[mode, prompt]` of the heads that would be chosen at this checkpoint, 0 where there are none, and
        `icl_n_then`; the same of the loss of a second copy as `repeat...`.
        As shares: `icl_share[mode]` with `_low` and `_high`, `icl_beyond[mode]` likewise (more than random heads),
        `icl_control_share[mode, draw]`, `icl_then_share[mode]`; the same as `repeat...`; NaN where there is no
        reliable benefit to lose. With a window: `phase_icl_share[phase, mode]` and all other shares, of means over the
        checkpoints "before", "in" and "after"; `turn_effect[prompt, layer, head]`, `turn_joint` and
        `turn_control`, in nats, whose sums over prompts are <u, L without - L> in the mode "patterns".
        Attributes `induction_heads`, `control` ("same layer", or "any layer" where layers have too few other heads),
        `window_start`, `window_end`.

    Raises:
        TypeError: neither a model nor a source.
        Refused: no prompts for a model that does not read the synthetic language; prompts too short for the bands;
            a window that does not end after it starts; a source without checkpoints.

    Source: Olsson et al. 2022, argument 3 and "before-and-after vectors".
    """
    _check(window, share, beyond)
    texts = Curves(prompts=prompts, n=n, early=early, late=late, seed=seed)
    steps = training_history(source).steps(checkpoints) if isinstance(source, str | Path) else []
    last: Any = load(source, checkpoint=steps[-1]) if steps else source
    check_model(last)
    texts.icl_prompts(last)  # what is wrong with the model or the prompts is said before anything runs
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
                "wanted the window of one run, phase_window(curves.sel(model=..., seed=...)), got "
                f"{list(window.data_vars)} over {dict(window.sizes)}"
            )
    elif window is not None and not (len(window) == 2 and 0 <= window[0] < window[1]):
        raise Refused(f"wanted window as (start, end) in tokens, start before end, got {window!r}")


def _controls(model: Model, heads: Sequence[Head], seed: int) -> tuple[tuple[tuple[Head, ...], ...], str]:
    """Random sets of as many other heads, and where they are from."""
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
    """At the end of training."""
    last = found.isel(checkpoint=-1) if "checkpoint" in found.dims else found
    if bool(last["icl_share"].isnull().any()):
        mean = float(last["icl"].mean())
        why = f"wanted prompts whose in-context-learning score is reliably below 0, got {mean:.3g} nats in the mean"
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
    """Along training where there are checkpoints, in the window that is known already."""
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
        "In the paper's attention-only models most of the in-context-learning score goes when induction heads are "
        "removed. The paper rates this evidence strong and causal that induction heads make some of in-context "
        "learning in small models; that they make most of it, strong without MLPs and medium with them. For large "
        "models it has none."
    ),
    limits=(
        "Without a head the model reads what no text gives it, so three replacements are compared, each beside "
        "random heads of the same layers. What the heads were before the window is not what they are now. A score "
        "in a synthetic language, or on one text, is not all of in-context learning."
    ),
    primary=LOST,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

"""`which_heads`: which heads carry in-context learning, induction heads or function-vector heads.

Yin & Steinhardt 2025 (arXiv 2502.14010), section 4, and their code (`get_heads_to_ablate`): the top heads of one kind
are ablated without the top 2% of the other, beside random heads, and two things are measured: few-shot accuracy, and
the difference between the loss late and early in a text. `_set_ablations` makes the runs, `_other_tasks` the tasks that
heads are scored on, and `_set_changes` says what has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._choice import random_sets, top_heads
from ..heads._names import Head, names_of
from ..heads._summary import means_of
from ..model._anatomy import Model, sizes
from ..model._outputs import check_words
from ..prompts._conversion import as_prompts
from ..prompts._prompts import FewShotPrompts, measured_on
from ..prompts._repeated import repeated_tokens
from ..replay._lane_record import of_slowest
from ..scorers._attention import induction
from ..stats._correlations import correlation, correlation_interval
from ._other_tasks import few_shot_of_task, means_over_tasks, names_of_tasks, other_tasks, scores_over_tasks
from ._set_ablations import bands_of, few_shot_without, text_without
from ._set_changes import INDUCTION, VECTOR, changes_of

__all__ = ["which_heads"]

KEYS = {INDUCTION: "induction", VECTOR: "function_vector"}


def which_heads(
    model: Model,
    prompts: Any,
    text: Any,
    *,
    tasks: Any = None,
    scores: Mapping[str, xr.Dataset] | None = None,
    shares: Iterable[float] = (0.02, 0.1),
    exclude: float = 0.02,
    n_controls: int = 20,
    early: int | None = None,
    late: int | None = None,
    width: int = 20,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Few-shot accuracy and in-context-learning score without induction heads, and without function-vector heads.

    Of each kind the top share of all heads is ablated (rounded down, at least one head), left out of it the top
    `exclude` of the other kind (rounded down); and as many random heads, which are in neither set nor in the top
    `exclude` of either. In few-shot prompts z becomes its mean over the last tokens of other tasks' prompts (over each
    task's, then over tasks), at the last token alone. The mean over the prompts' own task is what function-vector heads
    write for it: with that in their place they are not ablated. In the text z becomes its mean over the windows, at
    every position (the authors' code takes the values of one run on random tokens there).

    Args:
        model: any TransformerLens model with a tokenizer; given back as it was.
        prompts: few-shot prompts whose right labels are known, or episodes.
        text: windows of ordinary text, anything `as_prompts` takes.
        tasks: few-shot prompts or episodes of other tasks than that of the prompts, or a list of them, one a task.
            Heads are scored on them, and the mean is taken over them. None for the word pairs that ship
            (`data.word_pairs`), 8 prompts of 8 demonstrations a task: the four in English, or `topics` where the model
            does not read English; without that of episodes of the same name. Whether given tasks are other ones is not
            checked, only that no prompt is in both.
        scores: `{"induction": ..., "function_vector": ...}`, results of `induction` and `function_vector_effect` on
            other prompts than these, or any other scores to rank heads by; None to measure them: induction on repeated
            tokens, function vectors on each of the tasks, averaged over tasks.
        shares: which shares of all heads are ablated, above 0, at most 1.
        exclude: share of the other kind's heads that is left out of each set; 0 for none.
        n_controls: sets of random heads for each share; with fewer than 19, and where there are fewer different sets
            (15 of one head out of 16), no verdict is possible.
        early: position i of the text, whose loss is that of predicting token i + 1; None for 50.
        late: likewise; None for 500.
        width: number of positions averaged around each.
        seed: of the random sets, of the word pairs, of the shuffle and of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over `share` and `set` ("induction heads", "function-vector heads", "random heads"). Each measure M is
        `accuracy` (of the labels among themselves), `label_probability` (of the right label's first token over the
        whole vocabulary) or `icl_score` (late less early loss in nats; negative is better, opposite to the authors'):

        | variable | |
        |---|---|
        | `M` | mean with the set ablated |
        | `M_change` | less the untouched model's, paired by prompt or window |
        | `M_excess` | the change less that of random heads (mean over their sets), paired |
        | `M_p`, `M_p_less` | (1 + random sets with at least, at most as much harm) / (1 + random sets) |
        | `M_verdict` | "more than random heads", "less than random heads" or "inconclusive": harm |
        | `M_difference[share]` | the change without function-vector heads less that without induction heads, paired |
        | `M_difference_p[share]` | (1 + pairs of random sets that differ at least as much) / (1 + pairs) |
        | `M_decides[share]` | the heads that do more harm of these two, or "inconclusive" |
        | `M_control[share, draw]` | the mean change of each set of random heads |

        Changes, excesses and differences have 95% intervals over prompts or windows, `..._low` and `..._high`. These
        say nothing of how much sets of random heads differ among themselves, so a verdict needs both: an interval (of
        the excess or the difference) without zero, and p <= .05. Each verdict errs in up to 5% of cases in each
        direction (`M_decides` in up to 8% in all, simulated with 20 sets); they are not corrected for their number,
        the attribute `n_verdicts`, over measures, shares and sets. By prompt and window:
        `correct`, `right_probability [prompt, share, run]`, `late_less_early[window, share, run]`, with the names of
        `heads[share, run]`. `overlap[share]` is the part of the top induction heads that are top function-vector heads
        too (before exclusion), `overlap_chance[share]` of random ones; `correlation` is Spearman's of the two scores
        over heads, with ends that take heads for independent. `induction` and `function_vector [layer, head]` are the
        scores, less their control.

    Raises:
        TypeError: not prompts; tasks or scores of another type.
        Refused: prompts without right labels; tasks that hold one of the prompts, or no word pairs in the model's
            language; windows that are too short; shares out of range.
        NotDefined: too few other heads; a model whose outputs are not its tokens.

    Source: Yin & Steinhardt 2025 (arXiv 2502.14010), section 4; released code, `find_fv_heads.py` (tasks that heads are
        scored on, whose mean is put in) and `ablate.py` (held-out tasks). Intervals and comparison with random sets are
        this package's own; p as in Phipson & Smyth 2010.
    """
    check_words(model, "which_heads")
    seed, kept = checked_seed(seed), _shares(shares, exclude, n_controls)
    windows = as_prompts(model, text)
    bands = bands_of(windows, early, late, width)
    others = other_tasks(model, prompts, tasks, seed)
    ready = _with_labels(few_shot_of_task(model, prompts))
    options: dict[str, Any] = {"max_tokens": max_tokens, "progress": progress}
    if scores is None:
        scores = {
            "induction": induction(model, repeated_tokens(model), progress=progress),
            "function_vector": scores_over_tasks(model, others, seed, **options),
        }
    ranked = _ranked(scores)
    sets = [_sets_of(model, ranked, share, exclude, n_controls, seed) for share in kept]
    every = [heads for of_share in sets for heads in of_share]
    means = means_over_tasks(model, others, max_tokens)
    logs, way = few_shot_without(model, ready, every, means, **options)
    losses, of_text = text_without(model, windows, every, bands, **options)
    out = changes_of(
        logs, losses, ready.demonstrations.target.numpy(), [len(each) for each in sets], n_controls, seed
    )
    names = [["", *(" ".join(map(str, heads)) for heads in of_share)] for of_share in sets]
    names = np.array([row + [""] * (n_controls + 3 - len(row)) for row in names])
    out = out.assign_coords(share=kept, heads=(("share", "run"), names)).assign(
        _compared(scores, ranked, kept, seed)
    )
    return out.assign_attrs(
        method="which_heads", paper="Yin & Steinhardt 2025, section 4", exclude=float(exclude), seed=seed,
        early=bands.early, late=bands.late, width=bands.width, edit="mean z: of other tasks' prompts, of the windows",
        tasks=names_of_tasks(others), n_task_prompts=sum(map(len, others)), interval="95% over prompts and windows",
        n_windows=len(windows), convention="late less early loss; a loss at i predicts token i + 1",
        **of_slowest([way, of_text]).attrs, **measured_on(model, ready),
    )  # fmt: skip


def _shares(shares: Any, exclude: Any, n_controls: Any) -> list[float]:
    """The shares in order; Refused if an option is out of its range."""
    given = list(shares) if isinstance(shares, Iterable) else [shares]
    numbers = all(isinstance(each, Real) and 0 < float(each) <= 1 for each in given)
    if not given or not numbers or len(set(given)) < len(given):
        raise Refused(f"wanted different shares of all heads, above 0 and at most 1, got {shares!r}")
    if not isinstance(exclude, Real) or not 0 <= float(exclude) < 1:
        raise Refused(f"wanted exclude from 0 to below 1, a share of all heads, got {exclude!r}")
    if not is_whole(n_controls) or n_controls < 1:
        raise Refused(f"wanted n_controls >= 1 sets of random heads, got {n_controls!r}")
    return sorted(float(each) for each in given)


def _with_labels(prompts: FewShotPrompts) -> FewShotPrompts:
    """The prompts, whose right labels must be known."""
    if bool((prompts.demonstrations.target < 0).any()):
        raise Refused(
            "wanted few-shot prompts whose queries carry labels: few_shot_prompts(model, .., [(x, y)])"
        )
    return prompts


def _ranked(scores: Any) -> dict[str, list[Head]]:
    """Each kind's heads, strongest first."""
    if not isinstance(scores, Mapping) or set(scores) != set(KEYS.values()):
        got = sorted(map(str, scores)) if isinstance(scores, Mapping) else type(scores).__name__
        raise Refused(f'wanted scores as {{"induction": result, "function_vector": result}}, got {got}')
    return {kind: top_heads(scores[key], None) for kind, key in KEYS.items()}


def _sets_of(
    model: Model, ranked: Mapping[str, Sequence[Head]], share: float, exclude: float, n_controls: int, seed: int
) -> list[list[Head]]:  # fmt: skip
    """The sets to ablate at one share: induction heads, function-vector heads, and the random sets."""
    size = sizes(model)
    n = size.n_layers * size.n_heads
    k, n_excluded = max(1, int(share * n + 1e-9)), int(exclude * n + 1e-9)
    top = {kind: set(heads[:n_excluded]) for kind, heads in ranked.items()}
    other = {INDUCTION: VECTOR, VECTOR: INDUCTION}
    sets = [[head for head in ranked[kind] if head not in top[other[kind]]][:k] for kind in other]
    if min(map(len, sets)) < k:
        raise Refused(
            f"wanted {k} heads of each kind that are not in the top {exclude:.0%} of the other, got "
            f"{min(map(len, sets))}: pass a smaller share, or exclude=0"
        )
    excluded = {*sets[0], *sets[1], *top[INDUCTION], *top[VECTOR]}
    return sets + random_sets(
        model, like=sets[0], n=n_controls, exclude=excluded, seed=seed, control="any layer"
    )


def _compared(
    scores: Mapping[str, xr.Dataset], ranked: Mapping[str, Sequence[Head]], shares: Sequence[float], seed: int
) -> xr.Dataset:  # fmt: skip
    """The two scores over heads, their correlation, and how many top heads they share."""
    means = {key: means_of(scores[key])["excess"].transpose("layer", "head") for key in KEYS.values()}
    first, second = (value.values.ravel() for value in means.values())
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    low, high = correlation_interval(first, second, "spearman", seed=seed)
    counts = [max(1, int(share * len(first) + 1e-9)) for share in shares]
    both = [len({*ranked[INDUCTION][:k]} & {*ranked[VECTOR][:k]}) / k for k in counts]
    layers, heads = (means["induction"][dim].values for dim in ("layer", "head"))
    return xr.Dataset(
        {key: (("layer", "head"), value.values) for key, value in means.items()}
        | {
            "correlation": correlation(first, second, "spearman"),
            "correlation_low": low,
            "correlation_high": high,
            "overlap": ("share", both),
            "overlap_chance": ("share", [k / len(first) for k in counts]),
            "n_heads": ("share", counts),
        },
        {"layer": layers, "head": heads, "name": (("layer", "head"), names_of(layers, heads))},
    )

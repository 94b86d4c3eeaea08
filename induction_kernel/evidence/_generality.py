"""Generality: whether induction heads also match abstract patterns and follow translations. Argument 4.

Olsson et al. 2022, argument 4: induction heads are defined by random tokens said again, and the same heads, in their
model, also match patterns of which no word recurs, and follow a text in another language. Head by head it is asked
where their attention goes in each; and whether the model still copies without them. The checks:

- without the heads the second copy of a passage loses more than LOST of what it gains from the first;
- without as many random other heads of the same layers it loses less than SPARED (where there are as many);
- the heads' attention to labels of the right category is more than MARGIN above what it were if it did not depend on
  the category, and more than that of all other heads; the same for translation, where the tokenizer knows the
  languages.

How behaviours are correlated over heads is told, not judged: most heads do none of them, and their ranks are noise.
Attention is not effect: what the heads do in the abstract tasks is read, not removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import NotDefined, Refused
from ..heads._choice import top_heads
from ..heads._names import Head, HeadLike, as_heads, is_whole
from ..heads._summary import summarise
from ..interventions._ablation import ablate, ablation_curve
from ..metrics._standard import repeat_loss
from ..model._anatomy import Model, check_model, describe, sizes
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..scorers._attention import prefix_matching
from ..scorers._copying import copying
from ..scorers._labels import label_attention
from ..stats._correlations import correlation, correlation_interval
from ..stats._means import mean_interval
from ..stats._ratios import ratio
from ..training._merged import with_names
from ._ablation_runs import other_heads
from ._pattern_task import pattern_lines, repeated_passages
from ._translation_task import (
    TRANSLATIONS,
    Translation,
    check_translations,
    translation_attention,
    unreadable,
)
from ._verdicts import Check, inconclusive, judged, not_defined

__all__ = ["generality"]

LOST, SPARED, MARGIN = 0.5, 0.25, 0.02
OF_ATTENTION = 0.02
"""Half-width that n is stated for, of attention."""
CLAIM = "The heads that copy literally are also those that match patterns and follow a translation."


def generality(
    model: Model,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    *,
    k: int = 10,
    passages: Any = None,
    pattern: Prompts | None = None,
    translations: Sequence[Translation] | None = None,
    controls: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Do induction heads also match abstract patterns and follow translations? Olsson et al.'s argument 4.

    The heads are chosen on random tokens said again (prefix matching), and scored on other prompts.

    Args:
        model: any TransformerLens model; given back as it was.
        heads: those asked about; None for the `k` strongest of those whose prefix matching passes the threshold of
            `summarise`.
        k: how many at most.
        passages: for literal copying: one text, of which 16 passages of up to 100 tokens are taken, or a list of
            passages; each is said twice. Or `Prompts` with a second copy and a control. None for random tokens.
        pattern: few-shot prompts whose queries carry labels; None for 64 prompts of 16 lines in four categories,
            two kinds of first and two of second words (`fox arm: dax`).
        translations: sentences in two languages, aligned by words; None for 24 from English to French and German.
        controls: sets of random heads.
        seed: of all draws.
        progress: bars on what takes longer than two seconds.

    Returns:
        Dataset as of every argument (see `verdicts.judged`), and over `behaviour` ("copying", "prefix_matching",
        "literal", "pattern", "translation" where the tokenizer knows the languages; `translation` among the attributes
        says so), layer and head:
        `score` and `control` by prompt (NaN beyond a behaviour's own number); `attention` (their mean score, a
        probability; the copying score is in [-1, 1]) with `attention_low` and `attention_high`, `excess` over the
        control (copying: over chance) with `excess_low` and `excess_high`, `needed` (the excess that passes among
        all heads together), `passes`, and `chosen_passes`, for which the chosen heads alone are compared. By
        behaviour: `n_passing` (of the chosen); `chosen_excess` (mean of the chosen heads), `contrast` (that less
        the mean of the others) and `correlation` (Spearman, with prefix matching, over all heads; bootstrap over
        heads), each with `_low` and `_high`. `chosen[layer, head]`.
        Of literal copying, in nats by `passage`: `first_loss` (of the first copy), `copy_loss` (of the second),
        `copy_loss_without` the heads and `copy_loss_random[passage, draw]` without random ones; `share_lost` of
        what the second copy gains, with `share_lost_low` and `share_lost_high`, `random_share[draw]`. The attribute
        `random_heads` says where random heads are from: "same layer", "any layer" where layers have too few
        others, "none" (and no check of them) where the model has.
        Not defined where no head passes, or the pattern task cannot be written in the tokenizer's words; inconclusive,
        without checks, where none passes and some could not be tested.

    Raises:
        TypeError: passages, a pattern or translations of another type.
        Refused: no heads, heads the model does not have, prompts that lack what is read, counts below 1.

    Source: Olsson et al. 2022, argument 4.
    """
    check_model(model)
    if not is_whole(k) or k < 1 or not is_whole(controls) or controls < 2:
        raise Refused(f"wanted k >= 1 heads and controls >= 2 random sets, got {k!r} and {controls!r}")
    seed, spoken = checked_seed(seed), TRANSLATIONS if translations is None else translations
    check_translations(spoken)
    literal = _literal(model, passages, seed)
    lines = _pattern(model, pattern, seed)
    if isinstance(lines, str):
        return not_defined("generality", CLAIM, lines)
    chosen = _chosen(model, heads, k, seed, progress)
    if isinstance(chosen, xr.Dataset):
        return chosen
    labels = label_attention(model, lines, progress=progress)
    scores = {
        "copying": copying(model, progress=progress),
        "prefix_matching": prefix_matching(model, _repeats(model, seed + 1), progress=progress),
        "literal": prefix_matching(model, literal, progress=progress),
        "pattern": labels[["right", "right_control"]].rename(right="score", right_control="control"),
    }
    why = unreadable(model, spoken)
    if not why:
        scores["translation"] = translation_attention(model, spoken)
    copies = _copies(model, literal, chosen, controls, seed, progress)
    details = xr.merge([_by_head(scores, chosen, seed), copies])
    attrs = {
        "heads": " ".join(map(str, chosen)), "translation": why or "in the languages given", "seed": seed,
        "unit": "probability; losses in nats", **copies.attrs, **describe(model),
    }  # fmt: skip
    return judged("generality", CLAIM, _checks(details, controls, seed), details, attrs=attrs)


def _literal(model: Model, passages: Any, seed: int) -> Prompts:
    """A passage said twice, with the control that is averaged over where heads are removed."""
    if passages is None:
        return repeated_tokens(model, prompts=16, seed=seed + 2)
    if not isinstance(passages, Prompts):
        return repeated_passages(model, passages)
    if passages.control is None:
        raise Refused(
            "wanted passages with a control, as repeated_tokens(model) makes them; or pass the texts"
        )
    return as_prompts(model, passages)


def _pattern(model: Model, pattern: Prompts | None, seed: int) -> Prompts | str:
    """The prompts of the pattern task, or why there are none."""
    if pattern is None:
        try:
            return pattern_lines(model, seed=seed)
        except NotDefined as error:  # a tokenizer without the words, or a context too short
            return str(error)
    if not isinstance(pattern, Prompts):
        raise TypeError(f"wanted pattern as Prompts made by few_shot_prompts, got {type(pattern).__name__}")
    found = pattern.demonstrations
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "wanted a pattern whose queries carry labels: few_shot_prompts(model, ..., [(x, y), ...])"
        )
    return as_prompts(model, pattern)


def _repeats(model: Model, seed: int) -> Prompts:
    return repeated_tokens(model, repeats=4, prompts=16, seed=seed)


def _chosen(model: Model, heads: Any, k: int, seed: int, progress: bool) -> list[Head] | xr.Dataset:
    """The heads asked about; where none passes, the argument without checks."""
    if heads is None:
        summary = summarise(prefix_matching(model, _repeats(model, seed), progress=progress))
        tested = summary["tested"]
        if found := top_heads(summary, k, passing=True) if tested.any() else []:
            return found
        said = "no head's prefix matching passes"
        if tested.all():
            return not_defined("generality", CLAIM, f"{said}: there is no induction head")
        why = (
            f"{int((~tested).sum())} of {tested.size} heads could not be tested: {summary['untested'].item()}"
        )
        return inconclusive("generality", CLAIM, f"{said}, but {why}")
    size = sizes(model)
    if found := as_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads):
        return found
    raise Refused("wanted at least one head, got none")


def _by_head(scores: dict[str, xr.Dataset], chosen: list[Head], seed: int) -> xr.Dataset:
    """Every behaviour's scores beside one another, with what they say of all heads and of the chosen."""
    parts: list[xr.Dataset] = []
    first = scores["prefix_matching"]
    is_chosen = xr.zeros_like(first["score"].isel(prompt=0).reset_coords(drop=True), dtype=bool)
    for head in chosen:
        is_chosen.loc[{"layer": head.layer, "head": head.head}] = True
    for name, each in scores.items():
        null = each["control"] if "control" in each else each["chance"]
        both = xr.Dataset({"score": each["score"], "control": null.broadcast_like(each["score"])})
        both = both.assign(chance=both["control"]).reset_coords(drop=True)
        parts.append(_summed_up(both, is_chosen, seed).expand_dims(behaviour=[name]))
    out = xr.concat(parts, "behaviour", join="outer")
    out["score"], out["control"] = (out[key].astype(np.float32) for key in ("score", "control"))
    out = with_names(out).assign(chosen=is_chosen)
    return xr.merge([out, _correlated(out["excess"], seed)])


def _summed_up(scores: xr.Dataset, chosen: xr.DataArray, seed: int) -> xr.Dataset:
    names = {"mean": "attention", "low": "attention_low", "high": "attention_high", "threshold": "needed"}
    kept = [*names.values(), "excess", "excess_low", "excess_high", "passes"]
    found = summarise(scores, seed=seed).rename(names)[kept].drop_vars(["null", "untested"])
    few = summarise(scores.where(chosen), seed=seed)["passes"].drop_vars(["null", "untested"])
    gained = scores["score"] - scores["control"]
    of_chosen = gained.where(chosen).mean(("layer", "head")).to_numpy()
    of_others = gained.where(~chosen).mean(("layer", "head")).to_numpy()
    by_behaviour: dict[str, Any] = {"n_passing": int((few == 1).sum())}
    for name, values in (("chosen_excess", of_chosen), ("contrast", of_chosen - of_others)):
        low, high = mean_interval(values, seed=seed)
        by_behaviour |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
    coords = {"prompt": np.arange(scores.sizes["prompt"])}
    by_behaviour |= {"chosen_passes": few, "score": scores["score"], "control": scores["control"]}
    return found.assign(by_behaviour).assign_coords(coords)


def _correlated(excess: xr.DataArray, seed: int) -> xr.Dataset:
    """Spearman of each behaviour with prefix matching over heads, and its bootstrap over heads."""
    by_head = excess.stack(cell=("layer", "head"))
    first = by_head.sel(behaviour="prefix_matching").values
    rows = []
    for other in by_head.transpose("behaviour", "cell").values:
        there = np.isfinite(first + other)
        x, y = first[there], other[there]
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            rows.append([np.nan] * 3)  # heads that do not differ
            continue
        ends = correlation_interval(x, y, "spearman", seed=seed)
        rows.append([correlation(x, y, "spearman"), *ends])
    keys = ("correlation", "correlation_low", "correlation_high")
    return xr.Dataset({key: ("behaviour", row) for key, row in zip(keys, np.array(rows).T, strict=True)})


def _copies(
    model: Model, literal: Prompts, heads: list[Head], controls: int, seed: int, progress: bool
) -> xr.Dataset:
    """The losses of both copies, and of the second without the heads and without random ones."""
    first = repeat_loss(model, literal)["without"].values
    options: dict[str, Any] = {"progress": progress}
    try:
        options |= {"control": other_heads(model, heads), "controls": controls, "seed": seed}
    except NotDefined:  # the model has too few other heads
        found = ablate(model, literal, heads, **options)
    else:
        found = ablation_curve(model, literal, heads, ks=len(heads), **options).isel(k=0)
    names = {"baseline": "copy_loss", "value": "copy_loss_without", "control": "copy_loss_random"}
    names |= {f"share{end}": f"share_lost{end}" for end in ("", "_low", "_high")}
    names |= {"control_share": "random_share", "prompt": "passage"}
    kept = found.drop_vars(["effect", "control_effect", "heads", "k", "control_heads"], errors="ignore")
    out = kept.rename({old: new for old, new in names.items() if old in kept or old in kept.dims})
    out = out.assign(first_loss=("passage", first)).drop_attrs()
    return out.assign_attrs(random_heads=options.get("control", "none"))


def _checks(found: xr.Dataset, controls: int, seed: int) -> list[Check]:
    n = found.sizes["passage"]
    lost = _with_ends(found, "share_lost")
    checks = [
        Check("share of the second copy's gain lost without the heads", *lost, LOST, n=n, of="passages")
    ]
    if "random_share" in found:
        spared = _random_share(found, controls, seed)
        checks.append(
            Check("the same without random heads", *spared, SPARED, above=False, n=n, of="passages")
        )
    titles = {
        "pattern": "attention to labels of the right category beyond chance, mean of the heads",
        "translation": "attention to the word after the translation beyond its control, mean of the heads",
    }
    for name, title in titles.items():
        if name in found["behaviour"]:
            of = found.sel(behaviour=name)
            n = int(of["score"].notnull().any(("layer", "head")).sum())
            counted: dict[str, Any] = {"n": n, "of": "prompts", "stated": OF_ATTENTION}
            rest = f"{name}: the same less that of all other heads"
            checks.append(Check(title, *_with_ends(of, "chosen_excess"), MARGIN, **counted))
            checks.append(Check(rest, *_with_ends(of, "contrast"), 0.0, **counted))
    return checks


def _with_ends(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    """The number with the ends of its interval."""
    value, low, high = (float(found[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


def _random_share(found: xr.Dataset, controls: int, seed: int) -> tuple[float, float, float]:
    """The mean share that random heads take, with its interval.

    The distances to its ends add up in square: of the ratio over passages, with the mean of the draws, and of the mean
    over draws. Fewer draws than were asked for are all sets there are: their mean is no estimate.
    """
    gain = (found["first_loss"] - found["copy_loss"]).values
    effect = (found["copy_loss_random"] - found["copy_loss"]).transpose("passage", "draw").values
    share, *of_passages = ratio(effect.mean(1), gain, seed=seed)
    by_draw = ratio(effect, gain, seed=seed)[0]
    all_there_are = len(by_draw) < controls
    of_draws = [by_draw.mean()] * 2 if all_there_are else mean_interval(by_draw, seed=seed)
    below, above = (
        np.hypot(a - share, b - by_draw.mean()) for a, b in zip(of_passages, of_draws, strict=True)
    )
    return float(share), float(share - below), float(share + above)

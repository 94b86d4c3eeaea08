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

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import xarray as xr

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._choice import top_heads
from ..heads._names import Head, HeadLike, some_heads
from ..heads._summary import summarise
from ..model._anatomy import Model, check_model, describe, sizes
from ..plots._scores import head_map
from ..plots._style import escape
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..scorers._attention import prefix_matching
from ..scorers._copying import copying
from ..scorers._labels import label_attention
from ._argument import Argument, Inputs, Part, SixArguments
from ._behaviour_scores import by_behaviour, summaries
from ._copy_losses import copies_without, random_share
from ._pattern_task import literal_prompts, pattern_prompts
from ._translation_task import (
    TRANSLATIONS,
    Translation,
    check_translations,
    translation_attention,
    unreadable,
)
from ._verdicts import Check, inconclusive, judge, not_defined

__all__ = ["GENERALITY", "generality"]

LOST, SPARED, MARGIN = 0.5, 0.25, 0.02
OF_LABELS = "attention to labels of the right category beyond chance, mean of the heads"
OF_ATTENTION = 0.02
"""Half-width that n is stated for, of attention."""


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
        Dataset as of every argument (see `judge`), and over `behaviour` ("copying", "prefix_matching",
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
    literal = literal_prompts(model, passages, seed)
    lines = pattern_prompts(model, pattern, seed)
    if isinstance(lines, str):
        return not_defined(GENERALITY, lines)
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
    copies = copies_without(model, literal, chosen, controls, seed, progress)
    details = xr.merge([by_behaviour(scores, chosen, seed), copies])
    attrs = {
        "heads": " ".join(map(str, chosen)), "translation": why or "in the languages given", "seed": seed,
        "unit": "probability; losses in nats", **copies.attrs, **describe(model),
    }  # fmt: skip
    return judge(GENERALITY, _checks(details, controls, seed), details, attrs=attrs)


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
            return not_defined(GENERALITY, f"{said}: there is no induction head")
        why = (
            f"{int((~tested).sum())} of {tested.size} heads could not be tested: {summary['untested'].item()}"
        )
        return inconclusive(GENERALITY, f"{said}, but {why}")
    size = sizes(model)
    return some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)


def _checks(found: xr.Dataset, controls: int, seed: int) -> list[Check]:
    n = found.sizes["passage"]
    lost = _with_ends(found, "share_lost")
    checks = [
        Check("share of the second copy's gain lost without the heads", *lost, LOST, n=n, of="passages")
    ]
    if "random_share" in found:
        spared = random_share(found, controls, seed)
        checks.append(
            Check("the same without random heads", *spared, SPARED, above=False, n=n, of="passages")
        )
    titles = {
        "pattern": OF_LABELS,
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


def _run(inputs: Inputs) -> xr.Dataset:
    return generality(inputs.model, passages=inputs.passages, seed=inputs.seed, progress=inputs.progress)


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    if not result.sizes["check"]:
        return
    yield (
        f"Heads chosen on repeated random tokens: {result.attrs['heads']}. Below, where every head looks, and what its "
        "weights copy; a white dot marks the heads beyond the threshold of their own behaviour. Translation: "
        f"{result.attrs['translation']}."
    )
    yield head_map(summaries(result), title=f"{escape(found.model)}: behaviours, head by head")


GENERALITY = Argument(
    name="generality",
    title="4 Generality",
    claim="The heads that copy literally are also those that match patterns and follow a translation.",
    paper=(
        "In the paper, heads that copy literally also attend to the right word in a translation, and to the "
        "labels of earlier lines of the same category in an abstract pattern. The paper counts this as plausibility, "
        "and has it for large models alone."
    ),
    limits=(
        "Attention is not effect: in patterns and translations what heads look at is read, and nothing is "
        "removed. The tasks are few and simple."
    ),
    primary=OF_LABELS,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

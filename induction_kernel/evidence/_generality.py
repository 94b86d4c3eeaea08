"""Generality (argument 4 of Olsson et al. 2022): whether induction heads also match patterns and follow translations.

Induction heads are chosen on repeated random tokens. In Olsson et al. 2022 the same heads also match abstract patterns
in which no word is repeated, and follow a text in another language. For each head the attention in these tasks is
measured, and whether the model still copies without the heads. The checks:

- without the heads, the second copy of a passage loses more than LOST = 0.5 of its benefit (loss of the first copy
  minus loss of the second);
- without as many random other heads of the same layers it loses less than SPARED = 0.25 (where the model has enough);
- the heads' attention to labels of the right category exceeds what it would be if it did not depend on the category by
  more than MARGIN = 0.02, and exceeds that of all other heads; the same for translation, where the tokenizer knows the
  languages.

How behaviours correlate over heads is reported without a check: most heads do none of them, and their ranks are noise.
Attention is not effect: in the abstract tasks attention is read, and no head is removed.
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
from ..plots._style import words as in_words
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
"""The half-width that `n_for` is computed for, in checks of attention."""


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
    """Whether induction heads also copy passages, match abstract patterns and follow translations.

    The heads are chosen on repeated random tokens (prefix matching), and scored on other prompts. The checks and their
    thresholds are at the top of this file: what copying loses without the heads and without random ones, and attention
    to the right labels and to the word after a translation, beyond its control.

    Args:
        model: any TransformerLens model; given back as it was.
        heads: the heads to test; None for the `k` strongest whose prefix matching passes the threshold of `summarise`.
        k: most heads that are chosen.
        passages: for literal copying: one text, from which 16 passages of up to 100 tokens are cut, or a list of
            passages; each is repeated once. Or `Prompts` with a second copy and a control. None for random tokens.
        pattern: few-shot prompts whose queries carry labels; None for 64 prompts of 16 lines in four categories,
            from two kinds of first words and two of second (`fox arm: dax`).
        translations: sentences in two languages, aligned word by word; None for 24 from English to French and German.
        controls: how many sets of random heads, 2 or more.
        seed: for all draws.
        progress: a bar on what takes longer than two seconds.

    Returns:
        Dataset of the verdict (see `judge`), with `chosen[layer, head]`. `behaviour` is "copying", "prefix_matching",
        "literal", "pattern" and, where the tokenizer knows the languages (the attribute `translation`), "translation".

        | variable | over | meaning |
        |---|---|---|
        | `score`, `control` | behaviour, prompt, layer, head | per prompt; NaN beyond a behaviour's own prompts |
        | `attention` | behaviour, layer, head | mean score, a probability; of copying, in [-1, 1] |
        | `excess` | behaviour, layer, head | mean over the control; of copying, over chance |
        | `needed` | behaviour, layer, head | the excess that passes among all heads together |
        | `passes`, `chosen_passes` | behaviour, layer, head | compared with all heads; with the chosen heads only |
        | `n_passing` | behaviour | how many of the chosen heads pass |
        | `chosen_excess`, `contrast` | behaviour | mean excess of the chosen heads; that minus the others' |
        | `correlation` | behaviour | Spearman's with prefix matching over heads; bootstrap over heads |
        | `first_loss`, `copy_loss` | passage | loss on the first and second copy, in nats |
        | `copy_loss_without` | passage | on the second copy without the heads |
        | `copy_loss_random` | passage, draw | on the second copy without random heads |
        | `share_lost`, `random_share` | -, draw | shares of the second copy's benefit lost without them |

        `attention`, `excess`, `chosen_excess`, `contrast`, `correlation` and `share_lost` have `_low` and `_high`
        (95%). The attribute `random_heads` says where random heads are from: "same layer", "any layer" where layers
        have too few others, or "none" (and no check of them) where the model has too few. Not defined where no head
        passes, or the tokenizer lacks the words of the pattern task; inconclusive, without checks, where no head passes
        and some could not be tested.

    Raises:
        TypeError: passages, a pattern or translations of another type.
        Refused: no heads, heads that the model does not have, prompts without a control or labels, k below 1, fewer
            than 2 controls.

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
    scores, why = _scores(model, literal, lines, spoken, seed, progress)
    copies = copies_without(model, literal, chosen, controls, seed, progress)
    details = xr.merge([by_behaviour(scores, chosen, seed), copies])
    attrs = {
        "heads": " ".join(map(str, chosen)), "translation": why or "in the languages given", "seed": seed,
        "unit": "probability; losses in nats", **copies.attrs, **describe(model),
    }  # fmt: skip
    return judge(GENERALITY, _checks(details, controls, seed), details, attrs=attrs)


def _scores(
    model: Model, literal: Prompts, lines: Prompts, spoken: Sequence[Translation], seed: int, progress: bool
) -> tuple[dict[str, xr.Dataset], str]:
    """Behaviour -> its scores of all heads, and why translation is left out ("" where it is not)."""
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
    return scores, why


def _repeats(model: Model, seed: int) -> Prompts:
    return repeated_tokens(model, repeats=4, prompts=16, seed=seed)


def _chosen(model: Model, heads: Any, k: int, seed: int, progress: bool) -> list[Head] | xr.Dataset:
    """The heads to test; where none are given and none passes, the verdict that follows."""
    if heads is None:
        summary = summarise(prefix_matching(model, _repeats(model, seed), progress=progress))
        tested = summary["tested"]
        if found := top_heads(summary, k, passing=True) if tested.any() else []:
            return found
        none = "no head's prefix matching passes"
        if tested.all():
            return not_defined(GENERALITY, f"{none}: there is no induction head")
        why = (
            f"{int((~tested).sum())} of {tested.size} heads could not be tested: {summary['untested'].item()}"
        )
        return inconclusive(GENERALITY, f"{none}, but {why}")
    size = sizes(model)
    return some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)


def _checks(found: xr.Dataset, controls: int, seed: int) -> list[Check]:
    n = found.sizes["passage"]
    lost = _with_ends(found, "share_lost")
    checks = [
        Check("share of the second copy's benefit lost without the heads", *lost, LOST, n=n, of="passages")
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
            rest = f"{name}: the same minus that of all other heads"
            checks.append(Check(title, *_with_ends(of, "chosen_excess"), MARGIN, **counted))
            checks.append(Check(rest, *_with_ends(of, "contrast"), 0.0, **counted))
    return checks


def _with_ends(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    """A number with the ends of its interval."""
    value, low, high = (float(found[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


def _run(inputs: Inputs) -> xr.Dataset:
    return generality(inputs.model, passages=inputs.passages, seed=inputs.seed, progress=inputs.progress)


def _draw(found: SixArguments, result: xr.Dataset) -> Iterator[Part]:
    if not result.sizes["check"]:
        return
    yield (
        f"Heads chosen on repeated random tokens: {result.attrs['heads']}. The maps show the attention of every head "
        "in each task, and how its weights copy; a white dot marks heads above the threshold of that behaviour. "
        f"Translation: {result.attrs['translation']}."
    )
    maps = summaries(result)
    yield [
        head_map(maps.sel(scorer=name), title=f"{escape(found.model)}: {in_words(name)}")
        for name in maps["scorer"].values.tolist()
    ]


GENERALITY = Argument(
    name="generality",
    title="4 Generality",
    claim="the heads that copy literally also match abstract patterns and follow translations",
    paper=(
        "In the paper heads that copy literally also attend to the right word in a translation, and to the labels of "
        "earlier lines of the same category in an abstract pattern. The paper counts this as plausibility, and has it "
        "for large models only."
    ),
    limits=(
        "Attention is not effect: in patterns and translations the attention of heads is read, and no head is removed. "
        "The tasks are few and simple."
    ),
    primary=OF_LABELS,
    run=_run,
    draw=_draw,
    source="Olsson et al. 2022",
)

"""Accuracy with similar demonstrations, other label words, changed inputs and reordered demonstrations.

Han et al. 2025, section 4.2: a kernel vote gains from demonstrations similar to the query, follows the label words as
they are written, and loses where inputs leave the demonstrations' distribution. The order of demonstrations cannot
matter to it, so effects of order are beyond it. Each function runs the same queries under several conditions and
compares them query by query. No heads are examined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed, is_whole
from ..data._episodes import Episodes, draw_episodes, own_texts
from ..data._labelled import LabelledTexts
from ..data._likeness import Embed, by_likeness, similarities
from ..errors import Refused
from ..model._anatomy import Model
from ..stats._shares import mean_share_interval
from ._conditions import Perturb, compared_conditions, misspelt, perturbed, rare_words

__all__ = ["input_shift_effect", "label_format_effect", "order_effect", "retrieval_effect"]


def retrieval_effect(
    model: Model,
    pool: LabelledTexts,
    queries: LabelledTexts,
    *,
    shots: int = 8,
    embed: Embed | None = None,
    template: str | None = None,
    separator: str = "\n",
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Accuracy with the demonstrations most similar to each query, with random ones, and with the least similar.

    In every condition the most similar demonstration comes last. Classes are not balanced: `own_class` gives the share
    of demonstrations of the query's class, which similar demonstrations have more often.

    Args:
        model: any TransformerLens model with a tokenizer.
        pool: the texts that demonstrations are drawn from.
        queries: the texts to classify.
        shots: demonstrations per prompt.
        embed: `texts -> [text, d]`; similarity is the cosine. None for TF-IDF, fitted on the pool.
        template: how an example is written; None for the pool's.
        separator: text between demonstrations.
        seed: of random demonstrations, of ties, and of the bootstrap.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset over `condition` ("random", with which the others are compared, "nearest", "farthest") and `prompt`.
        As in all functions here: `correct[condition, prompt]` (0 or 1, NaN where the class is not known),
        `prediction[condition, prompt]`, `log_probability[condition, prompt, label]` (nats); by condition `accuracy`,
        `difference` (its accuracy minus the first condition's) and `agreement` (share of queries predicted as in the
        first condition), each with `_low` and `_high` (95%: Wilson; for the difference, Bonett & Price 2012). Here also
        `similarity[condition, prompt]` (mean cosine of the demonstrations with the query) and
        `own_class[condition, prompt]` (share).

    Raises:
        TypeError: as `draw_episodes`.
        Refused: as `draw_episodes`.

    Source: Han et al. 2025, section 4.2.
    """
    options: dict[str, Any] = {"shots": shots, "template": template, "separator": separator, "seed": seed}
    drawn = draw_episodes(pool, queries, sampling="random", **options)
    likeness, own = similarities(queries.texts, pool.texts, embed), own_texts(queries, pool)
    rng = np.random.default_rng(checked_seed(seed))
    order = by_likeness(np.take_along_axis(likeness, drawn.shown, 1), rng)
    chosen = {
        "random": np.take_along_axis(drawn.shown, order, 1),
        "nearest": by_likeness(np.where(own, -np.inf, likeness), rng)[:, -shots:],
        "farthest": by_likeness(np.where(own, np.inf, likeness), rng)[:, :shots],
    }
    episodes = {
        key: replace(drawn, shown=shown, classes=pool.classes[shown]) for key, shown in chosen.items()
    }
    out = compared_conditions(model, episodes, "retrieval_effect", seed, batch_size, progress=progress)
    similar = [np.take_along_axis(likeness, shown, 1).mean(1) for shown in chosen.values()]
    same = [(each.classes == queries.classes[:, None]).mean(1) for each in episodes.values()]
    dims = ("condition", "prompt")
    return out.assign(similarity=(dims, np.stack(similar)), own_class=(dims, np.stack(same)))


def label_format_effect(
    model: Model,
    episodes: Episodes,
    *,
    formats: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Accuracy, and agreement with the original predictions, under other label words.

    Args:
        model: any TransformerLens model with a tokenizer.
        episodes: what `draw_episodes` returned.
        formats: name -> label words, one per class. None for "upper case", "capital", "letters" (A, B, ...) and
            "swapped" (every class gets the next one's word).
        seed: of the bootstrap.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset as of `retrieval_effect`, with conditions "original" and the formats. Predictions are classes, so with
        swapped words it is correct to follow the demonstrations. Coordinate `words[condition, label]`.

    Raises:
        TypeError: not episodes.
        Refused: too few words, or words that this tokenizer cannot tell apart.

    Source: Han et al. 2025, section 4.2.
    """
    _check(episodes)
    labels = episodes.pool.labels
    if formats is None:
        formats = {
            "upper case": [label.upper() for label in labels],
            "capital": [label.capitalize() for label in labels],
            "letters": [chr(ord("A") + i) for i in range(len(labels))],
            "swapped": [*labels[1:], labels[0]],
        }
    words = {"original": list(labels)} | {key: list(each) for key, each in formats.items()}
    relabelled = {key: episodes.relabelled(each) for key, each in words.items()}
    for key, each in relabelled.items():
        _usable(model, key, each)
    out = compared_conditions(model, relabelled, "label_format_effect", seed, batch_size, progress=progress)
    return out.assign_coords(words=(("condition", "label"), np.array(list(words.values()))))


def input_shift_effect(
    model: Model,
    episodes: Episodes,
    *,
    shift: str | Perturb = "typos",
    shares: Sequence[float] = (0.25, 0.5, 1.0),
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Accuracy when a share of the words of every query is misspelt or replaced by rare words.

    The demonstrations are not changed. A larger share includes the words of a smaller one.

    Args:
        model: any TransformerLens model with a tokenizer.
        episodes: what `draw_episodes` returned.
        shift: "typos" (one error per word), "rare words" (from the rarest of the pool, whatever they mean), or a
            function `(word, numpy generator) -> word`.
        shares: shares of the words that are changed, above 0 and up to 1.
        seed: of the changes and of the bootstrap.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset as of `retrieval_effect`, with conditions "as they are" and the shares ("25%"), and the coordinate
        `share[condition]`.

    Raises:
        TypeError: not episodes.
        Refused: an unknown shift, shares out of range.

    Source: Han et al. 2025, section 4.2 (their rare words kept the meaning).
    """
    _check(episodes)
    if len(shares) == 0 or not all(0 < share <= 1 for share in shares) or len({*shares}) < len(shares):
        raise Refused(f"wanted shares of the words above 0 and up to 1, each once, got {list(shares)}")
    known: dict[str, Callable[[], Perturb]] = {
        "typos": lambda: misspelt, "rare words": lambda: rare_words(episodes.pool.texts)
    }  # fmt: skip
    if not callable(shift) and shift not in known:
        raise Refused(f"wanted shift in {list(known)} or a function of word and generator, got {shift!r}")
    perturb = shift if callable(shift) else known[shift]()

    def shifted(share: float) -> Episodes:
        texts = [
            perturbed(text, perturb, share, np.random.default_rng((checked_seed(seed), i)))
            for i, text in enumerate(episodes.queries.texts)
        ]
        return replace(episodes, queries=replace(episodes.queries, texts=tuple(texts)))

    conditions = {"as they are": episodes} | {f"{share:.0%}": shifted(share) for share in shares}
    out = compared_conditions(model, conditions, "input_shift_effect", seed, batch_size, progress=progress)
    return out.assign_coords(share=("condition", [0.0, *shares]))


def order_effect(
    model: Model,
    episodes: Episodes,
    *,
    orders: int = 8,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How often the prediction changes when the same demonstrations come in another order.

    A vote whose kernel weights depend on the texts alone does not depend on their order: it explains no such change.

    Args:
        model: any TransformerLens model with a tokenizer.
        episodes: what `draw_episodes` returned, with at least two demonstrations per prompt.
        orders: how many orders, including the one drawn; at least 2.
        seed: of the orders and of the bootstrap.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset as of `retrieval_effect`, with conditions "as drawn", "order 1", ...; `changed[prompt]`, the share of
        pairs of orders whose predictions differ (0 to 1), and its mean `change` with `change_low` and `change_high`;
        `accuracy_mean` and `accuracy_spread`, mean and standard deviation of the accuracy over orders.

    Raises:
        TypeError: not episodes.
        Refused: fewer than two orders, or prompts of one demonstration.

    Source: Han et al. 2025, section 4.2; Lu et al. 2022 (order sensitivity).
    """
    _check(episodes)
    if not is_whole(orders) or orders < 2:
        raise Refused(f"wanted orders >= 2, to compare them with one another, got {orders!r}")
    if episodes.shown.shape[1] < 2:
        raise Refused("wanted at least two demonstrations per prompt, got one: draw episodes with more shots")
    seed, conditions = checked_seed(seed), {"as drawn": episodes}
    conditions |= {f"order {i}": episodes.shuffled(seed=seed + i) for i in range(1, orders)}
    out = compared_conditions(model, conditions, "order_effect", seed, batch_size, progress=progress)
    predictions = out["prediction"].values
    changed = np.mean([predictions[a] != predictions[b] for a, b in combinations(range(orders), 2)], axis=0)
    low, high = mean_share_interval(changed, seed=seed)
    return out.assign(
        changed=("prompt", changed),
        change=changed.mean(),
        change_low=low,
        change_high=high,
        accuracy_mean=out["accuracy"].mean(),
        accuracy_spread=out["accuracy"].std(ddof=1),
    )


def _check(episodes: Any) -> None:
    if not isinstance(episodes, Episodes):
        raise TypeError(f"wanted Episodes, as draw_episodes returns them, got {type(episodes).__name__}")


def _usable(model: Model, name: str, episodes: Episodes) -> None:
    """Raises Refused, with the name of the format, if its label words cannot be told apart."""
    try:
        episodes.prompts(model)
    except Refused as error:
        raise Refused(f"format {name!r} with labels {list(episodes.pool.labels)}: {error}") from error

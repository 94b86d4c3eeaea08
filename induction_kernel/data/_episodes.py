"""`Episodes`: the demonstrations of each query, drawn from labelled texts: balanced, at random, or most similar.

Source: Han et al. 2025, section 5 (prompts of demonstrations and a query), section 4.2 (similar demonstrations help).
Episodes are text; `Episodes.prompts` makes tokens of them for a model, by `few_shot_prompts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..model._anatomy import Model
from ..prompts._prompts import FewShotPrompts
from ..prompts._template import Template
from ._labelled import LabelledTexts
from ._likeness import Embed, by_likeness, similarities
from ._written import few_shot_of

__all__ = ["Episodes", "draw_episodes", "own_texts"]

QUERIES = 16  # of a set of shared demonstrations
SAMPLING = ("balanced", "random", "nearest")


@dataclass(frozen=True, eq=False, repr=False)
class Episodes:
    """Queries and the labelled demonstrations before each, as text; `draw_episodes` makes them.

    `len(episodes)` is the number of queries, and `episodes[index]` some of them.

    Attributes:
        queries: the texts to classify, one per prompt.
        pool: the texts that demonstrations are drawn from.
        shown: int64 `[prompt, demonstration]`, indices of the demonstrations in the pool, in the order of the prompt.
        classes: int64 `[prompt, demonstration]`, the class whose word is written as the label: the text's own unless
            labels are permuted.
        template: how an example is written, as in `few_shot_prompts`.
        separator: the text between demonstrations, and before the query.

    Raises:
        Refused: shapes that do not fit each other, indices out of range, different labels, a template without `{x}` and
            `{y}`.
    """

    queries: LabelledTexts
    pool: LabelledTexts
    shown: np.ndarray
    classes: np.ndarray
    template: str
    separator: str = "\n"

    def __post_init__(self) -> None:
        Template.parse(self.template, self.separator)
        if self.queries.labels != self.pool.labels:
            raise Refused(
                f"wanted queries and demonstrations with the same labels, got {list(self.queries.labels)} and "
                f"{list(self.pool.labels)}"
            )
        if self.shown.ndim != 2 or len(self.shown) != len(self.queries) or self.shown.size == 0:
            raise Refused(f"wanted shown [{len(self.queries)}, demonstration], got {list(self.shown.shape)}")
        if self.classes.shape != self.shown.shape:
            raise Refused(f"wanted classes {list(self.shown.shape)}, got {list(self.classes.shape)}")
        for what, index, n in (("shown", self.shown, self.pool), ("classes", self.classes, self.pool.labels)):
            if index.min() < 0 or index.max() >= len(n):
                raise Refused(f"wanted {what} from 0 to {len(n) - 1}, got {index.min()} to {index.max()}")

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Episodes:
        """Some of the queries with their demonstrations: a slice, indices or a bool mask."""
        at = index if isinstance(index, slice) else np.asarray(index)
        return replace(self, queries=self.queries[index], shown=self.shown[at], classes=self.classes[at])

    def __repr__(self) -> str:
        name = self.queries.name or "unnamed"
        shots = self.shown.shape[1]
        return f"Episodes({name}: {len(self)} queries, {shots} demonstrations each out of {len(self.pool)})"

    def prompts(self, model: Model) -> FewShotPrompts:
        """Few-shot prompts for this model, one per query, in order.

        A label may occur in no demonstration, as those of `word_pairs` do.

        Args:
            model: gives the tokenizer.

        Raises:
            Refused: as in `few_shot_prompts`: labels that share their first token, a prompt longer than the context.
            NotDefined: no tokenizer, or a slow one.
        """
        texts = self.pool.texts
        shots = [
            [(texts[i], int(y)) for i, y in zip(shown, classes, strict=True)]
            for shown, classes in zip(self.shown, self.classes, strict=True)
        ]
        asked = [(x, int(y)) for x, y in zip(self.queries.texts, self.queries.classes, strict=True)]
        return few_shot_of(
            model, shots, asked, template=self.template, labels=self.pool.labels, separator=self.separator
        )

    def shuffled(self, seed: int = 0) -> Episodes:
        """The same episodes with the demonstrations of every query, and their labels, in another random order."""
        order = np.random.default_rng(checked_seed(seed)).permuted(_ranks(self.shown), axis=1)
        return replace(
            self,
            shown=np.take_along_axis(self.shown, order, 1),
            classes=np.take_along_axis(self.classes, order, 1),
        )

    def permuted(self, seed: int = 0) -> Episodes:
        """The same episodes with the labels permuted at random among each query's demonstrations."""
        return replace(self, classes=np.random.default_rng(checked_seed(seed)).permuted(self.classes, axis=1))

    def relabelled(self, labels: Sequence[str]) -> Episodes:
        """The same episodes with other label words, in the order of the classes.

        Raises:
            TypeError: not a list of words.
            Refused: another number of words than of classes, or one that occurs twice.
        """
        return replace(self, queries=self.queries.relabelled(labels), pool=self.pool.relabelled(labels))


def draw_episodes(
    pool: LabelledTexts,
    queries: LabelledTexts,
    *,
    shots: int = 8,
    sampling: str = "balanced",
    embed: Embed | None = None,
    template: str | None = None,
    separator: str = "\n",
    shared: bool | int = False,
    seed: int = 0,
) -> Episodes:
    """Draw the demonstrations of every query from a pool of labelled texts, never the query's own text.

    Args:
        pool: the texts that demonstrations are drawn from.
        queries: the texts to classify.
        shots: number of demonstrations per query.
        sampling: "balanced": classes as equally frequent as the texts allow (which ones get one more is random), in
            random order; "random": any texts; "nearest": those most similar to the query, of any class, the most
            similar one last (ties in random order).
        embed: for "nearest", a function `texts -> [text, d]`; similarity is the cosine. None for TF-IDF, fitted on the
            pool.
        template: how an example is written, as in `few_shot_prompts`; None for the pool's template.
        separator: the text between demonstrations, and before the query.
        shared: True to draw demonstrations for sets of about 16 queries (or of another number) chosen at random, none
            of whose texts is shown. `predict` and `few_shot_study` run shared demonstrations once, three times as fast.
            Queries of a set are not independent: a mean over them is less certain than over as many queries with
            demonstrations of their own (see `FewShotPrompts.sets`).
        seed: of the random draw.

    Returns:
        `Episodes`, with the queries in their order. `.prompts(model)` makes few-shot prompts of them.

    Raises:
        TypeError: not `LabelledTexts`.
        Refused: different labels, a pool of one class, more shots than texts, an unknown sampling, `embed` without
            "nearest", `shared` with "nearest" or below 2, an embedding that is not finite or not `[text, d]`.

    Warns:
        UserWarning: queries whose text is also in the pool; it is left out of their own demonstrations.

    Source: Han et al. 2025, sections 4.2 and 5.
    """
    _check(pool, queries, shots, sampling, embed)
    size = _size_of_sets(shared, sampling)
    own = own_texts(queries, pool)
    if found := int(own.any(1).sum()):
        left_out = "own prompt" if size == 1 else "set of prompts"
        warnings.warn(
            f"{found} of {len(queries)} queries are also in the pool of demonstrations: they are left out of their "
            f"{left_out}",
            UserWarning,
            stacklevel=2,
        )
    rng = np.random.default_rng(checked_seed(seed))
    order = np.arange(len(queries)) if size == 1 else rng.permutation(len(queries))
    sets = np.array_split(order, -(-len(queries) // size))
    for members in sets:
        own[members] = own[members].any(0)
    n_other = len(pool) - own.sum(1)
    if shots > n_other.min():
        whose = "the query's own" if size == 1 else "those of a set's queries"
        raise Refused(
            f"wanted shots up to {n_other.min()}, the number of texts in the pool without {whose}, got {shots}"
        )
    if sampling == "nearest":
        likeness = np.where(own, -np.inf, similarities(queries.texts, pool.texts, embed))
        shown = by_likeness(likeness, rng)[:, -shots:]
    else:
        shown = np.empty((len(queries), shots), dtype=np.int64)
        for members in sets:
            shown[members] = _drawn(pool.classes, ~own[members[0]], shots, sampling, rng)
    return Episodes(
        queries, pool, shown, pool.classes[shown], pool.template if template is None else template, separator
    )


def own_texts(queries: LabelledTexts, pool: LabelledTexts) -> np.ndarray:
    """Whether a text of the pool is the query's own text, bool `[query, text]`."""
    number = {text: i for i, text in enumerate(dict.fromkeys(text.strip() for text in pool.texts))}
    of_pool = np.array([number[text.strip()] for text in pool.texts])
    of_query = np.array([number.get(text.strip(), -1) for text in queries.texts])
    return of_query[:, None] == of_pool


def _size_of_sets(shared: Any, sampling: str) -> int:
    """The number of queries that have the same demonstrations."""
    if shared is False:
        return 1
    if sampling == "nearest":
        raise Refused(
            'shared= is for demonstrations drawn at random, got sampling="nearest", which asks for each query'
        )
    if shared is not True and (not is_whole(shared) or shared < 2):
        raise Refused(f"wanted shared as True, False or at least 2 queries for each set, got {shared!r}")
    return QUERIES if shared is True else int(shared)


def _drawn(classes: np.ndarray, free: np.ndarray, shots: int, sampling: str, rng: Any) -> np.ndarray:
    """Indices in the pool of one query's demonstrations, in random order; only `free` texts are drawn."""
    order = rng.permutation(np.flatnonzero(free))
    if sampling == "random":
        return order[:shots]
    # First one text of every class, then a second one of every class, and so on: numbers as equal as possible.
    first = rng.permutation(classes.max() + 1)  # which classes come first in each round
    rank = np.empty(len(order), dtype=np.int64)
    for y in np.unique(classes[order]):
        here = classes[order] == y
        rank[here] = np.arange(here.sum())
    chosen = order[np.lexsort((first[classes[order]], rank))[:shots]]
    return rng.permutation(chosen)


def _ranks(shown: np.ndarray) -> np.ndarray:
    """The place of every demonstration in its prompt, `[prompt, demonstration]`."""
    return np.broadcast_to(np.arange(shown.shape[1]), shown.shape)


def _check(pool: Any, queries: Any, shots: Any, sampling: Any, embed: Any) -> None:
    """Raise TypeError or Refused unless the arguments of `draw_episodes` fit each other."""
    for what, given in (("pool", pool), ("queries", queries)):
        if not isinstance(given, LabelledTexts):
            raise TypeError(
                f"wanted {what} as LabelledTexts, of load_classification(...), got {type(given).__name__}"
            )
    if pool.labels != queries.labels:
        raise Refused(
            f"wanted queries and demonstrations with the same labels, got {list(queries.labels)} and "
            f"{list(pool.labels)}"
        )
    if len(np.unique(pool.classes)) < 2:
        only = pool.labels[pool.classes[0]]
        raise Refused(f"wanted demonstrations of at least two classes, got {only!r} alone in the pool")
    if sampling not in SAMPLING:
        raise Refused(f"wanted sampling in {list(SAMPLING)}, got {sampling!r}")
    if embed is not None and sampling != "nearest":
        raise Refused(f'embed= is for sampling="nearest", got sampling={sampling!r}')
    if not is_whole(shots) or shots < 1:
        raise Refused(f"wanted shots >= 1, got {shots!r}")

"""The few-shot study: every measurement of kernel regression over demonstrations, on one set of prompts.

After Han et al. 2025, section 5: the model's predictions, the vote of every head and of every layer's sum of heads, the
held-out table with its controls (5.5), the last token's attention over the prompt (5.1), and how heads align with the
similarity of next-token distributions (5.3). Each measurement has a function of its own; the study makes them together.
`report` draws it; `label_knock_out` tests what happens without heads' attention to labels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from .._given import is_whole
from ..attention_explorer._in_passes import PromptsInPasses
from ..attention_explorer._shown import Shown
from ..data._episodes import Episodes, draw_episodes
from ..data._labelled import LabelledTexts
from ..errors import NotDefined, Refused
from ..heads._names import Head
from ..kernel._alignment import kernel_alignment
from ..kernel._held_out import held_out
from ..kernel._label_logits import LabelWriting
from ..kernel._next_token import next_token_similarity
from ..kernel._prompt_attention import AttentionAlong
from ..kernel._reconstruction import sum_heads, vote
from ..kernel._regression import kernel_regression
from ..kernel._representations import representations
from ..kernel._vote_text import texts_of
from ..model._anatomy import Model, sizes
from ..model._outputs import check_words
from ..prompts._conversion import few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts
from ..prompts._word_task import word_episodes
from ..replay._lane_record import Way, not_used
from ..scorers._labels import label_attention
from ._predictions import answered, asked

__all__ = ["FewShotStudy", "few_shot_study", "label_peak"]

FEWEST = 8  # fewest queries
WHY = "attention is read with the predictions, whose passes have whole patterns"
POINTS = 30  # positions that each part of a prompt is resampled to
MAPPED = 64  # prompts over which attention along the prompt, and what heads write, is averaged
TEXTS = {"TF-IDF kernel": "tfidf", "embedding kernel": "embedding"}


@dataclass(frozen=True, eq=False, repr=False)
class FewShotStudy:
    """The results of `few_shot_study`.

    Attributes:
        prompts: the few-shot prompts.
        answers: what `predict` returns: predictions, accuracy, and weights pooled by maximum (as in the paper) and by
            label token.
        heads: what `vote` returns for every head.
        sums: what `vote` returns for the sum of each layer's heads.
        table: what `held_out` returns: heads chosen on 70% of the prompts and scored on the others, and controls.
        alignment: what `kernel_alignment` returns for the similarity of next-token distributions; None for given
            prompts with unequal numbers of demonstrations, or with queries of unknown class.
        along: what `demonstration_attention` returns.
        shown: the first prompts with all heads' attention, for the page that `report` writes; none where one prompt's
            patterns take more than 256 MB.
    """

    prompts: FewShotPrompts
    answers: xr.Dataset
    heads: xr.Dataset
    sums: xr.Dataset
    table: xr.Dataset
    alignment: xr.Dataset | None
    along: xr.Dataset
    shown: tuple[Shown, ...]

    def datasets(self) -> dict[str, xr.Dataset]:
        """Name -> Dataset, of all that are not None: for files, `xarray.DataTree.from_dict(study.datasets())`."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each for name, each in named.items() if isinstance(each, xr.Dataset)}

    def __repr__(self) -> str:
        best = self.table.sel({"row": "best head"})
        return (
            f"FewShotStudy({self.answers.attrs['model']}, {len(self.prompts)} prompts: accuracy "
            f"{float(self.answers['accuracy']):.2f}, held-out agreement of one head {float(best['agreement']):.2f})"
        )


def few_shot_study(
    model: Model,
    data: LabelledTexts | Episodes | Prompts | None = None,
    *,
    pool: LabelledTexts | None = None,
    queries: int = 200,
    shots: int = 8,
    template: str | None = None,
    span: str = "demonstration",
    splits: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> FewShotStudy:
    """Measure a model's few-shot predictions, and heads as kernel regressions, on one labelled data set.

    Args:
        model: any TransformerLens model with a tokenizer.
        data: labelled texts, from which queries are drawn; or `Episodes` or few-shot prompts, used as they are; None
            for `word_episodes(model, classes=4, noise=0.3)`.
        pool: the texts that demonstrations are drawn from; None for the texts of `data` that are not queries.
        queries: how many of the data's texts are queries, drawn at random (or how many word episodes are made).
        shots: demonstrations per prompt, with classes as balanced as possible.
        template: how an example is written; None for the data's.
        span: which tokens weights are pooled over, with the template's words ("demonstration") or without ("words"):
            see `demonstration_weights`.
        splits: how many splits of the prompts into 70% to choose heads on and 30% to score them on, as in the paper.
        seed: of all random draws.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show progress bars if it takes longer than two seconds.

    Returns:
        A `FewShotStudy` of Datasets. Its table also has kernel regression on TF-IDF vectors and on the model's token
        embeddings (exponential kernel, bandwidth by leave-one-out), unless `alignment` is None.

    Raises:
        TypeError: data of another type.
        Refused: fewer than 8 queries, too few texts for queries and demonstrations, what `draw_episodes`,
            `few_shot_prompts` and `held_out` refuse.

    Source: Han et al. 2025, sections 5.1 to 5.3 and 5.5.
    """
    if not is_whole(queries) or queries < FEWEST:
        raise Refused(
            f"wanted at least {FEWEST} queries, some to choose heads on and others to score them on, got {queries!r}"
        )
    if not isinstance(data, LabelledTexts) and (pool is not None or template is not None):
        raise Refused(
            f"pool= and template= go with LabelledTexts, got {'no data' if data is None else type(data).__name__}: "
            "leave them out (words, episodes and prompts have their own)"
        )
    episodes = _episodes(model, data, pool, queries, shots, template, seed)
    check_words(model, "few_shot_study")
    prompts, texts = asked(model, episodes)
    episodes = _as_episodes(episodes) if isinstance(episodes, Prompts) else episodes
    ways: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    answers, along, writes, shown = _in_one_pass(model, prompts, texts, span, ways)
    weights = answers.sel(pooling="max")
    others, alignment = _kernels(model, episodes, weights, seed, ways)
    return FewShotStudy(
        prompts,
        answers,
        heads=vote(weights, prompts, answers, seed=seed),
        sums=vote(sum_heads(weights), prompts, answers, seed=seed),
        table=held_out(weights, answers, others=others, writes=writes, splits=splits, seed=seed),
        alignment=alignment,
        along=along,
        shown=shown,
    )


def _kernels(
    model: Model, episodes: Episodes | None, weights: xr.Dataset, seed: int, ways: dict[str, Any]
) -> tuple[dict[str, xr.Dataset], xr.Dataset | None]:
    """Kernel regressions by name, and the alignment of heads with next-token similarity; none without episodes."""
    if episodes is None:
        return {}, None
    found = {}
    for name, what in TEXTS.items():
        found[name] = kernel_regression(representations(model, episodes, what, **ways))
    return found, kernel_alignment(weights, next_token_similarity(model, episodes, **ways), seed=seed)


def label_peak(answers: xr.Dataset) -> tuple[int, float, Head, float]:
    """Where the last token's attention to labels is largest: the layer with its heads' mean, and the head with its own.

    The attention to the first tokens of all labels, averaged over prompts; `answers` is what
    `predict(..., pooling=("label", ...))` returned.
    """
    mass = (
        answers["weight"].sel(pooling="label").sum("demonstration").mean("prompt").transpose("layer", "head")
    )
    of_layer = mass.mean("head").values
    layer, (at, head) = int(of_layer.argmax()), np.unravel_index(int(mass.values.argmax()), mass.shape)
    named = Head(int(mass["layer"].values[at]), int(mass["head"].values[head]))
    return int(mass["layer"].values[layer]), float(of_layer[layer]), named, float(mass.values[at, head])


def _episodes(
    model: Model, data: Any, pool: Any, queries: int, shots: int, template: str | None, seed: int
) -> Episodes | FewShotPrompts:
    """Queries with their demonstrations; episodes and prompts as they are."""
    if data is None:
        return word_episodes(model, prompts=queries, shots=shots, classes=4, noise=0.3, seed=seed)
    if not isinstance(data, LabelledTexts):
        return data
    if len(data) > queries or pool is None:
        data, rest = data.split(queries, seed=seed)
        pool = rest if pool is None else pool
    return draw_episodes(pool, data, shots=shots, template=template, seed=seed)


def _as_episodes(prompts: Prompts) -> Episodes | None:
    """The texts of given prompts as episodes; None where classes are unknown or numbers of demonstrations differ."""
    prompts = few_shot_only(prompts)
    found = prompts.demonstrations
    if not bool(found.mask.all()) or bool((found.target < 0).any()):
        return None
    texts, queries = texts_of(prompts)
    classes = found.classes.numpy()
    asked = LabelledTexts(tuple(queries.tolist()), found.target.numpy(), found.labels)
    pool = LabelledTexts(tuple(texts.ravel().tolist()), classes.ravel(), found.labels)
    return Episodes(asked, pool, np.arange(texts.size).reshape(texts.shape), classes, pool.template)


def _in_one_pass(
    model: Model, prompts: FewShotPrompts, texts: list[str], span: str, ways: dict[str, Any]
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset | None, tuple[Shown, ...]]:
    """Predictions with weights; of the first prompts, attention along them, what heads write about labels, patterns.

    The third is None in a model whose attention output is changed before it is added to the residual stream.
    """
    first = label_attention.ready(model, prompts[:MAPPED])
    along = AttentionAlong(model, first, POINTS, list(range(sizes(model).n_layers)))
    try:
        writes = LabelWriting(model, first)
    except NotDefined:
        writes = None
    seen = PromptsInPasses(model, prompts)
    also = [along, seen, *([] if writes is None else [writes])]
    answers = answered(model, prompts, texts, pooling=("max", "label"), span=span, also=also, **ways)
    return (
        answers,
        along.dataset(Way("patterns", not_used("entries", WHY))),
        None if writes is None else writes.dataset(),
        seen.shown(answers, texts_of(prompts)[1].tolist()),
    )

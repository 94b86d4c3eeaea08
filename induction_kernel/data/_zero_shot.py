"""`zero_shot`: the queries of a task alone, as prompts with their right answers, for function vectors.

A query is written as in few-shot prompts, up to its label, with no demonstration before it (Todd et al. 2024, section
3.1).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..model._anatomy import Model
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts
from ..prompts._template import Template
from ._episodes import Episodes
from ._labelled import LabelledTexts
from ._written import few_shot_of

__all__ = ["zero_shot"]


def zero_shot(
    model: Model,
    queries: LabelledTexts | Episodes,
    *,
    template: str | None = None,
    separator: str | None = None,
) -> Prompts:
    """Prompts of queries without demonstrations: "Q: big", "A:".

    Args:
        model: gives the tokenizer.
        queries: the texts, or episodes, of which the queries are taken and the demonstrations left out.
        template: how an example is written, as in `few_shot_prompts`; None for that of the texts or episodes.
        separator: the text between demonstrations, of which none is written here: it has to be one that the tokenizer
            knows, since labels are read as few-shot prompts write them; None for that of the episodes, else a line
            break.

    Returns:
        Prompts, one for each text, of which only the last position is scored. `answers` holds the first token of the
        right label and, as the wrong answer, that of the next label in the order of the classes.

    Raises:
        TypeError: neither texts nor episodes.
        Refused: as in `few_shot_prompts`: labels that share their first token, a prompt longer than the context.
        NotDefined: no tokenizer, or a slow one.
    """
    if not isinstance(queries, LabelledTexts | Episodes):
        raise TypeError(
            f"wanted queries as LabelledTexts, of word_pairs(...), or Episodes, got {type(queries).__name__}"
        )
    texts = queries.queries if isinstance(queries, Episodes) else queries
    between = queries.separator if isinstance(queries, Episodes) else "\n"
    written, separator = template or queries.template, between if separator is None else separator
    form = Template.parse(written, separator)
    first = (texts.texts[0], int(texts.classes[0]))
    # Writes every label once, so that their first tokens are checked as in few-shot prompts.
    one = few_shot_of(model, [[first]], [first], template=written, labels=texts.labels, separator=separator)
    ids, right = one.demonstrations.label_ids, torch.from_numpy(texts.classes)
    ready = as_prompts(model, [form.query(x) for x in texts.texts])
    last = torch.arange(ready.tokens.shape[1]) == ready.lengths[:, None] - 1
    answers = torch.stack([ids[right], ids[(right + 1) % len(ids)]], 1)
    return replace(ready, answers=answers, scored=last)

"""Induction, prefix matching, previous token, duplicate token: scorers that are a mask over the pattern.

Definitions: Olsson et al. 2022 (prefix matching), Nanda's induction mosaic (induction). First and current token are in
`_text_scores`. A high attention score does not prove an effect on the output: `interventions` measures that.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from .. import masks
from ..model._anatomy import Model
from ..prompts._prompts import Prompts
from ..prompts._prose import PROSE, RANDOM, ordinary_text, what_is_read
from ..prompts._repeated import random_tokens, repeated_tokens
from ._attention_scorer import AttentionScorer
from ._text_scores import TextScorer

__all__ = ["duplicate_token", "induction", "prefix_matching", "previous_token", "previous_token_on_text"]


def _four_copies(model: Model) -> Prompts:
    return repeated_tokens(model, repeats=4)


def _random(model: Model) -> Prompts:
    return random_tokens(model)


def _said_random(_: Model) -> str:
    return RANDOM


induction: AttentionScorer = AttentionScorer(
    "induction",
    masks.after_latest_copy,
    title="attention to the token after the latest earlier copy of this one",
    paper="Nanda 2022, induction mosaic; Olsson et al. 2022",
    compat={
        "diagonal": AttentionScorer(
            "induction (diagonal)",
            masks.one_lag,
            matched=False,
            every_query=True,
            title="mean of the diagonal at offset 1 - period, two entries too many",
            paper="TransformerLens main demo",
        )
    },
)
"""Induction score: attention to the token after the latest earlier copy of the query token.

Averaged over the queries of later copies. In [0, 1]; a perfect induction head scores 1. `compat="diagonal"` reads
the usual diagonal of `[BOS, r, r]`, on which a perfect head gets about p / (p + 2) at period p. Use it only to compare
with published values.
"""

prefix_matching: AttentionScorer = AttentionScorer(
    "prefix_matching",
    masks.after_all_copies,
    prompts=_four_copies,
    title="attention to the tokens after all earlier copies of this one",
    paper="Olsson et al. 2022, prefix-matching score",
)
"""Prefix-matching score: attention to the tokens after *all* earlier copies of the query token.

Summed over copies, averaged over queries.
In [0, 1]; a perfect head scores 1 at any number of repeats (four by default). Olsson et al. 2022.
"""

previous_token: AttentionScorer = TextScorer(
    "previous_token",
    masks.previous_key,
    prompts=_random,
    source=_said_random,
    skip_first=True,
    title="attention to the previous token",
    paper="Olsson et al. 2022, previous-token score",
)
"""Previous-token score: attention from i to i - 1, averaged over queries, on random tokens by default.

In [0, 1]. The query right after BOS is left out. It scores position, so there is no matched control and the null is
chance. Olsson et al. 2022 score it on text, which ranks heads differently: pass
`prompts.ordinary_text(model)` for that. The attribute `text` says what was read.
"""

duplicate_token: AttentionScorer = AttentionScorer(
    "duplicate_token",
    masks.earlier_copies,
    title="attention to earlier copies of this token",
    paper="Wang et al. 2022, Interpretability in the Wild",
)
"""Duplicate-token score: attention to all earlier copies of the query token. In [0, 1]."""


def previous_token_on_text(model: Model, prompts: Any = None, *, progress: bool = True) -> xr.Dataset:
    """Previous-token scores on text, as in Olsson et al. 2022, for scores that build on previous-token heads.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; None for the shipped prose (`ordinary_text`), or for
            random tokens if the model's tokenizer does not read English.
        progress: a bar if it takes longer than two seconds.

    Returns:
        As of `previous_token`; the attribute `text` is "the prompts given", "shipped prose" or "random tokens".
    """
    # Not the stories of the embedded language: what docs/six_arguments.md says of its families is on random tokens.
    if prompts is not None or what_is_read(model) != PROSE:
        return previous_token(model, prompts, progress=progress)
    return previous_token(model, ordinary_text(model), progress=progress).assign_attrs(text=PROSE)

"""What is logged at every checkpoint of a run: losses in nats and attention scores, on held-back rows.

The rows are the same at every checkpoint and in every run of a recipe. The numbers come from the trainer's own forward
pass, so they are a check of the package's scorers, not a repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._language import episodes
from ._network import Weights, forward, losses
from ._recipe import Recipe
from ._stories import stories
from ._texts import Corpus
from ._vocabulary import BOS, LABELS, VOCABULARY, ordinary_tokens

__all__ = ["scores"]


@torch.no_grad()
def scores(weights: Weights, recipe: Recipe, corpus: Corpus | None = None) -> dict[str, Any]:
    """The entry of the log at one checkpoint, without step and tokens.

    Returns:
        `loss_stories` (of texts: `loss_text`), `icl_score` (late less early band), `loss_first_copy` and
        `loss_second_copy` on `<bos> r r`, `few_shot_accuracy` (language only); by layer and head, `prefix_matching`
        (attention to the token after the earlier copy) and `previous_token` (on the first copy).
    """
    rng = np.random.default_rng(7)
    if corpus is None:
        told = torch.from_numpy(stories(rng, 64, recipe.context))
        shown = episodes(rng, 64, recipe.context, noise=0.0)
        few_shot = {"few_shot_accuracy": _few_shot_accuracy(weights, shown.tokens, shown.classes >= 0)}
        tokens, name = ordinary_tokens(), "loss_stories"
    else:
        told, few_shot = torch.from_numpy(corpus.held_back_rows(recipe.context, 64)), {}
        tokens, name = np.arange(2, recipe.vocabulary), "loss_text"
    told_loss = losses(forward(weights, told)[0], told).mean(0)
    said, period = _repeated(rng, recipe, tokens)
    logits, patterns = forward(weights, said, patterns=True)
    repeat = losses(logits, said).mean(0)
    following = [(query, query - period + 1) for query in range(period + 1, 2 * period + 1)]
    before = [(query, query - 1) for query in range(2, period + 1)]
    early, late = recipe.bands
    return {
        name: _rounded(told_loss.mean()),
        "icl_score": _rounded(told_loss[slice(*late)].mean() - told_loss[slice(*early)].mean()),
        "loss_first_copy": _rounded(repeat[:period].mean()),
        "loss_second_copy": _rounded(repeat[period + 1 : 2 * period].mean()),
        **few_shot,
        "prefix_matching": [_attention(pattern, following, recipe) for pattern in patterns],
        "previous_token": [_attention(pattern, before, recipe) for pattern in patterns],
    }


def _repeated(rng: np.random.Generator, recipe: Recipe, tokens: np.ndarray) -> tuple[Tensor, int]:
    """Rows `<bos> r r` [32, 1 + 2 * period] of distinct tokens, as long as the context and the tokens allow."""
    period = min((recipe.context - 1) // 2, len(tokens))
    segments = np.stack([rng.permutation(tokens)[:period] for _ in range(32)])
    start = np.full((len(segments), 1), VOCABULARY.index(BOS))  # 0 in every vocabulary
    return torch.from_numpy(np.concatenate([start, segments, segments], axis=1)), period


def _attention(pattern: Tensor, entries: Sequence[tuple[int, int]], recipe: Recipe) -> list[float]:
    """Mean attention at (query, key) entries, by head."""
    query, key = torch.tensor(entries).T
    mean = pattern[:, :, query, key].mean((0, 2))
    return [_rounded(mean[head]) for head in range(recipe.heads)]


def _few_shot_accuracy(weights: Weights, tokens: np.ndarray, is_label: np.ndarray) -> float:
    """Share of labels after six or more demonstrations that the model ranks first among all label words."""
    rows, labels = torch.from_numpy(tokens), torch.tensor([VOCABULARY.index(word) for word in LABELS])
    asked = torch.from_numpy(is_label & (is_label.cumsum(1) > 6))[:, 1:]
    likeliest = labels[forward(weights, rows)[0][:, :-1, labels].argmax(-1)]
    return _rounded((likeliest == rows[:, 1:])[asked].float().mean())


def _rounded(value: Tensor) -> float:
    return round(float(value), 4)

"""How similar texts are to queries: cosines of TF-IDF or of another embedding; `_episodes` shows the most similar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import Refused

__all__ = ["Embed", "by_likeness", "similarities", "tfidf"]

Embed = Callable[[Sequence[str]], Any]


def similarities(queries: Sequence[str], texts: Sequence[str], embed: Embed | None = None) -> np.ndarray:
    """Cosine of every query and text, `[query, text]`, by an embedding (None: TF-IDF fitted on the texts)."""
    embed = tfidf(texts) if embed is None else embed
    of_query, of_text = _unit(embed(list(queries)), len(queries)), _unit(embed(list(texts)), len(texts))
    product = of_query @ of_text.T
    return np.asarray(product.todense() if hasattr(product, "todense") else product, dtype=np.float64)


def by_likeness(likeness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices `[query, text]` of each query's texts from the least to the most similar; ties in random order."""
    return np.lexsort((rng.random(likeness.shape), likeness), axis=1)


def tfidf(texts: Sequence[str]) -> Embed:
    """The TF-IDF embedding fitted on these texts: word counts weighted by rarity, as sparse rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(texts).transform  # words of one letter too


def _unit(rows: Any, n: int) -> Any:
    """The embedding of n texts, checked, with rows of length 1."""
    from sklearn.preprocessing import normalize
    from sklearn.utils.validation import check_array

    try:
        rows = check_array(rows, accept_sparse=True, dtype="float64")
    except ValueError as error:
        raise Refused(
            f"wanted an embedding [{n}, d] of finite numbers, one row per text, got: {error}"
        ) from error
    if rows.shape[0] != n:
        raise Refused(f"wanted an embedding [{n}, d], one row per text, got {list(rows.shape)}")
    return normalize(rows)

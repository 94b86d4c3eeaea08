"""`Shown`: one prompt as one model reads it, with thumbnails of all heads and a way to get each pattern whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["FewShot", "OneHead", "Pair", "Shown", "strongest_of"]

PAIRS = 8  # pairs of query and key that are listed for a head
LOOKED_AT = 64  # entries of a head that are looked at for different pairs of tokens

OneHead = tuple[int, np.ndarray, np.ndarray | None]
"""Index of a head (layer * heads + head), its pattern `[query, key]`, the norms of its values `[key]` or None."""

Pair = tuple[float, int, int, float]
"""What pairs are ranked by, query, key, weight."""


@dataclass(frozen=True, eq=False)
class FewShot:
    """The demonstrations of a few-shot prompt, and what each head gives them.

    Attributes:
        demonstrations: `[demonstration, 4]`: first token, one past the last, the label's first token, class.
        labels: the label words by class.
        target: class of the query, -1 where it is not known.
        weights: `[head, demonstration]`, the last token's largest attention to a token of each demonstration.
        answer: the class that the model answers, -1 where it is not known.
    """

    demonstrations: np.ndarray
    labels: tuple[str, ...]
    target: int
    weights: np.ndarray
    answer: int = -1


@dataclass(frozen=True, eq=False)
class Shown:
    """One prompt as one model reads it.

    Attributes:
        name: what it is called in the menu of prompts.
        tokens: its tokens as strings.
        special: positions of special tokens.
        thumbnails: uint8 `[head, side, side]`, of every head of the grid; 0 where a head is absent.
        strongest: for each head its pairs of query and key, strongest first.
        patterns: a function of head indices that gives each one's pattern, in order of the layers.
        ahead: whether any query attends to a later token.
        norms: whether `patterns` gives norms of values.
        few_shot: the demonstrations, if it has some.
        n_bytes: what is kept in memory to compute patterns again.
    """

    name: str
    tokens: tuple[str, ...]
    special: tuple[int, ...]
    thumbnails: np.ndarray
    strongest: Sequence[Sequence[Pair]]
    patterns: Callable[[Sequence[int]], Iterator[OneHead]] = field(repr=False)
    ahead: bool = False
    norms: bool = False
    few_shot: FewShot | None = None
    n_bytes: int = 0


def strongest_of(pattern: np.ndarray, norms: np.ndarray | None, tokens: tuple[str, ...]) -> list[Pair]:
    """A head's strongest pairs of query and key, at most one for each two token strings.

    They are ranked by the weight times the norm of what the key's value writes, or by the weight where there are no
    norms. The first token is left out: as a query it can attend to itself alone, and as a key most heads rest on it.
    """
    product = pattern[1:, 1:] if norms is None else pattern[1:, 1:] * norms[1:]
    rows = _largest(product.max(1, initial=0), LOOKED_AT)  # the largest entries lie in these
    flat = product[rows].ravel()
    found: dict[tuple[str, str], Pair] = {}
    for at in _largest(flat, LOOKED_AT).tolist():
        row, key = divmod(at, product.shape[1])
        query, key = int(rows[row]) + 1, key + 1
        weight = float(pattern[query, key])
        if weight > 0:
            found.setdefault((tokens[query], tokens[key]), (float(flat[at]), query, key, weight))
    return list(found.values())[:PAIRS]


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n largest values, in descending order."""
    n = min(n, len(values))
    top = np.argpartition(values, -n)[-n:] if n else np.zeros(0, dtype=int)
    return top[np.lexsort((top, -values[top]))]

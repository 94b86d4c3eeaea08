"""Arguments of `few_shot_prompts`, checked: label words, demonstrations `(x, y)` and queries, as text and class.

They may come as tuples, lists, arrays or rows of a table. Nothing is tokenised here: see `_few_shot`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any

from .._given import is_whole, plain
from ..errors import Refused

__all__ = ["label_words", "queries_of", "shots_per_query"]


def label_words(labels: Sequence[str]) -> tuple[str, ...]:
    """The label words as a tuple.

    Raises:
        TypeError: not a list of strings.
        Refused: fewer than two, an empty one, or one that occurs twice.
    """
    unordered = isinstance(labels, str | Mapping | Set) or not isinstance(labels, Iterable)
    given = [labels] if unordered else list(labels)
    if unordered or not all(isinstance(label, str) for label in given):
        raise TypeError(f"wanted labels as a list of words, in the order of their classes, got {labels!r}")
    words = tuple(map(str, given))
    if len(words) < 2 or len(set(words)) < len(words) or not all(word.strip() for word in words):
        raise Refused(f"wanted at least two different, non-empty label words, got {list(words)!r}")
    return words


def queries_of(queries: Any, labels: tuple[str, ...]) -> list[tuple[str, int]]:
    """Every query as `(x, class)`; the class is -1 where it is not given.

    Raises:
        TypeError: not a list of x or `(x, y)`.
        Refused: no query, or an unknown label.
    """
    asked = [_query(query, labels) for query in _listed(queries, "queries")]
    if not asked:
        raise Refused("wanted at least one query, got none")
    return asked


def shots_per_query(demonstrations: Any, n: int, labels: tuple[str, ...]) -> list[list[tuple[str, int]]]:
    """The demonstrations of each of `n` queries as `(x, class)`; one list for all queries is repeated.

    Raises:
        TypeError: not a list of `(x, y)`, nor a list of such lists.
        Refused: no demonstrations, those of another number of queries, an unknown label, a label without any.
    """
    given = _listed(demonstrations, "demonstrations (x, y)")
    if not given:
        raise Refused("wanted at least one demonstration, got none")
    per_query = (
        [given] * n if _is_pair(given[0]) else [_listed(shot, "demonstrations (x, y)") for shot in given]
    )
    if len(per_query) != n:
        raise Refused(f"wanted one list of demonstrations for each of {n} queries, got {len(per_query)}")
    shots = [[_pair(item, labels, "a demonstration as (x, y)") for item in shot] for shot in per_query]
    seen = {y for shot in shots for _, y in shot}
    if not all(shots) or len(seen) < len(labels):
        missing = [label for y, label in enumerate(labels) if y not in seen]
        raise Refused(
            f"wanted demonstrations of every label, got none of {missing or 'any'}: add some, or leave the label out"
        )
    return shots


def _listed(given: Any, what: str) -> list[Any]:
    """The items of a list, an array, a column or an iterator; TypeError for a table, whose columns are not named."""
    if hasattr(given, "columns"):
        raise TypeError(
            f"wanted a list of {what}, got {type(given).__name__}: give its rows as (x, y), "
            'list(table[["text", "label"]].itertuples(index=False))'
        )
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"wanted a list of {what}, got {given!r}")
    return list(given)


def _is_pair(item: Any) -> bool:
    """Whether an item is one text and its class: a tuple, list, array or row of two."""
    if not isinstance(item, Collection) or isinstance(item, str | Mapping | Set):
        return False
    return len(item) == 2 and isinstance(next(iter(item)), str)


def _pair(item: Any, labels: tuple[str, ...], what: str) -> tuple[str, int]:
    """One `(x, y)` as text and class."""
    if not _is_pair(item):
        raise TypeError(f"wanted {what}, got {item!r}")
    x, y = item
    return str(x), _class_of(y, labels)


def _query(query: Any, labels: tuple[str, ...]) -> tuple[str, int]:
    """One query as text and class, -1 where only x is given."""
    return (str(query), -1) if isinstance(query, str) else _pair(query, labels, "a query as x or (x, y)")


def _class_of(y: Any, labels: tuple[str, ...]) -> int:
    """The class of y, which is a label word or its index."""
    if isinstance(y, str):
        if y not in labels:
            folded = {label.strip().casefold(): label for label in labels}
            near = get_close_matches(y.strip().casefold(), folded, n=1)
            hint = f": did you mean {folded[near[0]]!r}?" if near else ""
            raise Refused(f"wanted one of the labels {list(labels)}, got {y!r}{hint}")
        return labels.index(y)
    index = plain(y)
    if not is_whole(index):
        raise TypeError(f"wanted a label word or its index, got {y!r}")
    if not 0 <= index < len(labels):
        raise Refused(f"wanted a label index from 0 to {len(labels) - 1}, got {index}")
    return index

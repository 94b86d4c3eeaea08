"""`Head`: a head by layer and index, read from a pair or a string like "L5H1"; the names of a grid of heads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._given import is_whole, plain
from ..errors import Refused

__all__ = ["Head", "HeadLike", "as_head", "as_heads", "names_of", "some_heads"]


class Head(NamedTuple):
    """An attention head, by layer and index within the layer; prints as "L5H1".

    Equal to the plain tuple `(layer, head)`, so it can be used wherever one is expected.
    """

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    __repr__ = __str__


HeadLike = Head | tuple[int, int] | str


def names_of(layers: Iterable[int], heads: Iterable[int]) -> np.ndarray:
    """The names of a grid of heads, `[layer, head]`."""
    columns = list(heads)
    return np.array([[str(Head(int(layer), int(head))) for head in columns] for layer in layers])


def as_head(head: HeadLike, *, n_layers: int | None = None, n_heads: int | None = None) -> Head:
    """The `Head` that is meant by a `Head`, a pair `(layer, head)` or a string like "L5H1".

    Args:
        head: one of these forms ("5.1" is read too).
        n_layers: if given, the layer must be below it.
        n_heads: if given, the head must be below it.

    Raises:
        TypeError: not one of the three forms.
        Refused: a string that does not parse, or a head the model does not have.
    """
    head = plain(head)
    if isinstance(head, str):
        found = re.fullmatch(r"\s*L?(\d+)[HhX.:](\d+)\s*", head, flags=re.IGNORECASE)
        if not found:
            raise Refused(f'wanted a head like "L5H1", got {head!r}')
        parsed = Head(int(found[1]), int(found[2]))
    elif isinstance(head, Sequence) and len(head) == 2 and all(is_whole(i) for i in head):
        parsed = Head(int(head[0]), int(head[1]))
    else:
        raise TypeError(f'wanted a head as Head, (layer, head) or "L5H1", got {head!r}')
    bounds = {"layers": n_layers, "heads": n_heads}
    if any(
        i < 0 or (bound is not None and i >= bound) for i, bound in zip(parsed, bounds.values(), strict=True)
    ):
        limits = [f"{what} 0 to {bound - 1}" for what, bound in bounds.items() if bound is not None]
        there = f": this model has {' and '.join(limits)}" if limits else ""
        raise Refused(f"{parsed} does not exist{there}")
    return parsed


def as_heads(heads: HeadLike | Iterable[HeadLike], **bounds: int) -> list[Head]:
    """One head or several, as a list of `Head` without repetitions, in the order given.

    Args:
        heads: heads as `as_head` reads them, in any collection; names in one string; an array `[head, 2]` of pairs
            (from `np.argwhere`); a table with heads as its index, such as `head_table` returns.
        bounds: as in `as_head`.

    Raises:
        TypeError, Refused: as `as_head`.
    """
    given: Any = heads
    if hasattr(given, "columns") and given.index.name == "name":  # a head_table
        given = given.index
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        raise TypeError(
            f'wanted heads as a list of Head, (layer, head) or "L5H1", got {type(given).__name__}: pass its names of '
            "heads as a list"
        )
    given = plain(given)
    if isinstance(given, str):
        given = [part for part in re.split(r"[,\s]+", given) if part]
    if isinstance(given, tuple) and len(given) == 2 and all(is_whole(i) for i in given):
        given = [given]  # a bare (layer, head)
    if not isinstance(given, Iterable):
        raise TypeError(f'wanted heads as a list of Head, (layer, head) or "L5H1", got {heads!r}')
    return list(dict.fromkeys(as_head(head, **bounds) for head in given))


def some_heads(heads: HeadLike | Iterable[HeadLike], **bounds: int) -> list[Head]:
    """As `as_heads`, at least one.

    Raises:
        TypeError, Refused: as `as_heads`; no heads.
    """
    found = as_heads(heads, **bounds)
    if not found:
        raise Refused("wanted at least one head, got none")
    return found

"""Attention patterns as few bytes: the lower triangle in steps of 1/255, deflated; and thumbnails of all heads.

A head of SmolLM2 on 1,024 tokens of prose takes about 45 kB. A tenth of the attention lies in weights that round to 0
there, so each query's share of it is stored beside the pattern. `explorer.js` reads what is written here. Precisions:

| name | an entry is | smallest weight above 0 |
|---|---|---|
| plain | round(255 w), one byte | 1/510, about .002 |
| fine | round(255 sqrt(w)), one byte | 1/510², about .000004 |
| half | a float16, two bytes | 3e-8 |
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

__all__ = [
    "SIDE",
    "Precision",
    "deflated",
    "flat_pattern",
    "looks_ahead",
    "rounded_away",
    "thumbnails",
]

SIDE = 64  # pixels of a thumbnail, at most
STEPS = 255
Precision = Literal["plain", "fine", "half"]


def flat_pattern(
    pattern: np.ndarray, norms: np.ndarray | None, precision: Precision, *, ahead: bool
) -> bytes:
    """One head on one prompt, before it is deflated.

    Args:
        pattern: `[query, key]`, weights in [0, 1].
        norms: `[key]`, the norm of what each key's value writes; None to leave them out.
        precision: how an entry is stored.
        ahead: whether queries attend to later tokens; False keeps the lower triangle, row after row.

    Returns:
        The entries, then each query's `rounded_away` in steps of 1/255 (unless "half"), then the norms as float16.
    """
    lower = slice(None) if ahead else _lower(len(pattern))
    if precision == "half":
        parts = [
            torch.from_numpy(pattern[lower]).half().numpy()
        ]  # numpy's conversion takes ten times as long
    else:
        stored = _in_steps(np.sqrt(pattern) if precision == "fine" else pattern)
        parts = [stored[lower], _in_steps(_away(pattern, stored))]
    if norms is not None:
        parts.append(norms.clip(0, float(np.finfo(np.float16).max)).astype("<f2"))
    return b"".join(part.tobytes() for part in parts)


def rounded_away(pattern: np.ndarray, precision: Precision) -> np.ndarray:
    """The attention of each query that lies in weights stored as 0, `[query]`."""
    return _away(pattern, _in_steps(np.sqrt(pattern) if precision == "fine" else pattern))


def thumbnails(patterns: np.ndarray) -> np.ndarray:
    """Patterns `[..., query, key]` as small pictures, uint8 `[..., side, side]`: the largest weight of each cell.

    The side is 64, or the length where that is less. Cell r holds the queries from floor(r length / side) on.
    """
    return _in_steps(largest_in_cells(patterns))


def largest_in_cells(patterns: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The largest value in each of side x side cells; nothing is left out, so stripes one token wide stay.

    A pattern with fewer tokens than `side` is not changed. Where a value is NaN, so is its cell.
    """
    side = min(side, patterns.shape[-1])
    edges = (np.arange(side + 1) * patterns.shape[-1] // side).tolist()
    rows = [patterns[..., begin:end, :].max(-2) for begin, end in pairwise(edges)]
    return np.maximum.reduceat(np.stack(rows, -2), edges[:-1], axis=-1)


def looks_ahead(patterns: np.ndarray) -> bool:
    """Whether any query attends to a later token by more than rounds to 0."""
    return bool((np.triu(patterns, 1) > 0.5 / STEPS).any())


def deflated(content: bytes | np.ndarray) -> bytes:
    """The bytes compressed in zlib's format, which browsers read with `DecompressionStream("deflate")`."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return zlib.compress(data, 6)


def _away(pattern: np.ndarray, stored: np.ndarray) -> np.ndarray:
    return (pattern * (stored == 0)).sum(-1).clip(0, 1)


def _in_steps(values: np.ndarray) -> np.ndarray:
    return np.rint(values * STEPS).astype(np.uint8)


def _lower(length: int) -> np.ndarray:
    return np.tri(length, dtype=bool)

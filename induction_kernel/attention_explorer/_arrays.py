"""Plain arrays of attention patterns, of whatever source, as prompts of the explorer.

They come from circuitsvis' users (`[head, query, key]`), nnsight, or Hugging Face's `output_attentions=True` (one array
a layer); or from `patterns(...)`, with the names of its heads, tokens and lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ._packing import looks_ahead, thumbnails
from ._shown import OneHead, Pair, Shown, strongest_of

__all__ = ["read_arrays"]

WANTED = (
    "wanted patterns [head, query, key], [layer, head, query, key] or [prompt, layer, head, query, key], a sequence "
    "with one array [prompt, head, query, key] for each layer, or what patterns(...) returned"
)
SLACK = 0.01  # by which 16-bit attention may leave [0, 1]


def read_arrays(patterns: Any, tokens: Any) -> tuple[list[Shown], tuple[int, int], list[int] | None]:
    """The prompts of these patterns, the grid (layers, heads), and which heads are there (None: all).

    Args:
        patterns: see `WANTED`; tensors, arrays or nested lists.
        tokens: strings of the tokens: a list for one prompt, or a list of lists; None for those of `patterns(...)`, or
            for positions.

    Raises:
        TypeError: what is no array of numbers, or tokens that are no strings.
        Refused: other shapes, weights that are not finite or not in [0, 1], tokens of another number.
    """
    if isinstance(patterns, xr.Dataset):
        return _of_dataset(patterns, tokens)
    whole = _five(patterns)
    rows = _token_rows(tokens, whole.shape[0], [whole.shape[-1]] * whole.shape[0])
    flat = whole.reshape(whole.shape[0], -1, *whole.shape[-2:])
    shown = [_one(f"prompt {i + 1}", flat[i], None, row) for i, row in enumerate(rows)]
    return shown, (whole.shape[1], whole.shape[2]), None


def _of_dataset(patterns: xr.Dataset, tokens: Any) -> tuple[list[Shown], tuple[int, int], list[int] | None]:
    missing = sorted({"pattern", "layer", "head", "token"} - set(patterns.variables))
    if missing or not {"prompt", "choice"} <= set(patterns["pattern"].dims):
        raise Refused(
            f"wanted the Dataset of patterns(...), it lacks {missing or 'prompt or choice'}: pass its result "
            "unchanged, or choose a prompt by .isel(prompt=[0])"
        )
    layers, heads = (patterns[key].values.astype(int) for key in ("layer", "head"))
    grid = (int(layers.max()) + 1, int(heads.max()) + 1)
    present = (layers * grid[1] + heads).tolist()
    n = patterns.sizes["prompt"]
    lengths = patterns["length"].values if "length" in patterns else np.full(n, patterns.sizes["query"])
    strings = patterns["token"].values
    given = [list(map(str, row[:length])) for row, length in zip(strings, lengths, strict=True)]
    rows, shown = _token_rows(given if tokens is None else tokens, n, lengths.tolist()), []
    for i, row in enumerate(rows):
        one = patterns.isel(prompt=i).transpose("choice", "query", "key")
        length = len(row)
        seen = np.zeros((grid[0] * grid[1], length, length), dtype=np.float32)
        norms = np.zeros((grid[0] * grid[1], length), dtype=np.float32) if "value_norm" in one else None
        seen[present] = one["pattern"].values[:, :length, :length]
        if norms is not None:
            norms[present] = one["value_norm"].values[:, :length]
        shown.append(_one(f"prompt {i + 1}", seen, norms, row))
    return shown, grid, None if len(present) == grid[0] * grid[1] else sorted(present)


def _five(patterns: Any) -> np.ndarray:
    """Patterns `[prompt, layer, head, query, key]`."""
    by_layer = isinstance(patterns, Sequence) and len(patterns) and getattr(patterns[0], "ndim", 0) == 4
    try:
        each = [_plain(one) for one in patterns] if by_layer else [_plain(patterns)]
        array = np.stack(each, 1) if by_layer else each[0]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{WANTED}; got {type(patterns).__name__} ({error})") from None
    if array.ndim not in (3, 4, 5) or array.shape[-1] != array.shape[-2] or not array.size:
        raise Refused(f"{WANTED}, with as many queries as keys; got shape {list(array.shape)}")
    return array.reshape((1,) * (5 - array.ndim) + array.shape)


def _plain(array: Any) -> np.ndarray:
    """A tensor (also in bfloat16, with gradients or on a device) or array in float32."""
    if hasattr(array, "detach"):
        array = array.detach().float().cpu().numpy()
    return np.asarray(array, dtype=np.float32)


def _token_rows(tokens: Any, n: int, lengths: list[int]) -> list[list[str]]:
    """The token strings of each of n prompts."""
    if tokens is None:
        return [[str(at) for at in range(length)] for length in lengths]
    said = "wanted tokens as strings, a list for each prompt: decode ids with the tokenizer first"
    if isinstance(tokens, str) or not isinstance(tokens, Sequence | np.ndarray):
        raise TypeError(f"{said}, got {type(tokens).__name__}")
    several = (
        len(tokens) > 0 and isinstance(tokens[0], Sequence | np.ndarray) and not isinstance(tokens[0], str)
    )
    rows = [[*row] for row in tokens] if several else [[*tokens]]
    if other := [token for row in rows for token in row if not isinstance(token, str)]:
        raise TypeError(f"{said}, got {type(other[0]).__name__}")
    rows = rows * n if len(rows) == 1 else rows
    if [len(row) for row in rows] != lengths:
        raise Refused(f"wanted {n} lists of {lengths} tokens, got {[len(row) for row in rows]}")
    return rows


def _one(name: str, patterns: np.ndarray, norms: np.ndarray | None, tokens: list[str]) -> Shown:
    """One prompt, of patterns `[head, query, key]` and norms `[head, key]`."""
    broken = [head for head, one in enumerate(patterns) if not np.isfinite(one).all()]
    if broken:
        raise Refused(
            f"wanted weights that are finite, got NaN or infinite ones in {len(broken)} of {len(patterns)} heads of "
            f"{name}: set them to 0 if they stand for padding or masked keys"
        )
    least, most = float(patterns.min()), float(patterns.max())
    if least < -SLACK or most > 1 + SLACK:
        raise Refused(
            f"wanted attention weights in [0, 1], got {least:.3g} to {most:.3g} in {name}: pass patterns after "
            "the softmax"
        )
    patterns = patterns.clip(0, 1)
    of_heads = norms if norms is not None else [None] * len(patterns)
    strongest: list[list[Pair]] = [
        strongest_of(one, norm, tuple(tokens)) for one, norm in zip(patterns, of_heads, strict=True)
    ]

    def chosen(indices: Sequence[int]) -> Iterator[OneHead]:
        for index in sorted(indices):
            yield index, patterns[index], of_heads[index]

    return Shown(
        name=name,
        tokens=tuple(tokens),
        special=(),
        thumbnails=thumbnails(patterns),
        strongest=strongest,
        patterns=chosen,
        ahead=looks_ahead(patterns),
        norms=norms is not None,
        n_bytes=patterns.nbytes,
    )

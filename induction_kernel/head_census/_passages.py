"""Passages: the places of a text where each head attends most, by the weight times what the value there writes.

For each head the pairs of a query and a key with the largest A[q, k] |v_k W_O|, with the tokens around both. The first
token is left out, on which most heads rest, and each pair of token strings counts once. They describe; nothing is
tested.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from .._given import is_whole
from ..attention_explorer._model_prompts import pieces
from ..attention_explorer._shown import Pair, strongest_of
from ..errors import Refused
from ..heads._names import names_of
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import batches, progress_bar, stream
from ..model._self_check import foreign_hooks
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ..scorers._pattern_entries import attends, check_sound
from ..scorers._raw_patterns import value_norms

__all__ = ["check_rows", "passages"]

AROUND = 4  # tokens before a token that are shown with it
AFTER = 2


def passages(
    model: Model, prompts: Any, *, rows: int = 3, batch_size: int | None = None, progress: bool = True
) -> xr.Dataset:
    """The strongest pairs of query and key of every head in a text, with the tokens around them.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; ordinary text is what this is for.
        rows: how many pairs of each head, at most 8.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (layer, head, row), strongest first: `weighted`, the attention weight times the norm of v W_O
        without the bias (in units of the residual stream, at least 0), `weight` in [0, 1], `prompt`, `query` and `key`
        (-1 where a head has fewer pairs, and NaN weights), `query_text` and `key_text`, the tokens around each with
        the token itself in brackets: " nets on[ the] wall". The first token is left out as a query and as a key.

    Raises:
        TypeError: not prompts.
        Refused: `rows` outside 1 to 8; attention that is not finite.

    Source: Kobayashi et al. 2020, Attention is Not Only a Weight (weights times the norms of what values write).
    """
    check_rows(rows)
    ready, size = as_prompts(model, prompts), sizes(model)
    tokenizer = getattr(model, "tokenizer", None)
    strings = [
        pieces(tokenizer, ids[:n])
        for ids, n in zip(ready.tokens.tolist(), ready.lengths.tolist(), strict=True)
    ]
    best = _strongest(model, ready, strings, rows, batch_size, progress)
    shape = (size.n_layers, size.n_heads, rows)
    out: dict[str, Any] = {key: np.full(shape, np.nan) for key in ("weighted", "weight")}
    out |= {key: np.full(shape, -1) for key in ("prompt", "query", "key")}
    out |= {key: np.full(shape, "", dtype=object) for key in ("query_text", "key_text")}
    for (layer, head), pairs in best.items():
        for row, (prompt, (weighted, query, key, weight)) in enumerate(pairs):
            texts = [_around(strings[prompt], at) for at in (query, key)]
            for name, value in zip(out, (weighted, weight, prompt, query, key, *texts), strict=True):
                out[name][layer, head, row] = value
    return _labelled(model, ready, out)


def check_rows(rows: Any) -> None:
    """Refused unless this is a number of pairs that heads have."""
    if not is_whole(rows) or not 1 <= rows <= 8:
        raise Refused(f"wanted rows from 1 to 8, got {rows!r}")


def _strongest(
    model: Model, ready: Prompts, strings: list[tuple[str, ...]], rows: int, batch_size: int | None,
    progress: bool,
) -> dict[tuple[int, int], list[tuple[int, Pair]]]:  # fmt: skip
    """For each (layer, head) its strongest pairs over all prompts, each with its prompt."""
    size, length = sizes(model), ready.tokens.shape[1]
    layers, edited, broken = set(range(size.n_layers)), bool(foreign_hooks(model)), set[int]()
    found: dict[tuple[int, int], list[tuple[int, Pair]]] = defaultdict(list)
    cost = max(length * size.n_heads, 8 * size.d_model)
    with progress_bar(len(ready), progress=progress, unit="prompt", what="passages") as bar:
        for part in batches(len(ready), length, batch_size=batch_size, cost=cost):
            batch, waiting = ready[part], defaultdict[int, dict[str, Tensor]](dict)

            def read(
                site: str, layer: int, activation: Tensor, begin: int = part.start, batch: Prompts = batch,
                waiting: dict[int, dict[str, Tensor]] = waiting,
            ) -> None:  # fmt: skip
                waiting[layer][site] = activation.detach()
                if len(waiting[layer]) < 2:
                    return
                both = waiting.pop(layer)
                if not attends(both["pattern"], batch.lengths, edited=edited):
                    broken.add(layer)
                    return
                _keep(model, layer, both, begin, strings, rows, found)
                bar.update(len(batch) / size.n_layers)

            stream(model, batch.tokens, read, {"pattern": layers, "v": layers}, lengths=batch.lengths)
    check_sound(broken)
    return found


def _keep(
    model: Model, layer: int, both: dict[str, Tensor], begin: int, strings: list[tuple[str, ...]], rows: int,
    found: dict[tuple[int, int], list[tuple[int, Pair]]],
) -> None:  # fmt: skip
    """Add the pairs of one layer on some prompts; the strongest `rows` of each head stay."""
    pattern = full_precision(both["pattern"]).float().cpu().numpy()
    norms = value_norms(model, layer, both["v"])
    for i, of_prompt in enumerate(pattern):
        tokens = strings[begin + i]
        n = len(tokens)
        for head, one in enumerate(of_prompt):
            pairs = strongest_of(one[:n, :n], norms[i, head, :n], tokens)
            found[layer, head] += [(begin + i, pair) for pair in pairs[:rows]]
    for head in range(pattern.shape[1]):
        found[layer, head] = _different(found[layer, head], strings, rows)


def _different(
    pairs: list[tuple[int, Pair]], strings: list[tuple[str, ...]], rows: int
) -> list[tuple[int, Pair]]:
    """The strongest, at most one for each two token strings."""
    kept: dict[tuple[str, str], tuple[int, Pair]] = {}
    for prompt, pair in sorted(pairs, key=lambda each: -each[1][0]):
        kept.setdefault((strings[prompt][pair[1]], strings[prompt][pair[2]]), (prompt, pair))
    return list(kept.values())[:rows]


def _around(tokens: tuple[str, ...], at: int) -> str:
    """The token in brackets, with those around it on one line."""
    before, after = tokens[max(0, at - AROUND) : at], tokens[at + 1 : at + 1 + AFTER]
    text = f"{''.join(before)}[{tokens[at]}]{''.join(after)}"
    return text.replace("\n", "⏎").replace("\r", "").replace("\0", "")


def _labelled(model: Model, ready: Prompts, values: dict[str, np.ndarray]) -> xr.Dataset:
    size, dims = sizes(model), ("layer", "head", "row")
    layers, heads = range(size.n_layers), range(size.n_heads)
    texts = {key: value.astype(str) if value.dtype == object else value for key, value in values.items()}
    return xr.Dataset(
        {key: (dims, value) for key, value in texts.items()},
        coords={
            "layer": list(layers),
            "head": list(heads),
            "row": np.arange(values["weight"].shape[-1]),
            "name": (("layer", "head"), names_of(layers, heads)),
        },
        attrs={
            "method": "passages",
            "title": "strongest pairs of query and key by weighted value", "unit": "of the residual stream",
            "paper": "Kobayashi et al. 2020", **measured_on(model, ready),
        },
    )  # fmt: skip

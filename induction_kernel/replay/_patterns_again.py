"""Attention patterns of one prompt, all heads once, then any head again from what was stored of that run.

In a HookedTransformer of standard blocks the residual stream before each layer is stored, and the patterns of a few
heads at a time are computed from it, so that long prompts fit in memory. For any other model the blocks' arguments are
stored when they are first needed, and the block runs again. `pattern_of` is the way that always works: a run of the
model up to the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..model._anatomy import Model, full_precision, kept_as_it_was, per_query_head
from ..model._runs import stream
from ._attention_rows import why_no_rows
from ._blocks import Blocks
from ._layers import Layers

__all__ = ["PatternsAgain", "pattern_of", "read_layers", "runs_by_heads"]

_AT_ONCE = 2**25  # entries of patterns in memory at a time
_ROWS = 512  # queries that are computed together


def runs_by_heads(model: Model, tokens: Tensor) -> bool:
    """Whether `read_layers` agrees with the model's own patterns, seen on the first of `tokens [position]`."""
    return not why_no_rows(model, tokens, range(model.cfg.n_layers))


def read_layers(
    model: Model,
    tokens: Tensor,
    read_values: Callable[[int, Tensor], None],
    read_patterns: Callable[[int, Sequence[int], Tensor], None],
    *,
    store: bool,
) -> dict[int, Tensor]:
    """One pass over `tokens [position]`, of which no more than a few heads' patterns are in memory at a time.

    Args:
        model: a model for which `runs_by_heads` is true.
        tokens: of the prompt.
        read_values: called with the values `[1, position, head, d_head]` of each layer, before its patterns.
        read_patterns: called with heads of the layer and their patterns `[head, query, key]`, in float32 or better.
        store: whether the stream is wanted.

    Returns:
        The stream `[position, d_model]` before each layer; empty unless `store`.
    """
    first: list[Tensor] = []
    stream(model, tokens[None], lambda *seen: first.append(seen[-1]), {"resid_pre": {0}}, lengths=None)
    with kept_as_it_was(model):
        layers = _OfHeads(model, len(tokens))
        return layers.run(first.pop(), read_values, read_patterns, store=store)


def pattern_of(model: Model, tokens: Tensor, layer: int, heads: Sequence[int]) -> Tensor:
    """Patterns `[head, query, key]` of heads in a layer on `tokens [position]`, by a run that ends there.

    In float32 or better, on the CPU.
    """
    found: list[Tensor] = []

    def read(_: str, __: int, pattern: Tensor) -> None:
        found.append(full_precision(pattern[0, list(heads)].cpu()))

    stream(model, tokens[None], read, {"pattern": {layer}}, lengths=None)
    return found[0]


class PatternsAgain:
    """The patterns of one prompt's heads, computed again when they are asked for."""

    def __init__(self, model: Model, tokens: Tensor, streams: Mapping[int, Tensor]) -> None:
        """Keep what a run stored.

        Args:
            model: the model that ran.
            tokens: `[position]`.
            streams: what `read_layers` returned; empty to store the model's blocks and their arguments when they are
                first needed.
        """
        self.model: Model = model
        self.tokens: Tensor = tokens
        self.streams: Mapping[int, Tensor] = streams
        self._blocks: Blocks | None = None

    def __call__(self, layer: int, heads: Sequence[int]) -> Tensor:
        """Patterns `[head, query, key]` in float32 or better, on the CPU."""
        with kept_as_it_was(self.model):
            if self.streams:
                of_heads = _OfHeads(self.model, len(self.tokens))
                return of_heads.patterns(layer, self.streams[layer][None], heads).cpu()
            if self._blocks is None:
                self._blocks = Blocks(self.model, self.tokens[None], None)
            return full_precision(self._blocks.pattern(layer)[0, list(heads)].cpu())


class _OfHeads(Layers):
    """Layers whose patterns are computed a few heads at a time."""

    def run(
        self,
        resid: Tensor,
        read_values: Callable[[int, Tensor], None],
        read_patterns: Callable[[int, Sequence[int], Tensor], None],
        *,
        store: bool,
    ) -> dict[int, Tensor]:
        streams: dict[int, Tensor] = {}
        at_once = max(1, _AT_ONCE // self.length**2)
        for layer in range(self.n_layers):
            resid = resid.to(self._device(layer))
            if store:
                streams[layer] = resid[0]
            q, k, v = self._qkv(layer, resid)
            read_values(layer, v)
            for start in range(0, self.cfg.n_heads, at_once):
                heads = range(start, min(start + at_once, self.cfg.n_heads))
                read_patterns(layer, heads, self._patterns(layer, q, k, heads))
            if layer < self.n_layers - 1:
                z = self._attend(layer, q, k, v, self._queries(layer))
                resid = self._rest(layer, resid, self.maps[layer].written(z))
        return streams

    def patterns(self, layer: int, resid: Tensor, heads: Sequence[int]) -> Tensor:
        """Patterns `[head, query, key]` from the stream `[1, position, d_model]` before the layer."""
        q, k, _ = self._qkv(layer, resid)
        return self._patterns(layer, q, k, heads)

    def _patterns(self, layer: int, q: Tensor, k: Tensor, heads: Sequence[int]) -> Tensor:
        chosen = list(heads)
        q, k = (full_precision(per_query_head(each, self.cfg.n_heads, 2)[0, :, chosen]) for each in (q, k))
        q, k = (q / self.maps[layer].scale).transpose(0, 1), k.permute(1, 2, 0).contiguous()
        pattern = q.new_zeros(len(q), self.length, self.length)
        for start in range(0, self.length, _ROWS):  # what lies above the diagonal is mostly not computed
            end = min(start + _ROWS, self.length)
            scores = q[:, start:end] @ k[..., :end]
            later = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).triu(1)
            scores[..., start:].masked_fill_(later, -torch.inf)
            pattern[:, start:end, :end] = scores.softmax(-1)
        return pattern

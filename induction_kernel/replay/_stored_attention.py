"""Attention of edited runs, with the keys and values of the untouched run before the position where they start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model._anatomy import full_precision, per_query_head
from ._capture import Taps, attended
from ._final_logits import Unembedding
from ._rows import at_positions, tapped

__all__ = ["StoredAttention"]


class StoredAttention(Unembedding):
    """The layers of one model, with the activations of an untouched run.

    Attributes:
        clean: for each layer, site -> activation of the untouched run, `[prompt, position, ...]`; q and k are rotated.
    """

    clean: list[dict[str, Tensor]]

    def _z_of(
        self, layer: int, start: int, queries: Tensor, q: Tensor, k: Tensor, v: Tensor, taps: Taps,
        held: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """`z [cell, prompt, query, head, d_head]` of a part, from queries, keys and values `[cell, prompt, ...]`."""
        cells, queries = len(q), queries.to(q.device)
        q, k, v = (each.flatten(0, 1) for each in (q, k, v))
        if start:
            k, v = (self._with_prefix(layer, key, new, start) for key, new in (("k", k), ("v", v)))
        if held is None and not {"pattern", "log_pattern"} & {*taps}:
            return self._attend(layer, q, k, v, queries).unflatten(0, (cells, -1))
        return self._attend_by_pattern(layer, q, k, v, queries, cells, taps, held)

    def _attend_by_pattern(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        queries: Tensor,
        cells: int,
        taps: Taps,
        held: Tensor | None,
    ) -> Tensor:
        """`z [cell, prompt, query, head, d_head]`, from a pattern that is held fixed or replaced by a tap."""
        if held is None:
            pattern = self._pattern(layer, q, k, queries).unflatten(0, (cells, -1))
        else:
            whole = queries.expand(len(q) // cells, -1)
            prompt = torch.arange(len(whole), device=whole.device)[:, None]
            pattern = held[prompt, :, whole].transpose(1, 2)[None].to(q)
        pattern = tapped(taps, "pattern", pattern)
        if "log_pattern" in taps:  # exact even if the attention left after a knock-out is tiny
            scores = self._scores(layer, q, k, queries).unflatten(0, (cells, -1))
            pattern = taps["log_pattern"](scores.log_softmax(-1)).exp()
        return attended(pattern, per_query_head(v, self.cfg.n_heads, 2).unflatten(0, (cells, -1)))

    def _z_from_one(self, layer: int, start: int, q1: Tensor, k1: Tensor, v1: Tensor) -> Tensor:
        """`z [cell, prompt, position >= start, head, d_head]` if only position `start` of the layer's input changed."""
        queries, cells = self._queries(layer, start), len(k1)
        k, v = (
            self._with_prefix(layer, key, new.flatten(0, 1), start) for key, new in (("k", k1), ("v", v1))
        )
        mine = self._attend(layer, q1.flatten(0, 1), k, v, queries[:, :1]).unflatten(0, (cells, -1))
        return torch.cat([mine, self._one_key_changed(layer, [start] * cells, queries[:, 1:], k1, v1)], 2)

    def _one_key_changed(
        self, layer: int, starts: Sequence[int], queries: Tensor, k1: Tensor, v1: Tensor
    ) -> Tensor:
        """`z [cell, prompt, query, head, d_head]` of the untouched queries if only one key and value is new to them.

        The softmax over the other keys is computed once for all cells with the same start; the changed key's attention
        follows from the log-sum-exp of the other scores.

        Args:
            layer: the layer.
            starts: for each cell, the position of the new key, before all queries.
            queries: `[1 or prompt, query]`, their positions.
            k1: `[cell, prompt, 1, key/value head, d_head]`, the new keys.
            v1: the same, the new values.
        """
        kept, heads, scale = self.clean[layer], self.cfg.n_heads, self.maps[layer].scale
        k1, v1 = (full_precision(per_query_head(each, heads, 3)) for each in (k1, v1))
        k, v = (full_precision(per_query_head(kept[key], heads, 2)) for key in "kv")
        q = full_precision(at_positions(kept["q"][None], queries.expand(len(k), -1))[0])
        scores = torch.einsum("pqhd,pkhd->phqk", q, k) / scale
        place = self._queries(layer)
        scores = scores.masked_fill((place > queries[..., None])[:, None], -torch.inf)
        found = {}
        for start in {*starts}:
            others = scores.index_fill(3, place.new_tensor([start]), -torch.inf)
            total = others.logsumexp(-1)
            found[start] = total, torch.einsum("phqk,pkhd->pqhd", (others - total[..., None]).exp(), v)
        others, before = (torch.stack([found[start][i] for start in starts]) for i in (0, 1))
        new = torch.einsum("pqhd,cphd->cphq", q, k1[:, :, 0]) / scale
        share = torch.sigmoid(new - others).transpose(-1, -2)[..., None]
        return (before + share * (v1 - before)).to(kept["v"])

    def _with_prefix(self, layer: int, key: str, new: Tensor, start: int) -> Tensor:
        """Keys or values `[row, position >= start, head, d_head]`, with those of the untouched run before them."""
        before = per_query_head(self.clean[layer][key][:, :start], new.shape[2], 2)
        return torch.cat([before.repeat(len(new) // len(before), 1, 1, 1), new], 1)

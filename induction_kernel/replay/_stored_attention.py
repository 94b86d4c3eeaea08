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

_FEW = 8  # new positions of a cell up to which its scores of all keys are kept: beyond it fused attention is faster
_EXACT = (torch.float32, torch.float64)


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
        cells, queries, by_pattern = len(q), queries.to(q.device), {"pattern", "log_pattern"} & {*taps}
        if start and k.shape[2] <= _FEW and held is None and not by_pattern and q.dtype in _EXACT:
            return self._attend_after(layer, start, queries, q, k, v)
        q, k, v = (each.flatten(0, 1) for each in (q, k, v))
        if start:
            k, v = (self._with_prefix(layer, key, new, start) for key, new in (("k", k), ("v", v)))
        if held is None and not by_pattern:
            return self._attend(layer, q, k, v, queries).unflatten(0, (cells, -1))
        return self._attend_by_pattern(layer, q, k, v, queries, cells, taps, held)

    def _attend_after(
        self, layer: int, start: int, queries: Tensor, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """`z [cell, prompt, query, head, d_head]` with new keys and values at few positions, from `start` on.

        The untouched keys and values before them are not copied for each cell: all cells' queries of a prompt are
        multiplied with them at once.
        """
        new, heads, d_head = k.shape[2:]
        before = (per_query_head(self.clean[layer][key][:, :start], heads, 2) for key in "kv")
        # [prompt, key/value head, key, d_head], and with each cell's own [prompt, key/value head, cell, key, d_head]
        k_before, v_before = (each.transpose(1, 2) for each in before)
        k, v = (each.permute(1, 3, 0, 2, 4) for each in (k, v))
        asked = q.unflatten(3, (heads, -1)).permute(1, 3, 0, 2, 4, 5) / self.maps[layer].scale
        shape = asked.shape[:-1]  # [prompt, key/value head, cell, query, query head of it]
        past = (asked.flatten(2, 4) @ k_before.mT).view(*shape, start)
        own = (asked.flatten(3, 4) @ k.mT).view(*shape, new)
        seen = torch.arange(start, start + new, device=queries.device) <= queries[..., None]
        own = own.masked_fill(~seen[:, None, None, :, None], -torch.inf)
        past, own = torch.cat([past, own], -1).softmax(-1).split([start, new], -1)
        z = (past.flatten(2, 4) @ v_before).view(*shape, d_head)
        z = z + (own.flatten(3, 4) @ v).view(*shape, d_head)
        return z.permute(2, 0, 3, 1, 4, 5).reshape(q.shape)

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
        queries = self._queries(layer, start)
        mine = self._z_of(layer, start, queries[:, :1], q1, k1, v1, {}, None)
        return torch.cat([mine, self._one_key_changed(layer, [start] * len(k1), queries[:, 1:], k1, v1)], 2)

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

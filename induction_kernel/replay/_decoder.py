"""The lane for standard decoders: a layer is run again from the model's parameters, on part of its positions.

A lane is a way of running layers again. Here only positions at or after an edit run again, with the untouched run's
keys and values before them. Its batch is widened: it holds the prompts once for each edited run (cell). `_layers`
computes one layer and says which models are supported; `_final_logits` computes the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model._anatomy import Model, per_query_head
from ..model._runs import stream
from ._blocks import at_positions
from ._capture import Taps, attended
from ._final_logits import Unembedding
from ._layers import tapped

__all__ = ["Decoder"]


class Decoder(Unembedding):
    """Layers of one batch of prompts, run again from the model's parameters.

    Attributes:
        name: "decoder".
        saves_positions: True: `start` may be any position.
        taps_log_pattern: True: `step` takes taps on the logarithm of a pattern.
        n_layers: of the model.
        final: `[prompt, position, d_model]`, the residual stream after the last layer.
    """

    name = "decoder"
    saves_positions = True
    taps_log_pattern = True

    def __init__(self, model: Model, tokens: Tensor, lengths: Tensor | None) -> None:
        first: list[Tensor] = []
        stream(
            model, tokens, lambda site, layer, resid: first.append(resid), {"resid_pre": {0}}, lengths=lengths
        )
        resid = first[0]
        super().__init__(model, tokens.shape[1])
        self.clean: list[dict[str, Tensor]] = []
        for layer in range(self.cfg.n_layers):
            resid = resid.to(self._device(layer))
            kept = {"resid_pre": resid}
            q, kept["k"], kept["v"] = self._qkv(layer, resid, 0)
            kept["q"] = q
            kept["z"] = self._attend(layer, q, kept["k"], kept["v"], self._queries(layer))
            attn_out = self._written(layer, kept["z"])
            if self.serial:
                kept["resid_mid"] = resid + attn_out
                resid = kept["resid_mid"] + self._mlp(layer, kept["resid_mid"])
            elif self.cfg.attn_only:
                resid = resid + attn_out
            else:
                kept["mlp_out"] = self._mlp(layer, resid)
                resid = resid + attn_out + kept["mlp_out"]
            kept["resid_post"] = resid
            self.clean.append(kept)
        self.final: Tensor = resid

    def resid_pre(self, layer: int) -> Tensor:
        """The untouched residual stream before a layer, `[prompt, position, d_model]`."""
        return self.clean[layer]["resid_pre"]

    def additions(self, site: str) -> Decoder | None:
        """This lane for sites after attention, where an edit only adds to the stream; None for other sites."""
        return self if site in ("z", "attn_out", "resid_mid", "mlp_out", "resid_post") else None

    def untouched(self, layer: int, site: str) -> Tensor:
        """The untouched activation at z or a site of the stream, `[prompt, position, ...]`."""
        kept = self.clean[layer]
        if site == "attn_out":
            return self._written(layer, kept["z"])
        return kept[site] if site in kept else self._mlp(layer, kept["resid_mid"])

    def adds_to_the_end(self, layer: int) -> bool:
        """Whether what the heads of this layer write reaches the final norm unchanged."""
        known = ("LayerNorm", "LayerNormPre", "RMSNorm", "RMSNormPre", "NoneType")
        norm = getattr(self.model, "ln_final", None)
        exact = self.final.dtype in (torch.float32, torch.float64)
        uncapped = not (getattr(self.cfg, "output_logits_soft_cap", -1.0) or 0.0) > 0
        return (
            layer == self.n_layers - 1
            and not self.serial
            and exact
            and uncapped
            and type(norm).__name__ in known
        )

    def pattern(self, layer: int) -> Tensor:
        """The untouched pattern of a layer, `[prompt, head, query, key]`."""
        kept = self.clean[layer]
        return self._pattern(layer, kept["q"], kept["k"], self._queries(layer))

    def step(
        self,
        layer: int,
        rows: Tensor,
        start: int,
        *,
        reads: Tensor | None = None,
        taps: Taps | None = None,
        held: Tensor | None = None,
    ) -> Tensor:
        """`rows [cell, prompt, position >= start, d_model]` after the layer.

        Rows of a single position differ from the untouched run only there, at `start`.

        Args:
            layer: the layer to run.
            rows: the stream that enters it.
            start: the first position of the rows.
            reads: `[prompt, read]`, the positions (>= start) wanted; None for all from `start` on.
            taps: functions that replace activations inside the layer, by site.
            held: the pattern to hold fixed.
        """
        rows = rows.to(self.resid_pre(layer).device)
        reads = None if reads is None else reads.to(rows.device)
        cells, after = len(rows), self.length - start
        if rows.shape[2] < after:
            later = reads is None or bool((reads > start).all())
            if not taps and held is None and later:
                return self._step_from_one(layer, rows, start, reads)
            rows = self._spread(layer, rows, start)
        taps = taps or {}
        queries = self._queries(layer, start) if reads is None else reads
        entering = rows if reads is None else at_positions(rows, queries - start)
        q, k, v = self._qkv(layer, rows, start, entering, queries, taps)
        if start:
            k, v = (self._with_prefix(layer, key, new, start) for key, new in (("k", k), ("v", v)))
        if held is None and not {"pattern", "log_pattern"} & {*taps}:
            z = self._attend(layer, q, k, v, queries).unflatten(0, (cells, -1))
        else:
            z = self._attend_by_pattern(layer, q, k, v, queries, cells, taps, held)
        z = tapped(taps, "z", z)
        attn_out = tapped(taps, "attn_out", self._written(layer, z))
        return self._rest(layer, entering, attn_out, taps)

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

    def after_attention(self, layer: int, delta: Tensor, positions: Tensor) -> Tensor:
        """The stream after the layer if `delta [cell, prompt, read, d_model]` is added to what attention writes."""
        kept = self.clean[layer]
        if not self.serial:
            return at_positions(kept["resid_post"][None], positions) + delta
        mid = at_positions(kept["resid_mid"][None], positions) + delta
        return mid + self._mlp(layer, mid)

    def written_by_heads(self, layer: int, z: Tensor, heads: list[int]) -> Tensor:
        """What these heads write, `[head, prompt, position, d_model]`, from `z [prompt, position, head, d_head]`."""
        return torch.einsum("pshd,hdm->hpsm", z[:, :, heads], self.model.blocks[layer].attn.W_O[heads])

    def _step_from_one(self, layer: int, rows: Tensor, start: int, reads: Tensor | None) -> Tensor:
        """The stream after the layer if only position `start` of its input changed.

        Later positions keep their queries; only one key and value is new to them.
        """
        kept, cells, length = self.clean[layer], len(rows), self.length
        q1, k1, v1 = (
            per_query_head(each, self.cfg.n_heads, 2).unflatten(0, (cells, -1))
            for each in self._qkv(layer, rows, start)
        )  # [cell, prompt, 1, head, d_head]
        queries = self._queries(layer, start + 1) if reads is None else reads
        z = self._one_key_changed(layer, k1, v1, start, queries)
        if reads is None:
            own = self._attend(
                layer, q1.flatten(0, 1), self._with_prefix(layer, "k", k1.flatten(0, 1), start),
                self._with_prefix(layer, "v", v1.flatten(0, 1), start), self._queries(layer, start)[:, :1],
            )  # fmt: skip
            z = torch.cat([own.unflatten(0, (cells, -1)), z], 2)
            entering = self._spread(layer, rows, start)
        else:
            entering = at_positions(kept["resid_pre"][None], queries).expand(cells, -1, -1, -1)
        attn_out = self._written(layer, z)
        if self.serial or self.cfg.attn_only:
            return self._rest(layer, entering, attn_out, {})
        if reads is not None:
            return entering + attn_out + at_positions(kept["mlp_out"][None], queries)
        mlp_out = kept["mlp_out"][None, :, start:length].expand(cells, -1, -1, -1)
        mlp_out = torch.cat([self._mlp(layer, rows), mlp_out[:, :, 1:]], 2)
        return entering + attn_out + mlp_out

    def _one_key_changed(self, layer: int, k1: Tensor, v1: Tensor, start: int, queries: Tensor) -> Tensor:
        """`z [cell, prompt, query, head, d_head]` of the untouched queries if the key and value at `start` changed.

        The softmax over the other keys is computed once for all cells; the changed key's attention follows from the
        log-sum-exp of the other scores.
        """
        kept, heads = self.clean[layer], self.cfg.n_heads
        scale = float(self.model.blocks[layer].attn.attn_scale)
        q = at_positions(kept["q"][None], queries.expand(len(kept["q"]), -1))[0]
        k, v = (per_query_head(kept[key], heads, 2) for key in "kv")
        scores = torch.einsum("pqhd,pkhd->phqk", q, k) / scale
        place = self._queries(layer)
        seen = (place <= queries[..., None]) & (place != start)
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        others = scores.logsumexp(-1)
        before = torch.einsum("phqk,pkhd->pqhd", (scores - others[..., None]).exp(), v)
        new = torch.einsum("pqhd,cphd->cphq", q, k1[:, :, 0]) / scale
        share = torch.sigmoid(new - others).transpose(-1, -2)[..., None]
        return before + share * (v1 - before)

    def _spread(self, layer: int, rows: Tensor, start: int) -> Tensor:
        """Rows of one changed position, followed by the untouched positions after it."""
        after = self.clean[layer]["resid_pre"][None, :, start + 1 :]
        return torch.cat([rows, after.expand(len(rows), -1, -1, -1)], 2)

    def _with_prefix(self, layer: int, key: str, new: Tensor, start: int) -> Tensor:
        """Keys or values `[row, position >= start, head, d_head]`, with those of the untouched run before them."""
        before = per_query_head(self.clean[layer][key][:, :start], new.shape[2], 2)
        return torch.cat([before.repeat(len(new) // len(before), 1, 1, 1), new], 1)

"""The lane for standard decoders: a layer is run again from the model's parameters, on part of its positions.

A lane is a way of running layers again. Here only positions at or after an edit run again, and edited runs (cells) that
start at different positions share every product of a layer but its attention: see `_rows`. `_layers` computes one layer
and says which models are supported; `_stored_attention` computes attention, `_final_logits` the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor

from ..model._anatomy import Model
from ..model._runs import stream
from ._capture import Taps
from ._rows import Part, Rows, each_tapped, leaving, own, rows_at, tapped, untouched_at
from ._stored_attention import StoredAttention

__all__ = ["Decoder"]


class Decoder(StoredAttention):
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
            q, kept["k"], kept["v"] = self._qkv(layer, resid)
            kept["q"] = q
            kept["z"] = self._attend(layer, q, kept["k"], kept["v"], self._queries(layer))
            attn_out = self.maps[layer].written(kept["z"])
            if self.serial:
                kept["resid_mid"] = resid + attn_out
                resid = kept["resid_mid"] + self.maps[layer].mlp(kept["resid_mid"])
            elif self.cfg.attn_only:
                resid = resid + attn_out
            else:
                kept["mlp_out"] = self.maps[layer].mlp(resid)
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
            return self.maps[layer].written(kept["z"])
        return kept[site] if site in kept else self.maps[layer].mlp(kept["resid_mid"])

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
        rows: Rows,
        *,
        reads: Tensor | None = None,
        taps: Sequence[Taps] | None = None,
        held: Tensor | None = None,
    ) -> Rows:
        """The rows after the layer, at all positions from each start on, or at `reads` where these are fewer.

        Args:
            layer: the layer to run.
            rows: the stream that enters it.
            reads: `[prompt, read]`, the positions wanted; None for all.
            taps: for each part, functions that replace activations in the layer, by site.
            held: the pattern to hold fixed.
        """
        taps = [{}] * len(rows.parts) if taps is None else taps
        ends = [leaving(part, reads, self.length) for part in rows.parts]
        to = [
            leaving(part, None, self.length) if tap else end
            for part, end, tap in zip(rows.parts, ends, taps, strict=True)
        ]
        rows = self._wide_enough(layer, rows.on(self._device(layer)), to, taps, held)
        rows = each_tapped(rows, taps, "resid_pre")
        own_rows = rows_at(rows, [own(part, end) for part, end in zip(rows.parts, to, strict=True)])
        z = self._z(layer, rows, own_rows, to, taps, held)
        attn_out = each_tapped(z.with_flat(self.maps[layer].written(z.flat)), taps, "attn_out")
        after = self._after_attention(layer, own_rows, attn_out, taps)
        return rows_at(each_tapped(after, taps, "resid_post"), ends)

    def _wide_enough(
        self, layer: int, rows: Rows, to: Sequence[Part], taps: Sequence[Taps], held: Tensor | None
    ) -> Rows:
        """The rows, where a part that cannot be run from a single row gets the untouched positions after it."""

        def wide_enough(part: Part, end: Part, tap: Taps) -> Part:
            own_or_later = end.at.shape[1] == self.length - part.start or bool((end.at > part.start).all())
            can_run = not part.is_narrow or (held is None and not tap and own_or_later)
            return part if can_run else leaving(part, None, self.length)

        parts = [wide_enough(*each) for each in zip(rows.parts, to, taps, strict=True)]
        return self._filled(layer, "resid_pre", rows, parts)

    def _filled(self, layer: int, site: str, rows: Rows, to: Sequence[Part]) -> Rows:
        """The rows at the positions of these parts, untouched where a narrow part has none of its own."""
        if all(part.at.shape == end.at.shape for part, end in zip(rows.parts, to, strict=True)):
            return rows
        views = []
        for part, end, view in zip(rows.parts, to, rows.views, strict=True):
            width = view.shape[2]
            later = untouched_at(self.clean[layer][site], end)[:, :, width:].expand(len(view), -1, -1, -1)
            views.append(view if part.at.shape == end.at.shape else torch.cat([view, later], 2))
        return Rows.of(to, rows.n_prompts, views)

    def _z(
        self,
        layer: int,
        rows: Rows,
        asking: Rows,
        to: Sequence[Part],
        taps: Sequence[Taps],
        held: Tensor | None,
    ) -> Rows:
        """z at the positions of `to`: keys and values are those of the rows, queries those of the rows asking."""
        normed = rows.with_flat(self.maps[layer].normed(rows.flat))
        sources = {"q": rows_at(normed, asking.parts), "k": normed, "v": normed}
        found = {
            key: each_tapped(source.with_flat(self.maps[layer].projected(key, source.flat)), taps, key)
            for key, source in sources.items()
        }
        if self.cfg.positional_embedding_type == "rotary":
            for key in "qk":
                here = found[key]
                at = here.positions.to(here.flat.device)
                found[key] = here.with_flat(self._rotated(layer, here.flat, at))
        views = []
        later = self._z_of_reads(layer, rows, found["q"], found["k"], found["v"], to)
        of_parts = zip(rows.parts, to, *(found[key].views for key in "qkv"), taps, strict=True)
        for part, end, q, k, v, tap in of_parts:
            if not part.is_narrow:
                views.append(tapped(tap, "z", self._z_of(layer, part.start, end.at, q, k, v, tap, held)))
            elif q.shape[2]:
                views.append(self._z_from_one(layer, part.start, q, k, v))
            else:
                views.append(later.pop(0))
        return Rows.of(to, rows.n_prompts, views)

    def _z_of_reads(
        self, layer: int, rows: Rows, q: Rows, k: Rows, v: Rows, to: Sequence[Part]
    ) -> list[Tensor]:
        """z of the narrow parts that only later positions leave, all together: they are the same in each."""
        narrow = [
            part.is_narrow and not asked.shape[2] for part, asked in zip(rows.parts, q.views, strict=True)
        ]
        if not any(narrow):
            return []
        parts = list(compress(rows.parts, narrow))
        starts = [part.start for part in parts for _ in part.ids]
        k1, v1 = (torch.cat(list(compress(each.views, narrow))) for each in (k, v))
        reads = next(compress(to, narrow)).at.to(k1.device)
        z = self._one_key_changed(layer, starts, reads, k1, v1)
        return list(z.split([len(part.ids) for part in parts]))

    def _after_attention(self, layer: int, own_rows: Rows, attn_out: Rows, taps: Sequence[Taps]) -> Rows:
        """The stream after the layer, from the rows that enter it and attention's output."""
        entering = self._filled(layer, "resid_pre", own_rows, attn_out.parts)
        after = attn_out.with_flat(entering.flat + attn_out.flat)
        if self.cfg.attn_only:
            return after
        if self.serial:
            after = each_tapped(after, taps, "resid_mid")
            mlp_out = after.with_flat(self.maps[layer].mlp(after.flat))
        else:
            mlp_out = own_rows.with_flat(self.maps[layer].mlp(own_rows.flat))
            mlp_out = self._filled(layer, "mlp_out", mlp_out, attn_out.parts)
        return after.with_flat(after.flat + each_tapped(mlp_out, taps, "mlp_out").flat)

    def after(self, layer: int, site: str, delta: Rows) -> Rows:
        """The stream after the layer if delta is added to the untouched activation at a site after attention."""

        def added(base: str) -> Rows:
            views = [
                untouched_at(self.clean[layer][base], part) + view
                for part, view in zip(delta.parts, delta.views, strict=True)
            ]
            return Rows.of(delta.parts, delta.n_prompts, views)

        if site in ("mlp_out", "resid_post") or not self.serial:
            return added("resid_post")
        mid = added("resid_mid")
        return mid.with_flat(mid.flat + self.maps[layer].mlp(mid.flat))

    def written_by_heads(self, layer: int, z: Tensor, heads: list[int]) -> Tensor:
        """What these heads write, `[head, prompt, position, d_model]`, from `z [prompt, position, head, d_head]`."""
        return torch.einsum("pshd,hdm->hpsm", z[:, :, heads], self.maps[layer].w_o[heads])

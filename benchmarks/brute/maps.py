"""The weights of a model by probing: what becomes of unit vectors put into a run. No parameter is looked at."""

from typing import Any

import torch
from torch import Tensor

from .runs import logits, name, seen, uncapped


class Maps:
    """The linear maps of a model, norms folded in: no parameter is looked at."""

    def __init__(self, model: Any) -> None:
        self.model, self.size = model, model.cfg.d_model
        self.unit = torch.eye(self.size, dtype=torch.float64)
        self.n_heads, self.d_head = model.cfg.n_heads, model.cfg.d_head
        self._kept: dict[Any, Any] = {}

    def of(self, site: str, layer: int) -> tuple[Tensor, Tensor]:
        """W `[d_model, ...]` and its value at a stream of zeros, of q, k, v `[head, d_head]` or logits `[vocab]`."""
        key = (site, layer)
        if key not in self._kept:
            long = (
                1 if self.model.cfg.normalization_type is None else 2**20
            )  # a norm's epsilon is nothing beside it
            one, two, other = (self._through(site, layer, by * self.unit) for by in (long, 2 * long, -long))
            at_zero = (one + other) / 2
            odd = (one - other) / 2
            if float((two - one).abs().max()) > 1e-3 * float((one - at_zero).abs().max()):  # no norm
                self._kept[key] = odd / long, at_zero[0]
            else:
                centred = self.centred(site, layer)
                size = (self.unit - centred / self.size).square().mean(-1).sqrt()
                self._kept[key] = odd * size[0], at_zero[0]
        return self._kept[key]

    def centred(self, site: str, layer: int) -> bool:
        """Whether the norm that reads the stream takes its mean away."""
        long = 2**10 * self.unit
        one, shifted = self._through(site, layer, long), self._through(site, layer, long + 2**12)
        return bool((one - shifted).abs().max() < 1e-5 * one.abs().max())

    def _through(self, site: str, layer: int, rows: Tensor) -> Tensor:
        """What `rows [row, d_model]` in the stream before a layer become; one row a prompt of one token."""
        put = (
            name("resid_post", self.model.cfg.n_layers - 1) if site == "logits" else name("resid_pre", layer)
        )
        found = []
        for row in rows.split(1):
            hooks: list[Any] = [(put, lambda old, hook, row=row: row[None].to(old))]
            if site == "logits":
                out = uncapped(self.model, logits(self.model, [0], hooks))
            else:
                kept = []
                hooks.append((name(site, layer), lambda old, hook, kept=kept: kept.append(old[0].clone())))
                logits(self.model, [0], hooks)
                out = kept[0]
                if out.shape[1] != self.n_heads:
                    out = out.repeat_interleave(self.n_heads // out.shape[1], 1)
            found.append(out[0])
        return torch.stack(found)

    def value(self, layer: int) -> tuple[Tensor, Tensor]:
        """W_V `[head, d_model, d_head]` and b_V `[head, d_head]`."""
        w, bias = self.of("v", layer)
        return w.transpose(0, 1), bias

    def reading(self, site: str, layer: int) -> Tensor:
        """W_Q or W_K `[head, d_model, d_head]`."""
        return self.of(site, layer)[0].transpose(0, 1)

    def output(self, layer: int) -> Tensor:
        """W_O `[head, d_head, d_model]`, without a mean where the norms take it away."""
        if ("o", layer) not in self._kept:
            zeros = torch.zeros(self.n_heads, self.d_head, dtype=torch.float64)
            base, rows = self._written(layer, zeros), []
            ones = [self._written(layer, by * torch.ones_like(zeros)) - base for by in (1, 2)]
            if float((ones[1] - 2 * ones[0]).abs().max()) > 1e-3 * float(ones[1].abs().max()):
                return self.model.blocks[
                    layer
                ].attn.W_O.detach()  # a norm behind attention: nothing linear to probe
            for head in range(self.n_heads):
                for i in range(self.d_head):
                    z = zeros.clone()
                    z[head, i] = 1
                    rows.append(self._written(layer, z) - base)
            w = torch.stack(rows).unflatten(0, (self.n_heads, self.d_head))
            if self.final_centred():
                w = w - w.mean(-1, keepdim=True)
            self._kept["o", layer] = w
        return self._kept["o", layer]

    def final_centred(self) -> bool:
        """Whether the stream loses its mean in the end; in OPT-350m a LayerNorm behind each layer takes it away."""
        if getattr(self.model.cfg, "do_layer_norm_before", True) is False:
            return True
        if "centred" not in self._kept:
            w, _ = self.of("logits", -1)
            self._kept["centred"] = bool(w.sum(0).abs().max() < 1e-5 * w.abs().max()) and self.centred(
                "logits", -1
            )
        return self._kept["centred"]

    def _written(self, layer: int, z: Tensor) -> Tensor:
        hooks = [(name("z", layer), lambda old, hook: z[None, None].to(old))]
        return seen(self.model, [0], ["attn_out"], hooks)["attn_out", layer][0]

    def unembedding(self) -> Tensor:
        """W_U `[d_model, vocab]`, as it reads the stream."""
        return self.of("logits", -1)[0]

    def embedding(self) -> Tensor:
        """W_E `[vocab, d_model]`, as it enters the stream, positions apart."""
        if "e" not in self._kept:
            rows = []
            for token in range(self.model.cfg.d_vocab):
                kept: dict[str, Tensor] = {}

                def keep(key: str, kept: dict[str, Tensor] = kept) -> Any:
                    return lambda old, hook: kept.update({key: old.reshape(-1, old.shape[-1])[0].clone()})

                hooks = [(name("resid_pre", 0), keep("stream"))]
                if "hook_pos_embed" in self.model.hook_dict:
                    hooks.append(("hook_pos_embed", keep("position")))
                logits(self.model, [token], hooks)
                shortformer = getattr(self.model.cfg, "positional_embedding_type", "") == "shortformer"
                rows.append(kept["stream"] - (0 if shortformer else kept.get("position", 0)))
            self._kept["e"] = torch.stack(rows)
        return self._kept["e"]

    def with_first_mlp(self, embedded: Tensor) -> Tensor:
        """What block 0 makes of each row where its attention adds nothing."""
        out = []
        for row in embedded:
            hooks = [
                (name("resid_pre", 0), lambda old, hook, row=row: row[None, None].to(old)),
                (name("attn_out", 0), lambda old, hook: torch.zeros_like(old)),
            ]
            out.append(seen(self.model, [0], ["resid_post"], hooks)["resid_post", 0][0])
        return torch.stack(out)

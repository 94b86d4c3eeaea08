"""Final norm and unembedding of a standard decoder, from the model's parameters: logits of some tokens, or of all.

Only the logits that are asked for are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model._anatomy import full_precision
from ._layers import Layers

__all__ = ["Unembedding"]

_BLOCK = (512, 2048)  # rows and tokens unembedded at a time, so that they stay in the processor's cache


class Unembedding(Layers):
    """The layers of one model, and the final norm and unembedding after the last."""

    def logits(self, resid: Tensor) -> Tensor:
        """Logits `[..., vocab]` of the final residual stream `[..., d_model]`."""
        flat = self._normed_at_the_end(resid).reshape(-1, resid.shape[-1])
        return self._capped(torch.addmm(self.model.b_U, flat, self.model.W_U)).reshape(*resid.shape[:-1], -1)

    def log_sum_exp(self, resid: Tensor) -> Tensor:
        """Log-sum-exp `[...]` over the vocabulary, of the final stream `[..., d_model]`; no logits are kept."""
        flat = self._normed_at_the_end(resid).reshape(-1, resid.shape[-1])
        unembed = self.model.W_U.split(_BLOCK[1], 1), self.model.b_U.split(_BLOCK[1])
        rows = []
        for part in flat.split(_BLOCK[0]):
            found = [
                full_precision(self._capped(torch.addmm(bias, part, weights))).logsumexp(-1)
                for weights, bias in zip(*unembed, strict=True)
            ]
            rows.append(torch.stack(found).logsumexp(0))
        return torch.cat(rows).view(resid.shape[:-1])

    def log_probabilities_of_heads(
        self, layer: int, resid: Tensor, z: Tensor, heads: list[int], ids: Tensor
    ) -> Tensor:
        """Log-probabilities `[head, row, target]` of `ids [row, target]` if a head of the last layer adds to its z.

        `z [row, head, d_head]` is what each head adds. That changes each row by d_head numbers times W_O, so the change
        of the logits is computed from W_O W_U of the head, not from d_model numbers; the norm's scale is the head's
        own.
        """
        norm: Any = getattr(self.model, "ln_final", None)
        centres = type(norm).__name__.startswith("LayerNorm")
        end = self.model.W_U.device
        weight, bias = (
            None if each is None else each.to(end) for each in (getattr(norm, key, None) for key in "wb")
        )
        written = self.model.blocks[layer].attn.W_O[heads]

        def inside(stream: Tensor) -> Tensor:
            stream = stream - stream.mean(-1, keepdim=True) if centres else stream
            return stream if weight is None else stream * weight

        after = (resid + torch.einsum("rhd,hdm->hrm", z, written)).to(end)
        resid, z, written = (each.to(end) for each in (resid, z, written))
        scale = after.var(-1, unbiased=False) if centres else after.pow(2).mean(-1)
        scale = torch.ones_like(scale) if norm is None else (scale + norm.eps).rsqrt()
        resid, written, found = inside(resid), inside(written), []
        for unembed, constant in zip(
            self.model.W_U.split(_BLOCK[1], 1), self.model.b_U.split(_BLOCK[1]), strict=True
        ):
            constant = constant if bias is None else constant + bias @ unembed
            before, of_head = resid @ unembed, written @ unembed
            logits = (torch.addmm(before, z[:, i], each) for i, each in enumerate(of_head))
            scaled = (each * by[:, None] + constant for each, by in zip(logits, scale, strict=True))
            found.append(torch.stack([each.logsumexp(-1) for each in scaled]))
        targets = self.target_logits(after[:, :, None], ids[:, None])[:, :, 0]
        return targets - torch.stack(found).logsumexp(0)[..., None]

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        normed = self._normed_at_the_end(resid)
        ids = ids.to(normed.device)
        columns = self.model.W_U[:, ids.flatten()].view(-1, *ids.shape)
        return self._capped(torch.einsum("cprm,mprt->cprt", normed, columns) + self.model.b_U[ids])

    def _normed_at_the_end(self, resid: Tensor) -> Tensor:
        """The final stream after the final norm, on the unembedding's device; each may be on a device of its own."""
        norm = getattr(self.model, "ln_final", None)
        weight = getattr(norm, "w", None)
        return self._norm(norm, resid if weight is None else resid.to(weight.device)).to(
            self.model.W_U.device
        )

    def _capped(self, logits: Tensor) -> Tensor:
        cap = getattr(self.cfg, "output_logits_soft_cap", -1.0) or -1.0
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

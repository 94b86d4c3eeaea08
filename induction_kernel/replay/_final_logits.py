"""Final norm and unembedding of a standard decoder, from the model's parameters: logits of some tokens, or of all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model._norms import norm_scale
from ..model._unembedding import PIECE, LinearUnembedding, unembedding_of
from ._layers import Layers
from ._maps import final_norm

__all__ = ["Unembedding"]


class Unembedding(Layers):
    """The layers of one model, and the final norm and unembedding after the last."""

    def logits(self, resid: Tensor) -> Tensor:
        """Logits `[..., vocab]` of the final residual stream `[..., d_model]`."""
        return self._unembedding.logits(final_norm(self.model, resid))

    def target_logits(self, resid: Tensor, ids: Tensor) -> Tensor:
        """Logits of `ids [prompt, read, target]` for `resid [cell, prompt, read, d_model]`."""
        return self._unembedding.target_logits(final_norm(self.model, resid), ids)

    def log_probabilities(self, resid: Tensor, ids: Tensor) -> Tensor:
        """The same of log-probabilities, in float32 or better; logits of the whole vocabulary are not kept."""
        return self._unembedding.log_probabilities(final_norm(self.model, resid), ids)

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
        written = self.maps[layer].w_o[heads]

        def inside(stream: Tensor) -> Tensor:
            stream = stream - stream.mean(-1, keepdim=True) if centres else stream
            return stream if weight is None else stream * weight

        after = (resid + torch.einsum("rhd,hdm->hrm", z, written)).to(end)
        resid, z, written = (each.to(end) for each in (resid, z, written))
        scale = norm_scale(self.model, norm, after).reciprocal()
        resid, written, found = inside(resid), inside(written), []
        for unembed, constant in zip(
            self.model.W_U.split(PIECE[1], 1), self.model.b_U.split(PIECE[1]), strict=True
        ):
            constant = constant if bias is None else constant + bias @ unembed
            before, of_head = resid @ unembed, written @ unembed
            logits = (torch.addmm(before, z[:, i], each) for i, each in enumerate(of_head))
            scaled = (each * by[:, None] + constant for each, by in zip(logits, scale, strict=True))
            found.append(torch.stack([each.logsumexp(-1) for each in scaled]))
        targets = self.target_logits(after[:, :, None], ids[:, None])[:, :, 0]
        return targets - torch.stack(found).logsumexp(0)[..., None]

    @property
    def _unembedding(self) -> LinearUnembedding:
        found = unembedding_of(self.model)
        assert found is not None, "`supports` accepts only linear unembeddings"
        return found

"""A linear unembedding: logits of some tokens or of all, and log-probabilities, computed in pieces.

Only what is asked for is kept: logits of the whole vocabulary are in memory for a few rows at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._anatomy import Model, full_precision

__all__ = ["PIECE", "LinearUnembedding", "capped", "unembedding_of"]

PIECE = (512, 2048)  # rows and tokens unembedded at a time, so that they stay in the processor's cache


class LinearUnembedding(NamedTuple):
    """An unembedding that is one matrix product, and what reads logits from it.

    Attributes:
        weight: `[d_model, vocab]`.
        bias: `[vocab]`.
        model: the model, for its cap on logits.
    """

    weight: Tensor
    bias: Tensor
    model: Model

    def logits(self, normed: Tensor) -> Tensor:
        """Logits `[..., vocab]` of the output of the final norm, `[..., d_model]`."""
        flat = normed.reshape(-1, normed.shape[-1]).to(self.weight.device)
        logits = torch.addmm(self.bias, flat, self.weight)
        return capped(self.model, logits).view(*normed.shape[:-1], logits.shape[-1])  # there may be no rows

    def target_logits(self, normed: Tensor, ids: Tensor) -> Tensor:
        """Logits `[cell, prompt, read, target]` of `ids [prompt, read, target]`, from these columns alone."""
        normed, ids = normed.to(self.weight.device), ids.to(self.weight.device)
        columns = self.weight[:, ids.flatten()].view(len(self.weight), *ids.shape)
        return capped(self.model, torch.einsum("cprm,mprt->cprt", normed, columns) + self.bias[ids])

    def log_probabilities(self, normed: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities `[cell, prompt, read, target]` of `ids [prompt, read, target]`, in float32 or better."""
        rows, pieces = [], (self.weight.split(PIECE[1], 1), self.bias.split(PIECE[1]))
        normed = normed.to(self.weight.device)
        for part in normed.reshape(-1, normed.shape[-1]).split(PIECE[0]):
            found = [
                full_precision(capped(self.model, torch.addmm(bias, part, weight))).logsumexp(-1)
                for weight, bias in zip(*pieces, strict=True)
            ]
            rows.append(torch.stack(found).logsumexp(0))
        total = torch.cat(rows).view(*normed.shape[:-1], 1)
        return full_precision(self.target_logits(normed, ids)) - total


def unembedding_of(model: Model) -> LinearUnembedding | None:
    """The unembedding of a HookedTransformer, or of a Bridge around a plain linear layer; None if it is another.

    And None if the user replaced its code.
    """
    module: Any = model
    module = module.unembed
    if type(module).__name__ == "Unembed":
        return LinearUnembedding(module.W_U, module.b_U, model) if _is_as_built(module) else None
    linear = getattr(module, "original_component", None)
    if type(linear) is not torch.nn.Linear or not _is_as_built(linear):
        return None
    bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
    return LinearUnembedding(linear.weight.T, bias, model)


def _is_as_built(linear: torch.nn.Module) -> bool:
    """Whether the layer computes what its weights say: nobody replaced its code, or only to bring inputs to its device.

    Accelerate does that, and it may also keep weights elsewhere between calls.
    """
    placing = getattr(linear, "_hf_hook", None)
    return "forward" not in vars(linear) or (placing is not None and not getattr(placing, "offload", True))


def capped(model: Model, logits: Tensor) -> Tensor:
    """The logits, through the model's soft cap if it has one."""
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0) or -1.0
    return cap * torch.tanh(logits / cap) if cap > 0 else logits

"""A short run of a loaded model compared with the original, before the model is returned.

A conversion or wrapper that is silently wrong would make every later number wrong. The run has at most 16 tokens, so
differences at later positions (scaled rotary embeddings, windows) are not seen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import Refused
from ._build import quietly

__all__ = ["check_same", "short_run"]

# How far log-probabilities may be from the original's, relative to their standard deviation. Both models round each
# operation in their dtype, in different orders (and rotary angles and norms in float32 even in float64).
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}


@torch.no_grad()
def short_run(model: Any, d_vocab: int, n_ctx: int, name: str) -> Tensor:
    """Log-probabilities `[1, position, vocab]` on tokens spread over the vocabulary, on the CPU.

    Raises:
        Refused: the model does not run.
    """
    tokens = torch.linspace(0, d_vocab - 1, min(16, n_ctx), dtype=torch.float64).long()[None]
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            output = model(tokens.to(next(model.parameters()).device))
    except (RuntimeError, ValueError) as error:
        raise Refused(f"{name} does not run: {error}") from error
    logits = getattr(output, "logits", output)
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def check_same(ours: Tensor, theirs: Tensor, dtype: torch.dtype, name: str, remedy: str) -> None:
    """Compare the short runs of a TransformerLens model and of the Hugging Face model it was made from.

    Raises:
        Refused: they differ by more than rounding in `dtype`.
    """
    difference = ((ours - theirs).pow(2).mean().sqrt() / theirs.std().clamp_min(1e-3)).item()
    if not difference < _TOLERANCE[dtype]:
        raise Refused(
            f"{name} differs from the Hugging Face model by {difference:.1g} of its log-probabilities' standard "
            f"deviation (in {dtype}, rounding explains at most {_TOLERANCE[dtype]}); {remedy}"
        )

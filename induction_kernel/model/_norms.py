"""What a norm of the model does to a row of numbers: by how much it divides, and what it gives.

Each norm is asked for its own epsilon. `_weights` folds norms into the weights that read them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import NotDefined
from ._anatomy import Model
from ._weights import norm_parts

__all__ = ["final_norm_scale", "norm_scale", "normed"]


def final_norm_scale(model: Model, rows: Tensor) -> Tensor:
    """What the final norm divides each row of a residual stream `[..., d_model]` by, `[...]`."""
    return norm_scale(model, getattr(model, "ln_final", None), rows)


def norm_scale(model: Model, norm: Any, rows: Tensor) -> Tensor:
    """What a norm divides each row `[..., width]` by, `[...]`; 1 where there is no norm.

    Raises:
        NotDefined: a norm that does not say its epsilon.
    """
    if norm is None or getattr(model.cfg, "normalization_type", None) is None:
        return rows.new_ones(rows.shape[:-1])
    if norm_parts(model, norm)[0]:
        rows = rows - rows.mean(-1, keepdim=True)
    return (rows.square().mean(-1) + _epsilon(norm)).sqrt()


def normed(model: Model, norm: Any, rows: Tensor) -> Tensor:
    """What a norm gives for rows `[..., width]`, in their own precision."""
    centred, factor, shift = norm_parts(model, norm)
    out = (rows - rows.mean(-1, keepdim=True) if centred else rows) / norm_scale(model, norm, rows)[..., None]
    out = out if factor is None else out * factor.to(out)
    return out if shift is None else out + shift.to(out)


def _epsilon(norm: Any) -> float:
    """What a norm adds to the mean square.

    A Bridge's norm has that of the module it wraps (Llama calls it `variance_epsilon`), or, where TransformerLens
    computes the norm itself, that of its configuration.
    """
    asked = [(norm, "eps"), (norm, "variance_epsilon")]
    config = getattr(norm, "config", None)
    by_module = getattr(norm, "use_native_layernorm_autograd", True) or getattr(
        config, "layer_norm_folding", False
    )
    found = (getattr(of, name, None) for of, name in (asked if by_module else [(config, "eps"), *asked]))
    value = next((each for each in found if each is not None), None)
    if value is None:
        raise NotDefined(
            f"a {type(norm).__name__} of this model does not say what it adds before it divides, so nothing can be "
            "read through it: use ablate instead"
        )
    return float(value)

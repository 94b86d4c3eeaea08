"""What a layer computes at each position, apart from attention: norms, projections, rotation and MLP.

Of a HookedTransformer this is computed from its parameters, of a TransformerBridge by the modules that it wraps. No
copy of the weights is kept. `_layers` puts them together.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model._anatomy import Model, is_bridge
from ._rotary import Rotary, rotary_of, rotary_of_bridge

__all__ = ["Maps", "final_norm", "maps_of"]


class Maps(Protocol):
    """The maps of one layer.

    Attributes:
        scale: attention scores are divided by it.
        w_o: `[head, d_head, d_model]`, what writes z to the stream.
    """

    @property
    def scale(self) -> float: ...

    @property
    def w_o(self) -> Tensor: ...

    def normed(self, resid: Tensor) -> Tensor:
        """What queries, keys and values read, `[..., d_model]`."""
        ...

    def projected(self, key: str, normed: Tensor) -> Tensor:
        """Queries, keys or values ("q", "k" or "v"), `[..., head, d_head]`, of `normed [..., d_model]`."""
        ...

    def rotary(self, length: int) -> Rotary:
        """The rotation of queries and keys in prompts of this length."""
        ...

    def written(self, z: Tensor) -> Tensor:
        """Attention's output `[..., d_model]`, from `z [..., head, d_head]`."""
        ...

    def mlp(self, resid: Tensor) -> Tensor:
        """The MLP's output `[..., d_model]`, norm included."""
        ...


def maps_of(model: Model) -> list[Maps]:
    """The maps of each layer."""
    kind = _BridgeMaps if is_bridge(model) else _HookedMaps
    return [kind(model, layer) for layer in range(model.cfg.n_layers)]


class _HookedMaps:
    def __init__(self, model: Model, layer: int) -> None:
        self.cfg: Any = model.cfg
        self.block: Any = model.blocks[layer]

    @property
    def scale(self) -> float:
        return float(self.block.attn.attn_scale)

    @property
    def w_o(self) -> Tensor:
        return self.block.attn.W_O

    def normed(self, resid: Tensor) -> Tensor:
        return _normed(self.block.ln1, resid)

    def projected(self, key: str, normed: Tensor) -> Tensor:
        weights, bias = (_weights(self.block.attn, f"{kind}_{key.upper()}") for kind in "Wb")
        flat = normed.reshape(-1, normed.shape[-1])
        out = torch.addmm(bias.flatten(), flat, weights.transpose(0, 1).flatten(1))
        return out.view(*normed.shape[:-1], *weights.shape[::2])

    def rotary(self, length: int) -> Rotary:
        return rotary_of(self.block.attn, length)

    def written(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, z.shape[-2] * z.shape[-1])
        out = torch.addmm(self.block.attn.b_O, flat, self.w_o.flatten(0, 1))
        return out.view(*z.shape[:-2], out.shape[-1])  # there may be no rows

    def mlp(self, resid: Tensor) -> Tensor:
        normed, mlp = _normed(self.block.ln2, resid).reshape(-1, resid.shape[-1]), self.block.mlp
        act = None if self.cfg.is_layer_norm_activation() else _ACTIVATIONS.get(self.cfg.act_fn)
        kind, exact = type(mlp).__name__, resid.dtype in (torch.float32, torch.float64)
        if act is not None and kind == "MLP":
            hidden = act(torch.addmm(mlp.b_in, normed, mlp.W_in))
        elif act is not None and kind == "GatedMLP" and exact:
            # The module itself copies its weights in each run, unless they are laid out as it reads them.
            hidden = act(normed @ mlp.W_gate) * (normed @ mlp.W_in) + mlp.b_in
        else:
            return mlp(normed[None])[0].view(resid.shape)
        return torch.addmm(mlp.b_out, hidden, mlp.W_out).view(resid.shape)


class _BridgeMaps:
    def __init__(self, model: Model, layer: int) -> None:
        self.model, self.layer = model, layer
        self.cfg: Any = model.cfg
        self.block: Any = model.blocks[layer]

    @property
    def scale(self) -> float:
        return float(getattr(self.block.attn.original_component, "scale", math.sqrt(self.cfg.d_head)))

    @property
    def w_o(self) -> Tensor:
        return self.block.attn.W_O

    def normed(self, resid: Tensor) -> Tensor:
        return self.block.ln1.original_component(resid)

    def projected(self, key: str, normed: Tensor) -> Tensor:
        out = getattr(self.block.attn, key).original_component(normed)
        return out.unflatten(-1, (out.shape[-1] // self.cfg.d_head, self.cfg.d_head))  # there may be no rows

    def rotary(self, length: int) -> Rotary:
        return rotary_of_bridge(self.model, self.layer, length)

    def written(self, z: Tensor) -> Tensor:
        return self.block.attn.o.original_component(z.flatten(-2))

    def mlp(self, resid: Tensor) -> Tensor:
        norm, mlp = getattr(self.block, "ln2", None), self.block.mlp
        # GPT-J's attention and MLP share a norm.
        normed = (self.block.ln1 if norm is None else norm).original_component(resid)
        if type(mlp).__name__ != "MLPBridge" or self.cfg.act_fn not in _ACTIVATIONS:
            return mlp(normed.view(1, -1, resid.shape[-1])).view(resid.shape)
        first, second = (getattr(mlp, key).original_component for key in ("in", "out"))
        return second(_ACTIVATIONS[self.cfg.act_fn](first(normed)))


def final_norm(model: Model, resid: Tensor) -> Tensor:
    """The final stream after the final norm, on the norm's device, which may be another than the last layer's."""
    norm: Any = getattr(model, "ln_final", None)
    weight = next(norm.parameters(), None) if norm is not None else None
    resid = resid if weight is None else resid.to(weight.device)
    return norm.original_component(resid) if is_bridge(model) and norm is not None else _normed(norm, resid)


def _normed(norm: Any, resid: Tensor) -> Tensor:
    """The output of a HookedTransformer's norm."""
    if norm is None:  # a model without norms
        return resid
    kind, shape = type(norm).__name__, resid.shape[-1:]
    exact = resid.dtype in (torch.float32, torch.float64)
    if kind in ("LayerNorm", "LayerNormPre") and exact:
        return F.layer_norm(resid, shape, getattr(norm, "w", None), getattr(norm, "b", None), float(norm.eps))
    if kind in ("RMSNorm", "RMSNormPre") and exact:
        return F.rms_norm(resid, shape, getattr(norm, "w", None), float(norm.eps))
    return norm(resid.reshape(1, -1, resid.shape[-1])).view(resid.shape)


_ACTIVATIONS = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda hidden: F.gelu(hidden, approximate="tanh"),
}


def _weights(attention: Any, name: str) -> Tensor:
    """Weights of key/value heads, not repeated: with grouped-query attention they have a leading underscore."""
    return getattr(attention, f"_{name}" if hasattr(attention, f"_{name}") else name)

"""One layer of a standard decoder, a pre-norm block, computed from the model's parameters.

Attention and MLP in series or in parallel, or attention only; learned or rotary positions; LayerNorm or RMSNorm; any
MLP; multi-head, multi-query and grouped-query attention. No copy of the weights is kept. `_decoder` and
`_attention_rows` choose positions and layers; `_blocks` runs models that are not supported here (see `supports`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model._anatomy import Model, per_query_head
from ._rotary import rotary_of
from ._unembedding import unembedding_of

__all__ = ["Layers", "looseness", "supports"]


def supports(model: Model) -> bool:
    """Whether `Layers` may be tried on this model's blocks; it is compared with the model before it is used."""
    cfg: Any = model.cfg
    norms, positions = ("LN", "LNPre", "RMS", "RMSPre", None), ("standard", "rotary")
    absent = (
        "use_local_attn", "use_attention_sinks", "use_qk_norm", "use_normalization_before_and_after",
        "use_logn_attn", "use_dynamic_ntk_rope", "ungroup_grouped_query_attention",
        "load_in_4bit", "num_experts", "clip_qkv",
    )  # fmt: skip
    return (
        "HookedTransformer" in {base.__name__ for base in type(model).__mro__}
        and cfg.normalization_type in norms
        and cfg.positional_embedding_type in positions
        and cfg.attention_dir == "causal"
        and not any(getattr(cfg, key, None) for key in absent)
        and not (getattr(cfg, "attn_scores_soft_cap", -1.0) or 0.0) > 0
        and not str(cfg.original_architecture).startswith("Olmo")
        and unembedding_of(model) is not None
    )


def looseness(model: Model) -> float:
    """Tolerance for two ways of computing the same, relative to the largest number; rounding is far smaller."""
    return {torch.float64: 1e-6, torch.float32: 1e-4}.get(model.W_U.dtype, 0.02)


class Layers:
    """The layers of one model on prompts of one length.

    Attributes:
        model: the model itself.
        cfg: its configuration.
        n_layers: of the model.
        serial: whether the MLP comes after attention and reads what it wrote.
        length: of the prompts.
    """

    def __init__(self, model: Model, length: int) -> None:
        self.model: Any = model
        self.cfg: Any = model.cfg
        self.n_layers: int = model.cfg.n_layers
        self.serial: bool = not (self.cfg.attn_only or self.cfg.parallel_attn_mlp)
        self.length: int = length

    def _qkv(self, layer: int, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, `[prompt, position, head, d_head]`, of all positions."""
        normed = self._norm(self.model.blocks[layer].ln1, resid)
        q, k, v = (self._projected(layer, key, normed) for key in "qkv")
        if self.cfg.positional_embedding_type == "rotary":
            q, k = (self._rotated(layer, each, self._queries(layer)) for each in (q, k))
        return q, k, v

    def _projected(self, layer: int, key: str, normed: Tensor) -> Tensor:
        """Queries, keys or values, `[..., position, head, d_head]`, of `normed [..., position, d_model]`."""
        attention: Any = self.model.blocks[layer].attn
        weights, bias = _weights(attention, f"W_{key.upper()}"), _weights(attention, f"b_{key.upper()}")
        flat = normed.reshape(-1, normed.shape[-1])
        out = torch.addmm(bias.flatten(), flat, weights.transpose(0, 1).flatten(1))
        return out.view(*normed.shape[:-1], *weights.shape[::2])

    def _rotated(self, layer: int, x: Tensor, positions: Tensor) -> Tensor:
        """`x [..., head, d_head]` rotated by `positions`, which broadcasts to `x.shape[:-2]`."""
        return rotary_of(self.model.blocks[layer].attn, self.length).rotated(x, positions)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, queries: Tensor) -> Tensor:
        """`z [row, query, head, d_head]`; `queries [1 or prompt, query]` are the queries' positions."""
        scale = 1 / float(self.model.blocks[layer].attn.attn_scale)
        q, k, v = (per_query_head(each, self.cfg.n_heads, 2).transpose(1, 2) for each in (q, k, v))
        if q.shape[2] == k.shape[2]:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)
        seen = self._seen(queries, len(q), k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(1, 2)

    def _device(self, layer: int) -> torch.device:
        """The layer's device; layers may be on several."""
        return self.model.blocks[layer].attn.W_O.device

    def _queries(self, layer: int, start: int = 0) -> Tensor:
        """`[1, position]`: positions from `start` on, on the layer's device."""
        return torch.arange(start, self.length, device=self._device(layer))[None]

    def _seen(self, queries: Tensor, rows: int, keys: int) -> Tensor:
        """True where a query can attend to a key, bool `[1 or row, 1, query, key]`."""
        seen = torch.arange(keys, device=queries.device) <= queries[..., None]
        return seen[:, None] if len(seen) == 1 else seen.repeat(rows // len(seen), 1, 1)[:, None]

    def _pattern(self, layer: int, q: Tensor, k: Tensor, queries: Tensor) -> Tensor:
        """The pattern `[row, head, query, key]`."""
        return self._scores(layer, q, k, queries).softmax(-1)

    def _scores(self, layer: int, q: Tensor, k: Tensor, queries: Tensor) -> Tensor:
        """Attention scores `[row, head, query, key]`, -inf at keys after the query."""
        k = per_query_head(k, self.cfg.n_heads, 2)
        scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / float(self.model.blocks[layer].attn.attn_scale)
        return scores.masked_fill(~self._seen(queries, len(q), k.shape[1]), -torch.inf)

    def _written(self, layer: int, z: Tensor) -> Tensor:
        """Attention's output `[..., d_model]`, from `z [..., head, d_head]`."""
        attention: Any = self.model.blocks[layer].attn
        flat = z.reshape(-1, z.shape[-2] * z.shape[-1])
        out = torch.addmm(attention.b_O, flat, attention.W_O.flatten(0, 1))
        return out.view(*z.shape[:-2], -1)

    def _rest(self, layer: int, entering: Tensor, attn_out: Tensor) -> Tensor:
        """The stream after the layer, from the stream before it and attention's output."""
        after = entering + attn_out
        if self.cfg.attn_only:
            return after
        return after + self._mlp(layer, after if self.serial else entering)

    def _mlp(self, layer: int, resid: Tensor) -> Tensor:
        block: Any = self.model.blocks[layer]
        normed, mlp = self._norm(block.ln2, resid).reshape(-1, resid.shape[-1]), block.mlp
        plain = (
            type(mlp).__name__ == "MLP"
            and self.cfg.act_fn in _ACTIVATIONS
            and not self.cfg.is_layer_norm_activation()
        )
        if not plain:
            return mlp(normed[None])[0].view(resid.shape)
        hidden = torch.addmm(mlp.b_in, normed, mlp.W_in)
        return torch.addmm(mlp.b_out, _ACTIVATIONS[self.cfg.act_fn](hidden), mlp.W_out).view(resid.shape)

    def _norm(self, norm: Any, resid: Tensor) -> Tensor:
        if norm is None:  # a model without norms
            return resid
        kind, shape = type(norm).__name__, resid.shape[-1:]
        exact = resid.dtype in (torch.float32, torch.float64)
        if kind in ("LayerNorm", "LayerNormPre") and exact:
            return F.layer_norm(
                resid, shape, getattr(norm, "w", None), getattr(norm, "b", None), float(norm.eps)
            )
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

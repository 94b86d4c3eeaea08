"""One layer of a standard decoder, a pre-norm block, computed from the model's parameters.

Attention and MLP in series or in parallel, or attention only; learned or rotary positions; LayerNorm or RMSNorm; any
MLP; multi-head, multi-query and grouped-query attention. `_maps` has what is computed at each position; `_decoder` and
`_attention_rows` choose positions and layers; `_blocks` runs models that are not supported here (see `supports`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model._anatomy import Model, is_bridge, per_query_head
from ..model._unembedding import unembedding_of
from ._maps import Maps, maps_of
from ._rotary import Rotary

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
        _is_known(model)
        and cfg.normalization_type in norms
        and cfg.positional_embedding_type in positions
        and cfg.attention_dir == "causal"
        and not any(getattr(cfg, key, None) for key in absent)
        and not (getattr(cfg, "attn_scores_soft_cap", -1.0) or 0.0) > 0
        and not str(getattr(cfg, "original_architecture", None)).startswith("Olmo")
        and unembedding_of(model) is not None
    )


# Bridges around these, and whether their attention is in float32 whatever the dtype of the model.
_BRIDGES = {
    "GPT2LMHeadModel": False,
    "GPTJForCausalLM": True,
    "GPTNeoXForCausalLM": False,
    "LlamaForCausalLM": True,
    "Qwen2ForCausalLM": True,
    "TransformerLensNative": False,
}


def _is_known(model: Model) -> bool:
    """Whether it is a HookedTransformer, or a Bridge of a kind that `Layers` computes with the same rounding."""
    if not is_bridge(model):
        return "HookedTransformer" in {base.__name__ for base in type(model).__mro__}
    in_float32 = _BRIDGES.get(str(model.cfg.architecture))
    return in_float32 is not None and not (in_float32 and model.W_U.dtype == torch.float64)


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
        maps: of each layer.
    """

    def __init__(self, model: Model, length: int) -> None:
        self.model: Any = model
        self.cfg: Any = model.cfg
        self.n_layers: int = model.cfg.n_layers
        self.serial: bool = not (self.cfg.attn_only or self.cfg.parallel_attn_mlp)
        self.length: int = length
        self.maps: list[Maps] = maps_of(model)
        self._rotary: dict[int, Rotary] = {}

    def _qkv(self, layer: int, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, `[prompt, position, head, d_head]`, of all positions."""
        normed = self.maps[layer].normed(resid)
        q, k, v = (self.maps[layer].projected(key, normed) for key in "qkv")
        if self.cfg.positional_embedding_type == "rotary":
            q, k = (self._rotated(layer, each, self._queries(layer)) for each in (q, k))
        return q, k, v

    def _rotated(self, layer: int, x: Tensor, positions: Tensor) -> Tensor:
        """`x [..., head, d_head]` rotated by `positions`, which broadcasts to `x.shape[:-2]`."""
        if layer not in self._rotary:
            self._rotary[layer] = self.maps[layer].rotary(self.length)
        return self._rotary[layer].rotated(x, positions)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, queries: Tensor) -> Tensor:
        """`z [row, query, head, d_head]`; `queries [1 or prompt, query]` are the queries' positions."""
        scale = 1 / self.maps[layer].scale
        q, k, v = (per_query_head(each, self.cfg.n_heads, 2).transpose(1, 2) for each in (q, k, v))
        if q.shape[2] == k.shape[2]:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)
        seen = self._seen(queries, len(q), k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(1, 2)

    def _device(self, layer: int) -> torch.device:
        """The layer's device; layers may be on several."""
        return self.maps[layer].w_o.device

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
        scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / self.maps[layer].scale
        return scores.masked_fill(~self._seen(queries, len(q), k.shape[1]), -torch.inf)

    def _rest(self, layer: int, entering: Tensor, attn_out: Tensor) -> Tensor:
        """The stream after the layer, from the stream before it and attention's output."""
        after = entering + attn_out
        if self.cfg.attn_only:
            return after
        return after + self.maps[layer].mlp(after if self.serial else entering)

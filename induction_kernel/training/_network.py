"""The small transformer that is trained, as a dict of tensors by TransformerLens' parameter names.

Pre-LayerNorm without weights, learned positions, no biases in attention; with or without an MLP and smeared keys (see
`_recipe`). Training uses this forward pass: TransformerLens' own takes twice as long and differs between its versions.
A test checks that the two give the same numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .._given import checked_seed
from ._recipe import Recipe

__all__ = ["Weights", "forward", "heads_in_use", "initial_weights", "losses"]

Weights = dict[str, Tensor]
"""TransformerLens' parameter name -> value, e.g. `blocks.0.attn.W_Q` [head, d_model, d_head]."""


def initial_weights(recipe: Recipe, seed: int) -> Weights:
    """Random weights, scaled so that words and positions count equally and layers write little at first."""
    generator = torch.Generator().manual_seed(checked_seed(seed))

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float32) * std

    heads, d_head, d_model = recipe.heads, recipe.d_head, recipe.d_model
    std = d_model**-0.5
    weights = {
        "embed.W_E": normal(recipe.vocabulary, d_model, std=std / 2),
        "pos_embed.W_pos": normal(recipe.context, d_model, std=std / 2),
    }
    for layer in range(recipe.layers):
        block = f"blocks.{layer}"
        for name in ("W_Q", "W_K", "W_V"):
            weights[f"{block}.attn.{name}"] = normal(heads, d_model, d_head, std=std)
        out = (2 * recipe.layers * heads * d_head) ** -0.5
        weights[f"{block}.attn.W_O"] = normal(heads, d_head, d_model, std=out)
        if recipe.smeared:
            weights[f"{block}.attn.smear"] = torch.zeros(heads)  # sigmoid(0): half of each key
        if recipe.mlp:
            out = (2 * recipe.layers * recipe.mlp) ** -0.5
            weights |= {
                f"{block}.mlp.W_in": normal(d_model, recipe.mlp, std=std),
                f"{block}.mlp.b_in": torch.zeros(recipe.mlp),
                f"{block}.mlp.W_out": normal(recipe.mlp, d_model, std=out),
                f"{block}.mlp.b_out": torch.zeros(d_model),
            }
    weights["unembed.W_U"] = normal(d_model, recipe.vocabulary, std=std)
    return weights


def forward(weights: Weights, tokens: Tensor, *, patterns: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Logits [row, position, vocab]; with `patterns`, also each layer's attention [row, head, query, key]."""
    n_rows, length = tokens.shape
    residual = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"][:length]
    seen: list[Tensor] = []
    for layer in range(sum(name.endswith("W_Q") for name in weights)):
        block = f"blocks.{layer}"
        w_q, w_k, w_v, w_o = (weights[f"{block}.attn.W_{part}"] for part in "QKVO")
        q, k, v = (_by_head(_normalised(residual), w) for w in (w_q, w_k, w_v))
        if f"{block}.attn.smear" in weights:
            k = _smeared(k, weights[f"{block}.attn.smear"])
        if patterns:
            scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            seen.append(scores.masked_fill(future, -torch.inf).softmax(-1))
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        residual = residual + z.transpose(1, 2).reshape(n_rows, length, -1) @ w_o.flatten(0, 1)
        if f"{block}.mlp.W_in" in weights:
            w_in, b_in, w_out, b_out = (
                weights[f"{block}.mlp.{key}"] for key in ("W_in", "b_in", "W_out", "b_out")
            )
            residual = residual + functional.gelu(_normalised(residual) @ w_in + b_in) @ w_out + b_out
    return _normalised(residual) @ weights["unembed.W_U"], seen


def losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Loss in nats [row, position - 1]; entry i is that of predicting token i + 1."""
    return functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


def heads_in_use(weights: Weights) -> Tensor:
    """Sum over heads of sqrt(|W_V| |W_O|): concave, so that one strong head costs less than two weak ones."""
    total = torch.zeros(())
    for layer in range(sum(name.endswith("W_Q") for name in weights)):
        w_v, w_o = weights[f"blocks.{layer}.attn.W_V"], weights[f"blocks.{layer}.attn.W_O"]
        total = total + (w_v.norm(dim=(1, 2)) * w_o.norm(dim=(1, 2)) + 1e-8).sqrt().sum()
    return total


def _smeared(k: Tensor, smear: Tensor) -> Tensor:
    """Keys [row, head, position, d_head] mixed with the one before; the first stays."""
    own = smear.sigmoid()[:, None, None]
    return own * k + (1 - own) * torch.cat([k[:, :, :1], k[:, :, :-1]], 2)


def _by_head(x: Tensor, w: Tensor) -> Tensor:
    """[row, position, d_model] times [head, d_model, d_head]: [row, head, position, d_head]."""
    heads, d_model, d_head = w.shape
    return (
        (x @ w.transpose(0, 1).reshape(d_model, heads * d_head))
        .unflatten(-1, (heads, d_head))
        .transpose(1, 2)
    )


def _normalised(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])

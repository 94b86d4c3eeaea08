"""Weights as they act on the residual stream: W_Q, W_K, W_V, W_O, embedding and unembedding, with norms folded in.

With the norms folded in, raw and processed weights of one model give the same scores: folding and centring change z and
W_OV, not the outputs. `_runs` runs models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import NotDefined, Refused
from ._anatomy import Model, full_precision, kept_as_it_was, per_query_head, sizes
from ._self_check import foreign_hooks, self_check
from ._unembedding import unembedding_of

_NORMS_AFTER = ("Olmo2", "Olmo3", "OpenAIGPT", "Bert")

__all__ = [
    "attention_bias",
    "check_final_norm",
    "check_weights",
    "check_writing",
    "final_biases",
    "norm_parts",
    "query_key_weights",
    "read_dimensions",
    "token_embedding",
    "unembedding",
    "value_weights",
]


def value_weights(model: Model, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """`W_V [head, d_model, d_head]`, `b_V [head, d_head]` and `W_O [head, d_head, d_model]` of one layer.

    Per query head, and as they act on the residual stream: the norm before attention is folded into W_V (its
    weight, and the centring of a LayerNorm) and into b_V (its bias); W_O writes no mean if LayerNorms, which read the
    stream, remove it. `b_V` is what every position adds to z on every prompt, so z - b_V, like W_V and W_O, is the same
    for raw and processed weights.
    """
    n_heads = sizes(model).n_heads
    block: Any = model.blocks[layer]
    w_v, bias = per_query_head(block.attn.W_V.detach(), n_heads, 0), getattr(block.attn, "b_V", None)
    b_v = w_v.new_zeros(n_heads, w_v.shape[2]) if bias is None else per_query_head(bias.detach(), n_heads, 0)
    norm = None if _norms_after(model, block) else getattr(block, "ln1", None)
    shift = _parameter(norm, "bias", "b")
    if shift is not None:
        exact = full_precision(w_v)
        b_v = b_v + torch.einsum("m,hmd->hd", shift.to(exact), exact)
    w_o = full_precision(block.attn.W_O.detach())
    w_o = w_o * getattr(block, "residual_contribution_scale", 1.0)  # only in Granite
    if _centres(model, getattr(model, "ln_final", None)):
        w_o = w_o - w_o.mean(-1, keepdim=True)
    return fold_norm(model, norm, w_v), b_v, w_o


def query_key_weights(model: Model, layer: int) -> tuple[Tensor, Tensor]:
    """`W_Q` and `W_K` `[head, d_model, d_head]` of one layer, per query head, with the norm before attention folded in.

    Before any rotation, and without the scale of attention scores. The same products W_Q W_K^T for raw and
    processed weights.

    Raises:
        NotDefined: a model that normalises its queries and keys.
        Refused: weights that are not finite.
    """
    block: Any = model.blocks[layer]
    if getattr(model.cfg, "use_qk_norm", False) or getattr(block.attn, "q_norm", None) is not None:
        raise NotDefined(
            "queries and keys are normalised before their product in this model, so the weights alone do not say what "
            "a head looks for: score attention instead, e.g. with prefix_matching"
        )
    norm, n_heads = getattr(block, "ln1", None), sizes(model).n_heads
    w_q, w_k = (
        fold_norm(model, norm, per_query_head(weights.detach(), n_heads, 0))
        for weights in (block.attn.W_Q, block.attn.W_K)
    )
    if not (_finite(w_q) and _finite(w_k)):
        raise Refused(f"weights of layer {layer} are not finite: look for NaN in the model")
    return w_q, w_k


def read_dimensions(model: Model, layer: int) -> int:
    """The number of dimensions of the residual stream that a layer's attention reads; a LayerNorm removes the mean."""
    return sizes(model).d_model - int(_centres(model, getattr(model.blocks[layer], "ln1", None)))


def token_embedding(model: Model, tokens: Tensor | None = None) -> Tensor:
    """`[token, d_model]`: what embeddings of tokens (None for the vocabulary) add to the stream, without positions.

    W_E, with what the model applies to it: Gemma's scale, BLOOM's norm.
    """
    module: Any = model
    tokens = torch.arange(len(model.W_E)) if tokens is None else tokens
    with kept_as_it_was(model):
        embedded = module.embed(tokens.to(model.W_E.device)[None])[0]
        norm = getattr(model, "embed_ln", None)  # a Bridge's; HookedTransformer's is a part of `embed`
        return embedded if norm is None else norm(embedded[None])[0]


def check_writing(model: Model, layers: Sequence[int]) -> None:
    """Raise NotDefined unless attention adds z W_O to the stream, and a final norm (or no norm at all) reads it."""
    for layer in layers:
        block: Any = model.blocks[layer]
        normed = getattr(model.cfg, "use_normalization_before_and_after", False) or hasattr(block, "ln1_post")
        if normed or _attention_out(block).startswith("ln") or _known_for_it(model):
            raise NotDefined(
                "attention's output is normalised before it is added to the residual stream in this model, so "
                "single heads have no separate part in it: use ablate instead"
            )
    check_final_norm(model)
    self_check(model)


def check_final_norm(model: Model) -> None:
    """Raise NotDefined if there is no norm before the unembedding, but norms inside the residual stream."""
    if getattr(model, "ln_final", None) is None and model.cfg.normalization_type is not None:
        raise NotDefined(
            "this model has no norm before its unembedding but norms inside its residual stream, so "
            "no head's part in the logits can be read directly: use ablate instead"
        )


def check_weights(model: Model, layers: Sequence[int]) -> None:
    """Raise Refused if the (un)embedding, or the value and output weights of these layers, are not finite."""
    for layer in layers:
        if not all(_finite(each) for each in value_weights(model, layer)):
            raise Refused(f"weights of layer {layer} are not finite: look for NaN in the model")
    if not (_finite(model.W_E) and _finite(model.W_U)):
        raise Refused("weights of the (un)embedding are not finite: look for NaN in the model")


def _finite(weights: Tensor) -> bool:
    """Whether all are finite: NaN reaches both extremes, and no copy of the weights is needed."""
    return all(bool(extreme.isfinite()) for extreme in weights.detach().aminmax())


def unembedding(model: Model) -> Tensor:
    """`W_U [d_model, vocab]` with the final norm folded in, centred over the vocabulary (softmax sees no mean).

    In float32 or better; one copy.
    """
    w_u = fold_norm(model, getattr(model, "ln_final", None), model.W_U.detach())
    w_u -= w_u.mean(-1, keepdim=True)
    return w_u


def attention_bias(model: Model, layer: int) -> Tensor:
    """`[d_model]`: what a layer's attention adds at every position whatever the prompt, b_O and b_V W_O of its heads.

    With b_V as in `value_weights`, so that with the heads' (z - b_V) W_O it is all that attention adds. The same for
    raw and processed weights, up to a mean that a LayerNorm removes.
    """
    _, b_v, w_o = value_weights(model, layer)
    block: Any = model.blocks[layer]
    bias, b_o = torch.einsum("hd,hdm->m", b_v.to(w_o), w_o), getattr(block.attn, "b_O", None)
    scale = getattr(block, "residual_contribution_scale", 1.0)  # only in Granite
    return bias if b_o is None else bias + scale * b_o.detach().to(bias)


def final_biases(model: Model) -> tuple[Tensor, Tensor]:
    """What the final norm's bias and the unembedding's bias add to each logit, `[vocab]` each; zeros without one.

    In float32 or better.
    """
    w_u, linear = full_precision(model.W_U.detach()), unembedding_of(model)
    none = w_u.new_zeros(w_u.shape[1])
    shift = _parameter(getattr(model, "ln_final", None), "bias", "b")
    bias = getattr(model, "b_U", None) if linear is None else linear.bias
    of_norm = none if shift is None else shift.to(w_u) @ w_u
    return of_norm, none if bias is None else bias.detach().to(w_u)


def fold_norm(model: Model, norm: Any, weights: Tensor) -> Tensor:
    """`weights [..., d_model, out]`, which read a norm's output, as they read its input, up to the norm's scale.

    In float32 or better; a copy.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32), copy=True)
    scale = _scale(model, norm)
    _check_norm(model, norm, scale)
    if scale is not None:
        weights *= scale.to(weights)[:, None]
    if _centres(model, norm):
        weights -= weights.mean(-2, keepdim=True)
    return weights


def _parameter(norm: Any, *names: str) -> Tensor | None:
    """The norm's live parameter; a Bridge's short names may hold the tensors it was built with."""
    found = (getattr(norm, name, None) for name in names)
    return next((each.detach() for each in found if isinstance(each, Tensor)), None)


def _scale(model: Model, norm: Any) -> Tensor | None:
    """The norm's factor `[d_model]`: Gemma's weight is an offset from 1, HookedTransformer's is not."""
    scale = _parameter(norm, "weight", "w")
    is_hooked = type(norm).__module__.startswith("transformer_lens.components")
    if scale is not None and getattr(model.cfg, "rmsnorm_uses_offset", False) and not is_hooked:
        return full_precision(scale) + 1
    return scale


def _check_norm(model: Model, norm: Any, scale: Tensor | None) -> None:
    """Raise NotDefined unless the norm acts on a vector as its weights say; otherwise it cannot be folded in."""
    without = getattr(model.cfg, "normalization_type", None) is None
    if without or not isinstance(norm, torch.nn.Module) or foreign_hooks(model):
        return
    like = model.W_U if scale is None else scale
    shift = _parameter(norm, "bias", "b")
    generator = torch.Generator().manual_seed(0)
    # Large, so that a norm's epsilon is negligible.
    drawn = torch.randn(sizes(model).d_model, generator=generator, dtype=torch.float32)
    vector = (64 * (0.5 + drawn)).to(like.device, model.W_U.dtype)
    with kept_as_it_was(model):
        found = full_precision(norm(vector[None, None])[0, 0]).to(like.device)
    expected = full_precision(vector)
    expected = expected - expected.mean() if _centres(model, norm) else expected
    expected = expected / expected.square().mean().sqrt()
    expected = expected if scale is None else expected * scale.to(expected)
    expected = expected if shift is None else expected + shift.to(expected)
    loose = 1e-3 if model.W_U.dtype in (torch.float32, torch.float64) else 0.05
    if not bool(((found - expected).abs() <= loose * (1 + expected.abs().max())).all()):
        raise NotDefined(
            f"a {type(norm).__name__} of this model does not act as its weights say, so no weights can be read through "
            "it: use ablate with Mean() instead, or another version of TransformerLens"
        )


def _known_for_it(model: Model) -> bool:
    """Whether the architecture is known for norms after attention: its Hugging Face name is in `_NORMS_AFTER`.

    So is a HookedEncoder, whose blocks are BERT's.
    """
    if "HookedEncoder" in {base.__name__ for base in type(model).__mro__}:
        return True
    names = (getattr(model.cfg, key, None) for key in ("architecture", "original_architecture"))
    return any(str(name).startswith(_NORMS_AFTER) for name in names)


def _attention_out(block: Any) -> str:
    """The module behind a Bridge's `hook_attn_out`: a norm, if one follows attention."""
    return str((getattr(block, "hook_aliases", None) or {}).get("hook_attn_out", ""))


def _norms_after(model: Model, block: Any) -> bool:
    """Whether `ln1` comes after attention, not before it (OPT-350m, OLMo 2, GPT-1, BERT)."""
    return (
        getattr(model.cfg, "do_layer_norm_before", True) is False
        or _attention_out(block).startswith("ln1.")
        or _known_for_it(model)
    )


def _centres(model: Model, norm: Any) -> bool:
    """Whether the norm removes the mean of the stream; if it has no module, whether the model's norms do."""
    by_name = str(getattr(model.cfg, "normalization_type", None)) in ("LN", "LNPre")
    return by_name and "RMS" not in type(norm).__name__ and not getattr(norm, "uses_rms_norm", False)


def norm_parts(model: Model, norm: Any) -> tuple[bool, Tensor | None, Tensor | None]:
    """Whether a norm subtracts the mean, its factor and its bias; (False, None, None) where there is no norm."""
    if norm is None or getattr(model.cfg, "normalization_type", None) is None:
        return False, None, None
    return _centres(model, norm), _scale(model, norm), _parameter(norm, "bias", "b")

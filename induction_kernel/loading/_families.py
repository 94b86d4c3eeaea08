"""Hugging Face configurations that can be a HookedTransformer, and their settings.

Llama (with Mistral and Qwen2), GPT-2, GPT-J and GPT-NeoX (Pythia): for each the `HookedTransformerConfig` entries of
the same model, read as in TransformerLens' own `transformer_lens.loading_from_pretrained`, which takes only names on
the hub. A configuration that they cannot express gives None and becomes a TransformerBridge. `_conversion` converts the
weights.
"""

from __future__ import annotations

from typing import Any

__all__ = ["hooked_settings"]

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")


def hooked_settings(config: Any) -> dict[str, Any] | None:
    """The settings of a HookedTransformer for this Hugging Face configuration, without the context length.

    None if TransformerLens' converters and configuration do not support everything in `config`.
    """
    family = _FAMILIES.get(config.model_type)
    if family is None:
        return None
    is_plain, settings = family
    return settings(config) if is_plain(config) else None


def _is_plain_llama(config: Any) -> bool:
    """SiLU, plain or Llama-3 rotary embeddings, no sliding window, biases only where the family has them."""
    rope = _rope(config)
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return (
        config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ("default", "llama3")
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and set(layers) == {"full_attention"}
        and (window is None or config.model_type == "llama" or window >= config.max_position_embeddings)
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
    )


def _llama(config: Any) -> dict[str, Any]:
    heads, kv, rope = config.num_attention_heads, config.num_key_value_heads, _rope(config)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    settings = {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": heads,
        # Without grouping, only TransformerLens' Llama conversion uses the ungrouped names.
        "n_key_value_heads": None if kv == heads and config.model_type == "llama" else kv,
        "d_head": d_head,
        "d_mlp": config.intermediate_size,
        "d_vocab": config.vocab_size,
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "final_rms": True,
        "eps": config.rms_norm_eps,
        "positional_embedding_type": "rotary",
        "rotary_dim": d_head,
        "rotary_base": rope.get("rope_theta", 10000.0),
        "rotary_adjacent_pairs": False,
        "original_architecture": f"{config.model_type.capitalize()}ForCausalLM",
        # As in TransformerLens: Qwen2 has no such token.
        "default_prepend_bos": config.model_type != "qwen2",
    }
    if rope.get("rope_type") == "llama3":
        settings |= {
            "use_NTK_by_parts_rope": True,
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_by_parts_factor": rope["factor"],
        }
    return settings


def _is_plain_gpt2(config: Any) -> bool:
    """Any scaling of the attention scores, no cross-attention."""
    return config.activation_function in _ACTIVATIONS and not config.add_cross_attention


def _gpt2(config: Any) -> dict[str, Any]:
    return {
        **_gpt(config),
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "positional_embedding_type": "standard",
        "original_architecture": "GPT2LMHeadModel",
    }


def _is_plain_gptj(config: Any) -> bool:
    """Rotary embeddings on some of the dimensions; without them the model has no positions at all."""
    return config.activation_function in _ACTIVATIONS and _is_even(config.rotary_dim)


def _gptj(config: Any) -> dict[str, Any]:
    return {
        **_gpt(config),
        "parallel_attn_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": config.rotary_dim,
        "rotary_adjacent_pairs": True,
        "original_architecture": "GPTJForCausalLM",
    }


def _gpt(config: Any) -> dict[str, Any]:
    return {
        "n_layers": config.n_layer,
        "d_model": config.n_embd,
        "n_heads": config.n_head,
        "d_head": config.n_embd // config.n_head,
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "d_vocab": config.vocab_size,
        "act_fn": config.activation_function,
        "normalization_type": "LN",
        "eps": config.layer_norm_epsilon,
    }


def _is_plain_neox(config: Any) -> bool:
    """Biases (the conversion reads them), plain rotary embeddings on all or the first of the dimensions."""
    return (
        config.hidden_act in _ACTIVATIONS
        and config.attention_bias
        and _rope(config).get("rope_type", "default") == "default"
        and _is_even(_neox_rotary_dim(config))
    )


def _neox(config: Any) -> dict[str, Any]:
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": config.num_attention_heads,
        "d_head": config.hidden_size // config.num_attention_heads,
        "d_mlp": config.intermediate_size,
        "d_vocab": config.vocab_size,
        "act_fn": config.hidden_act,
        "normalization_type": "LN",
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": config.use_parallel_residual,
        "positional_embedding_type": "rotary",
        "rotary_dim": _neox_rotary_dim(config),
        "rotary_base": _rope(config).get("rope_theta", 10000.0),
        "rotary_adjacent_pairs": False,
        "original_architecture": "GPTNeoXForCausalLM",
        "default_prepend_bos": False,  # as in TransformerLens: Pythia was trained without
    }


def _neox_rotary_dim(config: Any) -> int:
    d_head = config.hidden_size // config.num_attention_heads
    return int(d_head * _rope(config).get("partial_rotary_factor", 1.0))


def _is_even(rotary_dim: int | None) -> bool:
    # Pairs are rotated; for an odd number transformers adds one, TransformerLens raises.
    return bool(rotary_dim) and rotary_dim % 2 == 0


def _rope(config: Any) -> dict[str, Any]:
    # transformers 5 keeps everything in `rope_parameters`; earlier versions keep the base separately.
    old = {
        "rope_theta": getattr(config, "rope_theta", 10000.0),
        **(getattr(config, "rope_scaling", None) or {}),
    }
    return getattr(config, "rope_parameters", None) or old


_FAMILIES = {
    "llama": (_is_plain_llama, _llama),
    "mistral": (_is_plain_llama, _llama),
    "qwen2": (_is_plain_llama, _llama),
    "gpt2": (_is_plain_gpt2, _gpt2),
    "gptj": (_is_plain_gptj, _gptj),
    "gpt_neox": (_is_plain_neox, _neox),
}

"""Random small configurations of Hugging Face models."""

import random
from typing import Any

WORDS = [f"w{i}" for i in range(60)]
SPECIAL = ["<bos>", "<unk>", "<pad>", ";", ":", "yes", "no", "so", "<eos>"]


def hugging_face_config(draw: random.Random) -> tuple[str, Any]:
    import transformers

    layers, heads, d_head = draw.randint(1, 3), draw.choice([1, 2, 4]), draw.choice([4, 8])
    width, inner, window = heads * d_head, draw.choice([8, 24]), draw.randint(2, 6)
    groups = draw.choice([k for k in range(1, heads + 1) if heads % k == 0])
    tokens = {"vocab_size": len(SPECIAL) + len(WORDS), "bos_token_id": None, "eos_token_id": None}
    gpt2 = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": 30, "n_inner": inner}
    usual = {
        "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads,
        "max_position_embeddings": 30, "intermediate_size": inner,
    }  # fmt: skip
    grouped = usual | {"num_key_value_heads": groups, "pad_token_id": None}
    half = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}
    kinds = [draw.choice(["global", "local"]) for _ in range(layers)]
    choices = {
        "GPT-2": ("GPT2Config", gpt2),
        "GPT-J": ("GPTJConfig", gpt2 | {"rotary_dim": draw.choice([2, d_head])}),
        "GPT-NeoX": ("GPTNeoXConfig", usual | half | {"use_parallel_residual": draw.random() < 0.7}),
        "GPT-Neo": (
            "GPTNeoConfig",
            {
                "hidden_size": width, "num_layers": layers, "num_heads": heads, "max_position_embeddings": 30,
                "intermediate_size": inner, "attention_types": [[kinds, 1]], "window_size": window,
            },
        ),
        "OPT": (
            "OPTConfig",
            {
                "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": inner,
                "max_position_embeddings": 30, "word_embed_proj_dim": width, "pad_token_id": 1,
            },
        ),
        "OPT-350m": (
            "OPTConfig",
            {
                "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": inner,
                "max_position_embeddings": 30, "word_embed_proj_dim": width // 2, "pad_token_id": 1,
                "do_layer_norm_before": False,
            },
        ),
        "BLOOM": ("BloomConfig", {"hidden_size": width, "n_layer": layers, "n_head": heads}),
        "Llama": ("LlamaConfig", grouped | {"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5}),
        "Mistral": ("MistralConfig", grouped | {"sliding_window": window}),
        "Qwen2": ("Qwen2Config", grouped),
        "Qwen3": ("Qwen3Config", grouped | {"head_dim": d_head}),
        "Gemma": ("GemmaConfig", grouped | {"head_dim": d_head + 2}),
        "Gemma 2": (
            "Gemma2Config",
            grouped | {
                "head_dim": d_head, "sliding_window": window, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            },
        ),
        "Phi": ("PhiConfig", usual | half),
    }  # fmt: skip
    name = draw.choice(list(choices))
    made, options = choices[name]
    return name, getattr(transformers, made)(**{**tokens, **options})

"""Tiny random models of several architectures, built the same under both TransformerLens majors."""

import copy
import functools

import pytest
import torch

from induction_kernel.loading import build
from induction_kernel.loading._build import has_hooked_transformer, quietly

SHAPES = {
    "attention-only": {"attn_only": True, "normalization_type": "LN"},
    "GPT-2": {"d_mlp": 32, "act_fn": "gelu_new", "normalization_type": "LN"},
    "Llama": {
        "n_key_value_heads": 2, "d_mlp": 32, "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS",
        "final_rms": True,
        "positional_embedding_type": "rotary",
    },
}  # fmt: skip
ARCHITECTURES = tuple(SHAPES)
BASE = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_head": 4, "n_ctx": 40, "d_vocab": 50}


@functools.cache
def tiny(name, dtype=torch.float64, bridge=False):
    """The model; shared, so that a test that changes it breaks another."""
    return fresh(name, dtype=dtype, bridge=bridge)


def fresh(name, *, dtype=torch.float64, bridge=False, tokenizer=None, seed=0, **changes):
    """A new model with random weights, biases included."""
    architecture = BASE | SHAPES[name] | changes
    return build(
        architecture,
        random_weights(architecture, seed),
        dtype=dtype,
        bridge=bridge,
        tokenizer=tokenizer,
        name=name,
    )


def folded(model):
    """A HookedTransformer with all of TransformerLens' weight processing; it rounds to float32."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_and_process_state_dict(
        state, fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True
    )
    return model


def random_weights(architecture, seed=0):
    from induction_kernel.loading._parameters import _shapes, checked_architecture

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in _shapes(checked_architecture(architecture)).items():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        leaf = key.rpartition(".")[2]
        if ".mlp.b_" in key and architecture.get("gated_mlp"):
            weights[key] = torch.zeros(shape, dtype=torch.float64)  # a native Bridge has none there
        elif leaf == "w":
            weights[key] = 1 + 0.3 * drawn
        elif leaf.startswith(("W_E", "W_pos")):
            weights[key] = drawn
        elif "W_" in leaf:
            weights[key] = 1.5 * drawn / shape[-2] ** 0.5
        else:
            weights[key] = 0.3 * drawn
    return weights


# The matrix: every family that users bring. Windows are shorter than the prompts, so that they matter.
WINDOW = 4
SIZES = {
    "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "max_position_embeddings": 40,
    "intermediate_size": 32,
}  # fmt: skip
GPT2_SIZES = {"n_layer": 2, "n_embd": 16, "n_head": 4, "n_positions": 40, "n_inner": 32}
HALF_ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_LN = {"normalization_type": "LN", "d_mlp": 32}
_ROTARY = {"positional_embedding_type": "rotary"}
_RMS = {
    "normalization_type": "RMS",
    "final_rms": True,
    "d_mlp": 32,
    "gated_mlp": True,
    "rotary_dim": 4,
} | _ROTARY
_PARALLEL = _LN | _ROTARY | {"parallel_attn_mlp": True, "rotary_dim": 2}
# Name -> TransformerLens' conversion, and the configuration it is for (as TransformerLens makes it of a hub name).
HOOKED = {
    "GPT-2": ("gpt2", _LN | {"act_fn": "gelu_new"}),
    "GPT-Neo": (
        "neo",
        _LN | {
            "act_fn": "gelu_new", "use_attn_scale": False, "use_local_attn": True, "window_size": WINDOW,
            "attn_types": ["global", "local"],
        },
    ),
    "GPT-J": ("gptj", _PARALLEL | {"act_fn": "gelu_new", "rotary_adjacent_pairs": True}),
    "GPT-NeoX": ("neox", _PARALLEL | {"act_fn": "gelu"}),
    "OPT": ("opt", _LN | {"act_fn": "relu"}),
    "BLOOM": (
        "bloom",
        _LN | {
            "act_fn": "gelu_fast", "d_mlp": 64, "post_embedding_ln": True, "positional_embedding_type": "alibi",
        },
    ),
    "Llama": ("llama", _RMS | {"act_fn": "silu", "n_key_value_heads": 2, "eps": 1e-6}),
    "Mistral": (
        "mistral",
        _RMS | {
            "act_fn": "silu", "n_key_value_heads": 2, "eps": 1e-6, "use_local_attn": True, "window_size": WINDOW,
            "attn_types": ["local", "local"],
        },
    ),
    "Qwen2": ("qwen2", _RMS | {"act_fn": "silu", "n_key_value_heads": 2, "eps": 1e-6}),
    "Gemma": ("gemma", _RMS | {"act_fn": "gelu_new", "n_key_value_heads": 1, "eps": 1e-6}),
    "Gemma 2": (
        "gemma",
        _RMS | {
            "act_fn": "gelu_new", "n_key_value_heads": 2, "eps": 1e-6, "use_local_attn": True, "window_size": WINDOW,
            "attn_types": ["local", "global"], "use_normalization_before_and_after": True, "attn_scale": 3.0,
            "attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 3.0,
        },
    ),
    "Phi": ("phi", _PARALLEL | {"act_fn": "gelu_new"}),
}  # fmt: skip

# The grid of the interventions: every family of blocks, as each class of model that this TransformerLens has.
GRID = SHAPES | {
    "GPT-J": {
        "d_mlp": 32, "act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "rotary",
        "rotary_dim": 2,
    },
    "GPT-NeoX": {
        "d_mlp": 32, "act_fn": "gelu", "normalization_type": "LN", "positional_embedding_type": "rotary",
        "rotary_dim": 2,
    },
    "MQA": SHAPES["Llama"] | {"n_key_value_heads": 1},
}  # fmt: skip
PARALLEL = ("GPT-J", "GPT-NeoX", "Phi")  # attention and MLP both read the stream before the block
RMS = ("Llama", "Mistral", "Qwen2", "Gemma", "Gemma 2")  # norms that subtract no mean
WINDOWED = ("GPT-Neo", "Mistral", "Gemma 2")  # local attention
# hooked: HookedTransformer; bridge: around a Hugging Face model; native: a Bridge on TransformerLens' own layers.
# Hugging Face has no attention-only model.
KINDS = {name: ["hooked", "bridge"] for name in GRID} | {
    "attention-only": ["hooked", "native"],
    "GPT-2": ["hooked", "bridge", "native"],
    "Llama": ["hooked", "bridge", "native"],
}
PAIRS = [
    (name, kind) for name in GRID for kind in KINDS[name] if kind != "hooked" or has_hooked_transformer()
]
FASTEST = dict(reversed(PAIRS))  # the first kind of each architecture: hooked where TransformerLens has it
hooked_only = pytest.mark.skipif(
    not has_hooked_transformer(), reason="HookedTransformer is not in TransformerLens 4"
)


@functools.cache
def model_of(name, kind, dtype=torch.float64):
    """A model of the grid; shared, so that a test that changes it breaks another."""
    return fresh_of(name, kind, dtype=dtype)


def fresh_of(name, kind, *, dtype=torch.float64):
    """A new model; weights are the same within {hooked, native} and within {bridge, converted}.

    "hooked" of the parallel architectures, which `build` cannot express, is "converted".
    """
    if kind == "bridge":
        return around_hugging_face(name, dtype)
    if kind == "converted" or name in PARALLEL:
        return converted(name, dtype)
    architecture = BASE | GRID[name]
    return build(architecture, random_weights(architecture), dtype=dtype, bridge=kind == "native", name=name)


@functools.cache
def hugging_face_model(name, dtype=torch.float64):
    """A random Hugging Face model with the sizes of `BASE`: the weights of "bridge" and "converted"."""
    from transformers import AutoModelForCausalLM

    with quietly(), torch.random.fork_rng(devices=[]):
        hf_model = AutoModelForCausalLM.from_config(
            hugging_face_config(name), attn_implementation="eager", dtype=dtype
        )
        randomise(hf_model)
    return hf_model.eval()


def converted(name, dtype):
    """A HookedTransformer with the weights of the Hugging Face model, by TransformerLens' own conversion."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    convert, changes = HOOKED[name]
    with quietly(), torch.random.fork_rng(devices=[]):
        cfg = HookedTransformerConfig(
            **BASE, **changes, dtype=dtype, device="cpu", model_name=name, init_weights=False
        )
        model = HookedTransformer(cfg)
        weights = getattr(weight_conversions, f"convert_{convert}_weights")(
            hugging_face_model(name, dtype), cfg
        )
        weights = {key: value.detach().clone() for key, value in weights.items()}
        model.load_state_dict(model.state_dict() | weights, strict=True)
        return model.to(dtype).eval()


def hooked_with(**changes):
    """A HookedTransformer like GPT-2 but for these entries of its configuration."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    with quietly(), torch.random.fork_rng(devices=[]):
        cfg = HookedTransformerConfig(
            **(BASE | SHAPES["GPT-2"] | changes), dtype=torch.float64, device="cpu", init_weights=False
        )
        model = HookedTransformer(cfg)
        randomise(model)
        return model.to(torch.float64).eval()


def around_hugging_face(name, dtype):
    """A Bridge around a random Hugging Face model with the sizes of `BASE`."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf_model = copy.deepcopy(hugging_face_model(name, dtype))
    with quietly(), torch.random.fork_rng(devices=[]):
        model = build_bridge_from_module(
            hf_model,
            type(hf_model).__name__,
            hf_config=hf_model.config,
            tokenizer=None,
            model_name=name,
        )
    model.cfg.n_ctx = BASE["n_ctx"]
    return model.eval()


def hugging_face_config(name):
    import transformers

    tokens = {"vocab_size": BASE["d_vocab"], "bos_token_id": None, "eos_token_id": None}
    made, *options = {
        "GPT-2": ("GPT2Config", GPT2_SIZES),
        "GPT-J": ("GPTJConfig", GPT2_SIZES, {"rotary_dim": 2}),
        "GPT-NeoX": ("GPTNeoXConfig", SIZES, {"rope_parameters": HALF_ROTARY}),
        "GPT-Neo": (
            "GPTNeoConfig",
            {
                "hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 40,
                "intermediate_size": 32, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW,
            },
        ),
        "OPT": (
            "OPTConfig",
            {
                "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 32,
                "max_position_embeddings": 40, "word_embed_proj_dim": 16,
            },
        ),
        "OPT-350m": (
            "OPTConfig",
            {
                "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 32,
                "max_position_embeddings": 40, "word_embed_proj_dim": 8, "do_layer_norm_before": False,
            },
        ),
        "BLOOM": ("BloomConfig", {"hidden_size": 16, "n_layer": 2, "n_head": 4}),
        "Llama": ("LlamaConfig", SIZES, {"num_key_value_heads": 2}),
        "MQA": ("LlamaConfig", SIZES, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
        "Mistral": ("MistralConfig", SIZES, {"num_key_value_heads": 2, "sliding_window": WINDOW}),
        "Qwen2": ("Qwen2Config", SIZES, {"num_key_value_heads": 2}),
        "Gemma": ("GemmaConfig", SIZES, {"num_key_value_heads": 1, "head_dim": 4}),
        "Gemma 2": (
            "Gemma2Config", SIZES,
            {
                "num_key_value_heads": 2, "head_dim": 4, "sliding_window": WINDOW, "query_pre_attn_scalar": 9,
                "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
            },
        ),
        "Phi": ("PhiConfig", SIZES, {"rope_parameters": HALF_ROTARY}),
    }[name]  # fmt: skip
    return getattr(transformers, made)(**dict(item for each in options for item in each.items()) | tokens)


def randomise(module, seed=0):
    """Random parameters, of norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            leaf = key.rpartition(".")[2]
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                embedding = any(part in key for part in ("wte", "wpe", "embed", "W_E", "W_pos"))
                scale = 0.3 if leaf.startswith("b_") else 1.5 / parameter.shape[-1] ** 0.5
                drawn = drawn if embedding else scale * drawn
            else:
                drawn = 0.3 * drawn + (1 if leaf in ("weight", "w") else 0)
            parameter.copy_((drawn * 2**12).round() / 2**12)  # a sum with 1 in float32 loses nothing

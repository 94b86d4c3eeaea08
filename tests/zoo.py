"""Tiny random models of several architectures, built the same under both TransformerLens majors."""

import functools

import torch

from induction_kernel.loading import build
from induction_kernel.loading.building import has_hooked_transformer, quietly

SHAPES = {
    "attention-only": {"attn_only": True, "normalization_type": "LN"},
    "GPT-2": {"d_mlp": 32, "act_fn": "gelu_new", "normalization_type": "LN"},
    "Llama": {
        "n_key_value_heads": 2, "d_mlp": 32, "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS",
        "final_rms": True,
        "positional_embedding_type": "rotary",
    },
}  # fmt: skip
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


def random_weights(architecture, seed=0):
    from induction_kernel.loading.parameters import _shapes, checked_architecture

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
PARALLEL = ("GPT-J", "GPT-NeoX")  # attention and MLP both read the stream before the block
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


@functools.cache
def model_of(name, kind, dtype=torch.float64):
    """A model of the grid; shared, so that a test that changes it breaks another."""
    return fresh_of(name, kind, dtype=dtype)


def fresh_of(name, kind, *, dtype=torch.float64):
    """A new model of the grid; the kinds of one name have different weights, but for hooked and native."""
    if kind == "bridge":
        return around_hugging_face(name, dtype)
    if name in PARALLEL:
        return parallel_hooked(name, dtype)
    architecture = BASE | GRID[name]
    return build(architecture, random_weights(architecture), dtype=dtype, bridge=kind == "native", name=name)


def parallel_hooked(name, dtype):
    """A HookedTransformer that `build` cannot express; GPT-J's one norm is two equal ones."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    architecture = BASE | GRID[name]
    weights = random_weights(architecture)
    if name == "GPT-J":
        weights |= {key.replace("ln1", "ln2"): value for key, value in weights.items() if ".ln1." in key}
    with quietly(), torch.random.fork_rng(devices=[]):
        cfg = HookedTransformerConfig(
            **architecture, parallel_attn_mlp=True, rotary_adjacent_pairs=name == "GPT-J", dtype=dtype,
            device="cpu", model_name=name, init_weights=False,
        )  # fmt: skip
        model = HookedTransformer(cfg)
        buffers = {key: value for key, value in model.state_dict().items() if key not in weights}
        model.load_state_dict(buffers | weights, strict=True)
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
    from transformers import AutoModelForCausalLM

    with quietly(), torch.random.fork_rng(devices=[]):
        hf_model = AutoModelForCausalLM.from_config(
            hugging_face_config(name), attn_implementation="eager", dtype=dtype
        )
        randomise(hf_model)
        model = build_bridge_from_module(
            hf_model.eval(),
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
    if name in ("GPT-2", "GPT-J"):
        options = {"n_layer": 2, "n_embd": 16, "n_head": 4, "n_positions": 40, "n_inner": 32} | tokens
        made = transformers.GPTJConfig if name == "GPT-J" else transformers.GPT2Config
        return made(**options, **({"rotary_dim": 2} if name == "GPT-J" else {}))
    options = {
        "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "max_position_embeddings": 40,
        "intermediate_size": 32,
    } | tokens  # fmt: skip
    if name == "GPT-NeoX":
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
        return transformers.GPTNeoXConfig(**options, rope_parameters=rotary)
    biased = {"attention_bias": True, "mlp_bias": True} if name == "MQA" else {}
    return transformers.LlamaConfig(**options, num_key_value_heads=GRID[name]["n_key_value_heads"], **biased)


def randomise(module, seed=0):
    """Random parameters, of norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            leaf = key.rpartition(".")[2]
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                embedding = any(
                    part in key for part in ("wte", "wpe", "embed_tokens", "embed_in", "W_E", "W_pos")
                )
                scale = 0.3 if leaf.startswith("b_") else 1.5 / parameter.shape[-1] ** 0.5
                drawn = drawn if embedding else scale * drawn
            else:
                drawn = 0.3 * drawn + (1 if leaf in ("weight", "w") else 0)
            parameter.copy_(drawn)

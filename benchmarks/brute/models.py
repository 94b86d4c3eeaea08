"""Random small models in float64: HookedTransformers of any configuration, Bridges around Hugging Face models.

Attention is far from uniform, biases and norms are not trivial, weights are raw or processed.
"""

import contextlib
import io
import logging
import random
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from .families import SPECIAL, WORDS, hugging_face_config


@dataclass(frozen=True)
class Drawn:
    """A model, what it is, and how far two right answers may be apart (Hugging Face computes norms in float32)."""

    model: Any
    said: str
    loose: float


def has_hooked_transformer() -> bool:
    try:
        from transformer_lens import HookedTransformer  # noqa: F401  # TransformerLens 4 has none
    except ImportError:
        return False
    return True


def drawn_model(draw: random.Random) -> Drawn:
    """A new model; its first run is behind it (a Bridge's leaves hooks of its own)."""
    kinds = ["bridge", "bridge", "native"] + ["hooked"] * 4 * has_hooked_transformer()
    make = {"hooked": hooked, "bridge": bridge, "native": native}[draw.choice(kinds)]
    with quietly(), torch.random.fork_rng(devices=[]):
        drawn = make(draw)
        with contextlib.suppress(
            ValueError, IndexError
        ):  # of OPT-350m's Bridge, where only a plain run works
            drawn.model.run_with_cache(torch.tensor([[0, 1, 2]]))
        drawn.model(torch.tensor([[0, 1, 2]]))
    return drawn


def hooked(draw: random.Random) -> Drawn:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings = hooked_settings(draw)
    cfg = HookedTransformerConfig(**settings, dtype=torch.float64, device="cpu", init_weights=False)
    model = HookedTransformer(cfg, tokenizer=tokenizer(draw, settings["d_vocab"]))
    randomise(model, draw.randrange(2**31))
    model = model.to(torch.float64).eval()
    if draw.random() < 0.15:
        with torch.no_grad():
            model.unembed.W_U.copy_(model.W_E.T)
    processed = "raw"
    if draw.random() < 0.5:
        options = {key: draw.random() < 0.7 for key in ("center_writing_weights", "center_unembed")}
        if settings["normalization_type"] not in ("LN", "LNPre"):
            options["center_writing_weights"] = False  # RMS norms do not take the mean away
        if settings.get("output_logits_soft_cap", -1) > 0:
            options["center_unembed"] = False  # a capped softmax sees the mean
        model.process_weights_(fold_ln=draw.random() < 0.8, **options)
        model, processed = model.to(torch.float64).eval(), "processed"
    if draw.random() < 0.2:
        model.train()
    # TransformerLens has its ALiBi in float32, and rounds it otherwise after a longer prompt.
    loose = 1e-6 if settings["positional_embedding_type"] == "alibi" else 1e-8
    return Drawn(model, f"HookedTransformer {processed} {said(settings)}", loose)


def hooked_settings(draw: random.Random) -> dict[str, Any]:
    n_heads, d_head = draw.randint(1, 5), draw.choice([2, 4, 4, 6])
    settings: dict[str, Any] = {
        "n_layers": draw.randint(1, 3), "n_heads": n_heads, "d_head": d_head, "d_model": draw.randint(6, 20),
        "n_ctx": draw.randint(12, 30), "d_vocab": len(SPECIAL) + len(WORDS), "eps": draw.choice([1e-5, 1e-2]),
        "normalization_type": draw.choice(["LN", "LN", "LN", "LNPre", "RMS", "RMS", "RMSPre", None]),
        "positional_embedding_type": draw.choice(["standard", "standard", "rotary", "rotary", "shortformer", "alibi"]),
    }  # fmt: skip
    if draw.random() < 0.3:
        settings["attn_only"] = True
    else:
        acts = ["relu", "gelu", "gelu_new", "silu"] + ["solu_ln"] * (settings["normalization_type"] == "LN")
        settings |= {"d_mlp": draw.randint(5, 30), "act_fn": draw.choice(acts)}
        settings |= {"gated_mlp": True} if draw.random() < 0.3 and settings["act_fn"] != "solu_ln" else {}
        settings |= {"parallel_attn_mlp": True} if draw.random() < 0.3 else {}
    if settings["positional_embedding_type"] == "rotary":
        settings |= {
            "rotary_dim": draw.choice([2, d_head]),
            "rotary_adjacent_pairs": draw.random() < 0.5,
        }
    options: dict[str, tuple[float, Any]] = {
        "n_key_value_heads": (0.4, draw.choice([k for k in range(1, n_heads + 1) if n_heads % k == 0])),
        "final_rms": (0.5 if "RMS" in str(settings["normalization_type"]) else 0.0, True),
        "use_attn_scale": (0.1, False),
        "attn_scale": (0.1, 1.7),
        "scale_attn_by_inverse_layer_idx": (0.1, True),
        "attn_scores_soft_cap": (0.1, 3.0),
        "output_logits_soft_cap": (0.15, 4.0),
        "post_embedding_ln": (0.1 * (settings["normalization_type"] is not None), True),
        "use_normalization_before_and_after": (0.1 * (settings["normalization_type"] == "RMS"), True),
        "use_qk_norm": (0.05, True),
        "ungroup_grouped_query_attention": (0.05, True),
        "use_attn_result": (0.05, True),
        "use_split_qkv_input": (0.05, True),
    }
    settings |= {key: value for key, (share, value) in options.items() if draw.random() < share}
    if draw.random() < 0.1 and settings["positional_embedding_type"] != "alibi":
        settings |= {"attention_dir": "bidirectional"}  # TransformerLens' ALiBi then depends on earlier runs
    if draw.random() < 0.15:
        kinds = [draw.choice(["global", "local"]) for _ in range(settings["n_layers"])]
        settings |= {"use_local_attn": True, "window_size": draw.randint(2, 6), "attn_types": kinds}
    return settings


def native(draw: random.Random) -> Drawn:
    """A Bridge on TransformerLens' own layers."""
    from transformer_lens.model_bridge import TransformerBridge

    n_heads = draw.randint(1, 4)
    d_head = draw.choice([2, 4])
    settings: dict[str, Any] = {
        "n_layers": draw.randint(1, 3), "n_heads": n_heads, "d_head": d_head, "d_model": draw.randint(6, 20),
        "n_ctx": draw.randint(12, 30), "d_vocab": len(SPECIAL) + len(WORDS),
    }  # fmt: skip
    kind = draw.choice(["attention only", "GPT-2", "Llama"])
    if kind == "attention only":
        settings |= {"attn_only": True, "normalization_type": draw.choice(["LN", "RMS"])}
    elif kind == "GPT-2":
        settings |= {"d_mlp": draw.randint(5, 30), "act_fn": "gelu_new", "normalization_type": "LN"}
    else:
        groups = draw.choice([k for k in range(1, n_heads + 1) if n_heads % k == 0])
        settings |= {
            "d_mlp": draw.randint(5, 30), "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS",
            "final_rms": True, "positional_embedding_type": "rotary", "n_key_value_heads": groups,
        }  # fmt: skip
    words = tokenizer(draw, settings["d_vocab"])
    model = TransformerBridge.boot_native(dict(settings), tokenizer=words, device="cpu", dtype=torch.float64)
    randomise(model, draw.randrange(2**31))
    model = model.to(torch.float64)
    return Drawn(
        model if draw.random() < 0.2 else model.eval(), f"native Bridge {kind} {said(settings)}", 1e-6
    )


def bridge(draw: random.Random) -> Drawn:
    """A Bridge around a Hugging Face model, raw or in compatibility mode."""
    import transformers
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    name, config = hugging_face_config(draw)
    theirs = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float64
    )
    randomise(theirs, draw.randrange(2**31))
    words = tokenizer(draw, config.vocab_size)
    model = build_bridge_from_module(
        theirs.eval(), type(theirs).__name__, hf_config=config, tokenizer=words, model_name=name
    )
    model.cfg.n_ctx = 30
    processed = "raw"
    if draw.random() < 0.3 and name in ("GPT-2", "GPT-NeoX", "GPT-J", "OPT"):
        try:
            model.enable_compatibility_mode(disable_warnings=True)
            model, processed = model.to(torch.float64), "processed"
        except Exception as error:  # whatever TransformerLens' own processing makes of this model
            return Drawn(model.eval(), f"Bridge {name} half-processed {type(error).__name__}", 1e-6)
    sizes = {key: getattr(model.cfg, key) for key in ("n_layers", "n_heads", "d_head", "d_model")}
    return Drawn(model.eval(), f"Bridge {name} {processed} {said(sizes)}", 1e-6)


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Random parameters, norms and biases too, each a multiple of 2^-12, so that float32 holds it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            leaf = key.rpartition(".")[2]
            new = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1 and not leaf.startswith("b_"):
                embedding = any(part in key for part in ("wte", "wpe", "embed.", "embed_", "W_E", "W_pos"))
                fan_in = parameter.shape[-2] if leaf.startswith(("W_", "_W_")) else parameter.shape[-1]
                new = new if embedding else 1.5 * new / fan_in**0.5
            else:
                new = 0.3 * new + (1 if leaf in ("weight", "w") else 0)
            parameter.copy_((new * 2**12).round() / 2**12)


def tokenizer(draw: random.Random, size: int) -> Any:
    """A tokenizer of whole words, with or without BOS, padding on either side; or none."""
    if draw.random() < 0.4:
        return None
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from induction_kernel.loading._build import self_contained

    words = {word: i for i, word in enumerate([*SPECIAL, *WORDS][:size])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options = {"bos_token": "<bos>"} if draw.random() < 0.7 else {}
    options["eos_token"] = draw.choice(["<eos>", "<eos>", "<pad>"])
    found = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", **options)
    found.padding_side = draw.choice(["right", "right", "left"])
    return self_contained(found)


@contextlib.contextmanager
def quietly() -> Any:
    """Without the prints and warnings of libraries."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def said(settings: dict[str, Any]) -> str:
    left_out = ("n_ctx", "d_vocab")
    return " ".join(f"{key}={value}" for key, value in settings.items() if key not in left_out)

"""Random models whose attention is not causal, or whose outputs are not their tokens, of every class there is."""

import warnings

import torch
from zoo import BASE, SHAPES, SIZES, hooked_with, randomise

from induction_kernel.loading._build import has_hooked_transformer, quietly

BIDIRECTIONAL = ["native", "BERT"] + (["hooked", "encoder"] if has_hooked_transformer() else [])
CLASSIFIERS = ["native", *(["hooked"] if has_hooked_transformer() else [])]
N_CLASSES = 5


def bidirectional(kind, **changes):
    """A model of two layers in float64: "hooked", "encoder" (TransformerLens 3), "native", or "BERT", a Bridge."""
    if kind == "BERT":
        return bert(**changes)
    changes = {"attention_dir": "bidirectional"} | changes
    return {"hooked": hooked_with, "native": native, "encoder": encoder}[kind](**changes)


def classifier(kind, **changes):
    """A causal model whose outputs at every position are five classes."""
    return {"hooked": hooked_with, "native": native}[kind](d_vocab_out=N_CLASSES, **changes)


def native(**changes):
    """A Bridge on TransformerLens' own layers."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    with quietly(), torch.random.fork_rng(devices=[]):
        options = BASE | SHAPES["GPT-2"] | {"architecture": "TransformerLensNative"} | changes
        model = TransformerBridge.boot_native(TransformerBridgeConfig(**options))
        randomise(model.original_model)
        return model.to(torch.float64).eval()


def encoder(**changes):
    """A HookedEncoder: BERT's blocks as TransformerLens 3 has them."""
    from transformer_lens import HookedEncoder, HookedTransformerConfig

    options = BASE | SHAPES["GPT-2"] | {"act_fn": "gelu"} | changes
    with quietly(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="HookedEncoder is deprecated", category=DeprecationWarning)
        model = HookedEncoder(
            HookedTransformerConfig(**options, dtype=torch.float64, device="cpu", init_weights=False)
        )
        randomise(model)
        return model.to(torch.float64).eval()


def bert(**changes):
    """A Bridge around Hugging Face's BERT for masked words."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**(SIZES | changes), vocab_size=BASE["d_vocab"], architectures=["BertForMaskedLM"])
    with quietly(), torch.random.fork_rng(devices=[]):
        inner = BertForMaskedLM._from_config(config, attn_implementation="eager", dtype=torch.float64)
        randomise(inner)
        model = build_bridge_from_module(
            inner.eval(), "BertForMaskedLM", hf_config=config, tokenizer=None, model_name="BERT"
        )
    model.cfg.n_ctx = BASE["n_ctx"]
    return model.eval()

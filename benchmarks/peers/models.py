"""The same random weights for every way, in float32: as a Hugging Face model, a HookedTransformer, a Bridge."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from typing import Any

import torch

from .cases import SHAPES, Case


@contextlib.contextmanager
def quietly() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def questions(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean and corrupted tokens [prompt, position], which differ at one position, and answers [prompt, 2]."""
    draw, d_vocab = torch.Generator().manual_seed(1), SHAPES[case.shape]["d_vocab"]
    clean = torch.randint(d_vocab, (case.prompts, case.length), generator=draw)
    corrupted = clean.clone()
    corrupted[:, case.changed] = torch.randint(d_vocab, (case.prompts,), generator=draw)
    return clean, corrupted, torch.randint(d_vocab, (case.prompts, 2), generator=draw)


def filled(model: Any, d_model: int) -> Any:
    """All matrices drawn anew from one seed; in the order of their names, which do not change between versions."""
    draw = torch.Generator().manual_seed(0)
    for _, parameter in sorted(model.named_parameters()):
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.normal_(0, d_model**-0.5, generator=draw)
    return model.eval()


def hugging_face(shape: str) -> Any:
    import transformers

    size = SHAPES[shape]
    options = {
        "n_layer": size["n_layers"], "n_embd": size["d_model"], "n_head": size["n_heads"],
        "vocab_size": size["d_vocab"], "n_positions": 256, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    if size["kind"] == "gptj":
        config = transformers.GPTJConfig(rotary_dim=size["rotary_dim"], **options)
        return filled(transformers.GPTJForCausalLM(config), size["d_model"])
    return filled(transformers.GPT2LMHeadModel(transformers.GPT2Config(**options)), size["d_model"])


def hooked(shape: str) -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    size = SHAPES[shape]
    with quietly():
        if size["kind"] != "attn-only":
            return converted(hugging_face(shape))
        cfg = HookedTransformerConfig(
            n_layers=size["n_layers"], d_model=size["d_model"], n_heads=size["n_heads"], n_ctx=256,
            d_head=size["d_model"] // size["n_heads"], d_vocab=size["d_vocab"], attn_only=True,
            normalization_type="LNPre", device="cpu", init_weights=False,
        )  # fmt: skip
        return filled(HookedTransformer(cfg), size["d_model"])


def converted(model: Any) -> Any:
    from induction_kernel.loading._conversion import to_hooked
    from induction_kernel.loading._families import hooked_settings

    settings = hooked_settings(model.config)
    assert settings is not None  # both families are known
    made = to_hooked(model, settings, tokenizer=None, n_ctx=256, name="random weights").eval()
    made.unembed.W_U.data = made.unembed.W_U.data.contiguous()  # as in models that TransformerLens loads
    return made


def bridge(shape: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    model = hugging_face(shape)
    with quietly(), tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=None, device="cpu")

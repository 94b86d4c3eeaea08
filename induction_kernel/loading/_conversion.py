"""Hugging Face models as HookedTransformer, by TransformerLens' own weight conversion.

`transformer_lens.pretrained.weight_conversions` (3.x) renames and reshapes the weights; the settings come from
`_families`. Every converted model is compared with the original on a short run before it is returned. Weights are
moved, not copied: without processing, memory peaks at 1.1 times their size, not counting the file's own pages (with
TransformerLens' processing, at 5 times in bfloat16). `_local` reads the files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._build import quietly, self_contained
from ._check import check_same, short_run

__all__ = ["PROCESSING", "to_hooked"]

PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
_CONVERTERS = {"gpt_neox": "convert_neox_weights"}


def to_hooked(
    hf_model: Any,
    settings: dict[str, Any],
    *,
    tokenizer: Any,
    n_ctx: int,
    name: str,
    **processing: bool,
) -> Any:
    """A HookedTransformer with the weights of a Hugging Face model, on the CPU.

    Args:
        hf_model: on the CPU, in the wanted dtype, in evaluation mode. Its weights are removed.
        settings: from `hooked_settings`.
        tokenizer: the tokenizer, or None.
        n_ctx: the context length to declare.
        name: becomes `cfg.model_name`.
        processing: any of TransformerLens' `fold_ln`, `center_writing_weights`, `center_unembed`,
            `fold_value_biases`; all are off unless given.

    Raises:
        Refused: the converted model's log-probabilities differ from those of `hf_model`.
    """
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    kind, dtype = hf_model.config.model_type, hf_model.dtype
    convert = getattr(weight_conversions, _CONVERTERS.get(kind, f"convert_{kind}_weights"))
    cfg = HookedTransformerConfig(
        **settings, n_ctx=n_ctx, dtype=dtype, device="cpu", init_weights=False, model_name=name
    )
    wanted = short_run(hf_model, cfg.d_vocab, n_ctx, name)
    with quietly(), torch.random.fork_rng(devices=[]), torch.no_grad():
        model = HookedTransformer(cfg, tokenizer=None if tokenizer is None else self_contained(tokenizer))
        state = {key: value.detach() for key, value in convert(hf_model.requires_grad_(False), cfg).items()}
        hf_model.to("meta")  # from here on only `state` holds the weights, and drops each as it is copied
        _fill(model.eval(), state, processing)
        _lay_out(model)
    found = short_run(model, cfg.d_vocab, n_ctx, name)
    check_same(found, wanted, dtype, f"{name} as a HookedTransformer", "load it with bridge=True")
    return model


def _fill(model: Any, state: dict[str, Tensor], processing: dict[str, bool]) -> None:
    if any(processing.values()):
        model.load_and_process_state_dict(state, **{key: processing.get(key, False) for key in PROCESSING})
        return
    # With nothing to process, TransformerLens would still convert all weights to float32 at once: three times the
    # memory in bfloat16, and rounding in float64.
    own, state = model.state_dict(), model.fill_missing_keys(state)
    for key in list(state):
        own[key].copy_(state.pop(key))


def _lay_out(model: Any) -> None:
    """Lay weights out in memory as TransformerLens reads them: it copies those of gated MLPs and W_U in every run."""
    for module in model.modules():
        if type(module).__name__ in ("GatedMLP", "Unembed"):
            for weight in module.parameters(recurse=False):
                if weight.ndim == 2:
                    weight.data = weight.data.T.contiguous().T

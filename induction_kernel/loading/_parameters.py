"""The parameters of an architecture, and a check that given weights are complete.

Names and shapes are those of TransformerLens' `HookedTransformer.state_dict`; `bridge_parameter` gives the name and
shape of each in a `TransformerBridge` on TransformerLens' own layers. `_build` makes the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._given import is_whole
from ..errors import Refused

__all__ = ["BUFFERS", "bridge_parameter", "checked_architecture", "checked_weights"]

BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_REQUIRED = ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab")
_DEFAULTS: dict[str, Any] = {
    "n_key_value_heads": None,
    "attn_only": False,
    "d_mlp": None,
    "act_fn": "relu",
    "gated_mlp": False,
    "normalization_type": "LN",
    "final_rms": False,
    "eps": 1e-5,
    "positional_embedding_type": "standard",
    "rotary_dim": None,
    "rotary_base": 10000,
    "default_prepend_bos": True,
    "smeared_keys": False,
}
_FLAGS = ("attn_only", "gated_mlp", "final_rms", "default_prepend_bos", "smeared_keys")
_COUNTS = ("n_key_value_heads", "d_mlp", "rotary_dim")  # or None
_CHOICES: dict[str, tuple[Any, ...]] = {
    "normalization_type": ("LN", "LNPre", "RMS", "RMSPre", None),
    "positional_embedding_type": ("standard", "rotary"),
    "act_fn": ("relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "solu_ln"),
}


def checked_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture with its defaults, by TransformerLens' names.

    Raises:
        Refused: entries that are missing, unknown or out of range.
    """
    missing = [key for key in _REQUIRED if key not in architecture]
    unknown = sorted(set(architecture) - {*_REQUIRED, *_DEFAULTS})
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown entries {', '.join(unknown)}"
        raise Refused(f"the architecture {what}; known are {', '.join([*_REQUIRED, *_DEFAULTS])}")
    settings = {**_DEFAULTS, **architecture}
    _check_kinds(settings)
    if settings["n_key_value_heads"] == settings["n_heads"]:
        settings["n_key_value_heads"] = None  # one key and value head per query head: nothing is grouped
    if settings["n_heads"] % (settings["n_key_value_heads"] or 1):
        raise Refused("the architecture's n_heads must be a multiple of its n_key_value_heads")
    settings["d_mlp"] = settings["d_mlp"] or 4 * settings["d_model"]
    if settings["positional_embedding_type"] == "rotary":
        settings["rotary_dim"] = settings["rotary_dim"] or settings["d_head"]
        if settings["rotary_dim"] > settings["d_head"] or settings["rotary_dim"] % 2:
            raise Refused("the architecture's rotary_dim must be even, and at most its d_head")
    return settings


def _check_kinds(settings: dict[str, Any]) -> None:
    counts = [(key, settings[key]) for key in _COUNTS if settings[key] is not None]
    for key, value in [*((key, settings[key]) for key in _REQUIRED), *counts]:
        if not is_whole(value) or value < 1:
            raise Refused(f"the architecture's {key} must be a whole number, at least 1, got {value!r}")
    for key in _FLAGS:
        if not isinstance(settings[key], bool):
            raise Refused(f"the architecture's {key} must be True or False, got {settings[key]!r}")
    for key, choices in _CHOICES.items():
        if settings[key] not in choices and not (key == "act_fn" and settings["attn_only"]):
            raise Refused(f"the architecture's {key} must be one of {choices}, got {settings[key]!r}")
    for key in ("eps", "rotary_base"):
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise Refused(f"the architecture's {key} must be a number above 0, got {value!r}")


def checked_weights(
    settings: dict[str, Any], weights: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Every parameter of the architecture, in `dtype`; biases that are missing are zeros.

    Raises:
        Refused: parameters that are missing, unknown, of the wrong shape, not floating point numbers or not finite.
    """
    _check_layers(settings["n_layers"], weights)
    shapes = _shapes(settings)
    given = {_as_grouped(key, shapes): value for key, value in weights.items() if not key.endswith(BUFFERS)}
    missing = [key for key in shapes if key not in given and not _is_bias(key)]
    unknown = [key for key in given if key not in shapes]
    if missing or unknown:
        what = f"lack {_some(missing)}" if missing else f"have {_some(unknown)}, which the architecture lacks"
        raise Refused(f"the weights {what}; the architecture has {len(shapes)} parameters")
    for key, value in given.items():
        if tuple(value.shape) != shapes[key]:
            raise Refused(
                f"{key} must have shape {shapes[key]} for this architecture, got {tuple(value.shape)}"
            )
        if value.dtype not in _DTYPES:
            raise Refused(f"{key} must hold floating point numbers of 16 to 64 bits, got {value.dtype}")
        if not torch.isfinite(value).all():
            raise Refused(f"{key} holds NaN or infinite values: the training diverged or the file is damaged")
    return {
        key: given[key].detach().to(dtype) if key in given else torch.zeros(shape, dtype=dtype)
        for key, shape in shapes.items()
    }


def _check_layers(n_layers: int, weights: Mapping[str, Tensor]) -> None:
    """Refused if the weights have fewer layers, before the names of all parameters are listed."""
    found = {key.split(".")[1] for key in weights if key.startswith("blocks.")}
    if n_layers > len(found):
        missing = next(layer for layer in range(n_layers) if str(layer) not in found)
        raise Refused(
            f"the weights lack blocks.{missing}.attn.W_Q: they have {len(found)} layers, the architecture {n_layers}"
        )


def bridge_parameter(key: str, value: Tensor) -> tuple[str, Tensor]:
    """Name and shape of a HookedTransformer parameter in a native Bridge, which holds torch's own layers."""
    stem, _, leaf = key.rpartition(".")
    leaf = leaf.removeprefix("_")
    kind, _, part = leaf.partition("_")
    suffix = "weight" if kind in ("W", "w") else "bias"
    if part in ("E", "pos", "U", ""):
        return f"{stem}.{suffix}", value.T if leaf == "W_U" else value
    if part == "O" and kind == "W":
        value = value.flatten(0, 1).T
    elif part in ("Q", "K", "V"):
        value = value.mT.flatten(0, 1) if kind == "W" else value.flatten()
    elif kind == "W":
        value = value.T
    return f"{stem}.{part.lower()}.{suffix}", value


def _shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every parameter of the HookedTransformer with these settings."""
    d, heads, d_head, d_mlp = (settings[key] for key in ("d_model", "n_heads", "d_head", "d_mlp"))
    grouped = settings["n_key_value_heads"]
    kv, underscore = (heads, "") if grouped is None else (grouped, "_")
    norm = {"LN": {"w": (d,), "b": (d,)}, "RMS": {"w": (d,)}}.get(settings["normalization_type"], {})
    last_norm = {"w": (d,)} if norm and settings["final_rms"] else norm
    block: dict[str, tuple[int, ...]] = {f"ln1.{key}": shape for key, shape in norm.items()}
    block |= {"attn.W_Q": (heads, d, d_head), "attn.W_O": (heads, d_head, d), "attn.b_O": (d,)}
    block |= {f"attn.{underscore}W_{key}": (kv, d, d_head) for key in "KV"}
    block |= {"attn.smear": (heads,)} if settings["smeared_keys"] else {}
    block |= {"attn.b_Q": (heads, d_head)} | {f"attn.{underscore}b_{key}": (kv, d_head) for key in "KV"}
    if not settings["attn_only"]:
        block |= {f"ln2.{key}": shape for key, shape in norm.items()}
        block |= {"mlp.W_in": (d, d_mlp), "mlp.b_in": (d_mlp,), "mlp.W_out": (d_mlp, d), "mlp.b_out": (d,)}
        block |= {"mlp.W_gate": (d, d_mlp)} if settings["gated_mlp"] else {}
    shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (settings["d_vocab"], d)}
    if settings["positional_embedding_type"] == "standard":
        shapes["pos_embed.W_pos"] = (settings["n_ctx"], d)
    for layer in range(settings["n_layers"]):
        shapes |= {f"blocks.{layer}.{key}": shape for key, shape in block.items()}
    shapes |= {f"ln_final.{key}": shape for key, shape in last_norm.items()}
    return shapes | {"unembed.W_U": (d, settings["d_vocab"]), "unembed.b_U": (settings["d_vocab"],)}


def _as_grouped(key: str, shapes: dict[str, tuple[int, ...]]) -> str:
    # Grouped key and value parameters have a leading underscore in a HookedTransformer; its properties do not.
    stem, _, leaf = key.rpartition(".")
    return f"{stem}._{leaf}" if key not in shapes and f"{stem}._{leaf}" in shapes else key


def _is_bias(key: str) -> bool:
    leaf = key.rpartition(".")[2].removeprefix("_")
    return leaf == "b" or leaf.startswith("b_")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

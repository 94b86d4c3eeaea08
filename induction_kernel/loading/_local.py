"""Hugging Face folders and GGUF files, read by transformers and converted to TransformerLens.

Families in `_families` become a `HookedTransformer` if TransformerLens has it (see `_conversion`), everything else a
`TransformerBridge` around the Hugging Face model. GGUF weights are dequantised. Nothing is downloaded: see `_hub`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from .._given import is_whole
from ..errors import Refused
from ._build import has_hooked_transformer, quietly, self_contained
from ._check import check_same, short_run
from ._conversion import PROCESSING, to_hooked
from ._families import hooked_settings
from ._gguf import parsed_once
from ._headers import check_headers, check_unexpected
from ._names import where_of

__all__ = ["load_local"]


def load_local(
    path: Path,
    *,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    n_devices: int | None = None,
    device_map: Any = None,
    bridge: bool = False,
    n_ctx: int | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    **processing: bool,
) -> Any:
    """The model in a Hugging Face folder or a GGUF file.

    Raises:
        Refused: no model that can be read; weights that are incomplete, damaged or not those of the configuration; a
            model with its own code, without `trust_remote_code=True`; a context length beyond the model's; a device map
            for a HookedTransformer.
        TypeError: an unknown keyword, or weight processing for a Bridge.
        ImportError: a GGUF file without the package that reads it.
    """
    from transformers import AutoConfig

    _check_processing(processing)
    where = {**where_of(path), "trust_remote_code": trust_remote_code}
    name = path.stem if path.is_file() else path.resolve().name
    with parsed_once() if path.is_file() else nullcontext():
        where["config"] = _read(path, AutoConfig.from_pretrained, **where)
        check_headers(path, where["config"])
        n_ctx = _context(where["config"], n_ctx)
        settings = hooked_settings(where["config"]) if has_hooked_transformer() and not bridge else None
        _check_options(settings is not None, processing, device_map)
        if tokenizer is None:
            tokenizer = _read_tokenizer(path, where)
        plan = _plan(n_devices, device_map) if settings is None else {}
        hf_model = _read_weights(path, where, dtype, **plan)
    if settings is not None:
        model = to_hooked(hf_model, settings, tokenizer=tokenizer, n_ctx=n_ctx, name=name, **processing)
        return _placed(model, device or _default_device(), n_devices or 1)
    if not plan:
        hf_model.to(device or _default_device())
    return _as_bridge(hf_model, tokenizer, n_ctx, name)


def _check_processing(processing: dict[str, Any]) -> None:
    unknown = sorted(set(processing) - set(PROCESSING))
    if unknown:
        raise TypeError(
            f"load() of a local model takes no {', '.join(unknown)}; it takes device, dtype, n_devices, "
            f"device_map, bridge, n_ctx, tokenizer, trust_remote_code, {', '.join(PROCESSING)}"
        )
    for key, value in processing.items():
        if not isinstance(value, bool):
            raise TypeError(f"{key} must be True or False, got {value!r}")


def _check_options(hooked: bool, processing: dict[str, bool], device_map: Any) -> None:
    if hooked and device_map is not None:
        raise Refused(
            "device_map is for a TransformerBridge, and this model becomes a HookedTransformer: pass "
            "bridge=True, or n_devices= instead"
        )
    if not hooked and any(processing.values()):
        raise TypeError(
            f"{', '.join(processing)}: only a HookedTransformer is processed on loading, and this model "
            "becomes a TransformerBridge; call its enable_compatibility_mode() instead"
        )


def _read(path: Path, reader: Callable[..., Any], **kwargs: Any) -> Any:
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            return reader(**kwargs)
    except MemoryError:
        raise
    except Exception as error:  # transformers, safetensors and gguf raise many kinds for a damaged file
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "custom code" in first:
            first = (
                "it needs to run its own Python code, which is done only with trust_remote_code=True; read "
                "its .py files first"
            )
        raise Refused(f"{path} cannot be read as a language model: {first}") from error


def _read_weights(path: Path, where: dict[str, Any], dtype: torch.dtype, **plan: Any) -> Any:
    from transformers import AutoModelForCausalLM

    hf_model, info = _read(
        path,
        AutoModelForCausalLM.from_pretrained,
        **where,
        **plan,
        dtype=dtype,
        attn_implementation="eager",  # other implementations never show their attention patterns
        output_loading_info=True,
    )
    # transformers fills missing parameters with random numbers and only warns.
    missing = sorted(info["missing_keys"])
    if missing:
        raise Refused(f"{path} lacks {len(missing)} of the model's parameters, such as {missing[0]}")
    check_unexpected(path, sorted(info["unexpected_keys"]), where["config"])
    for key, value in hf_model.named_parameters():
        if not torch.isfinite(value).all():
            raise Refused(
                f"{path}: {key} holds NaN or infinite values; the file is damaged or {dtype} is too narrow"
            )
    return hf_model.eval()


def _read_tokenizer(path: Path, where: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
    if path.is_dir() and not any((path / name).is_file() for name in files):
        return None  # a model that only takes tokens
    return _read(path, AutoTokenizer.from_pretrained, **where)


def _context(config: Any, n_ctx: int | None) -> int:
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
    if n_ctx is None:
        return longest
    if not is_whole(n_ctx) or not 1 <= n_ctx <= longest:
        raise Refused(
            f"n_ctx must be a whole number from 1 to {longest}, the model's own context, got {n_ctx!r}"
        )
    return n_ctx


def _placed(model: Any, device: str, n_devices: int) -> Any:
    """The HookedTransformer on its device, or spread over several by TransformerLens."""
    with quietly():
        if n_devices == 1:
            return model.to(device, print_details=False)
        model.cfg.device, model.cfg.n_devices = device, n_devices
        model.move_model_modules_to_device()
    return model


def _plan(n_devices: int | None, device_map: Any) -> dict[str, Any]:
    """Arguments by which transformers spreads the model over devices; empty for a single device."""
    from transformer_lens.utilities.multi_gpu import resolve_device_map

    plan, memory = resolve_device_map(n_devices, device_map, None)
    return {
        key: value for key, value in {"device_map": plan, "max_memory": memory}.items() if value is not None
    }


def _as_bridge(hf_model: Any, tokenizer: Any, n_ctx: int, name: str) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.utilities.multi_gpu import count_unique_devices, find_embedding_device

    kind, d_vocab = type(hf_model).__name__, hf_model.get_input_embeddings().weight.shape[0]
    wanted = short_run(hf_model, d_vocab, n_ctx, name)
    tokenizer = None if tokenizer is None else self_contained(tokenizer)
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            model = build_bridge_from_module(
                hf_model,
                kind,
                hf_config=hf_model.config,
                tokenizer=tokenizer,
                model_name=name,
            )
    except (AssertionError, AttributeError, NotImplementedError, ValueError) as error:
        raise Refused(
            f"{name} cannot be a TransformerBridge: TransformerLens' adapter does not take this {kind}"
            + (f" ({error})" if str(error) else "")
        ) from error
    first = find_embedding_device(hf_model)  # None if transformers did not spread it
    if first is not None:
        model.cfg.device, model.cfg.n_devices = str(first), count_unique_devices(hf_model)
    model.cfg.n_ctx = n_ctx  # only declared: the Hugging Face model's own tables keep their length
    found = short_run(model.eval(), d_vocab, n_ctx, name)
    remedy = f"TransformerLens' adapter computes this {kind} differently from Hugging Face, so nothing would be right"
    check_same(found, wanted, hf_model.dtype, f"{name} as a TransformerBridge", remedy)
    return model


def _default_device() -> str:
    from transformer_lens.utilities.devices import get_device

    return str(get_device())

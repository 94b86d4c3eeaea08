"""`load`: a name or a path to TransformerLens' own model.

The embedded model ("tiny", see `_embedded`), a local Hugging Face folder or GGUF file (see `_local`), or a name on the
hub (see `_hub`), which alone uses the network.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .._given import is_whole
from ..errors import Refused
from ..model._anatomy import Model
from ._embedded import load_embedded
from ._hub import load_from_hub
from ._local import load_local
from ._names import TINY, as_path, is_embedded
from ._options import checked_options

__all__ = ["load"]


def load(
    name_or_path: str | os.PathLike[str] = "tiny",
    *,
    checkpoint: int | None = None,
    checkpoint_index: int | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    n_devices: int | None = None,
    device_map: str | dict[str, Any] | None = None,
    bridge: bool = False,
    **kwargs: Any,
) -> Model:
    """Load a model as TransformerLens' own object, in evaluation mode.

    TransformerLens 4.x has one kind of model, `TransformerBridge`. Under 3.x these become a `HookedTransformer`:

    - the embedded model, and folders that `induction-kernel train` wrote;
    - Hugging Face folders and GGUF files of Llama, Mistral, Qwen2, GPT-2, GPT-J and GPT-NeoX (Pythia), by
      TransformerLens' own weight conversions, unless a model needs what these do not support (a sliding window, scaled
      rotary embeddings other than Llama 3's, biases unusual for its family);
    - names on the hub that TransformerLens lists, including its own early models ("attn-only-2l", "gelu-2l",
      "solu-1l");

    and everything else becomes a `TransformerBridge`. A model from a folder or file is compared with the Hugging Face
    model on a short run of 16 tokens before it is returned. In a converted HookedTransformer, W_U and the weights of
    gated MLPs are laid out in memory as its runs read them, so that TransformerLens copies nothing (safetensors takes
    them as `weight.contiguous()`). The global random state, logging and gradient settings are not changed.

    Args:
        name_or_path: "tiny", the embedded model; a Hugging Face folder, a GGUF file, or a folder that
            `induction-kernel train` wrote; else a name on the Hugging Face hub, in any case. A `Path`, or a string that
            looks like one ("./x", "x.gguf"), is never a name; a string that is both a local model folder and a name
            means the folder.
        checkpoint: a training step, for models with checkpoints: folders that `induction-kernel train` wrote; on the
            hub Pythia, stanford-crfm's GPT-2 and some of TransformerLens' early models.
        checkpoint_index: on the hub, the checkpoint's place among them instead; -1 is the last.
        device: of the parameters; None is the CPU for the embedded model, for others TransformerLens' choice (CUDA if
            there is one).
        dtype: of the parameters: float16, bfloat16, float32 or float64, as a string or torch's own; None is float32.
        n_devices: number of CUDA devices over which the layers are spread.
        device_map: where each part of a `TransformerBridge` goes, as in transformers ("auto", or `{"": "cpu"}`),
            instead of `device`. A `HookedTransformer` takes only `n_devices`.
        bridge: make a `TransformerBridge` even if TransformerLens has `HookedTransformer`.
        kwargs: for the hub, any keyword that TransformerLens takes for this model (`revision`, `n_ctx`, `tokenizer`).
            For local models `n_ctx` (at most the model's own), `tokenizer`, `trust_remote_code`, and for those
            that become a HookedTransformer `fold_ln`, `center_writing_weights`, `center_unembed`,
            `fold_value_biases`, which are off by default: a local model has the weights of its file.
            (`HookedTransformer.from_pretrained` has them on.)

    Raises:
        Refused: no such path or name (with the nearest ones), damaged or incomplete files, an unknown checkpoint or
            revision; a device, dtype or placement that does not exist; a model that does not compute what the Hugging
            Face model does.
        TypeError: neither a name nor a path; an unknown keyword, or one that this kind of model does not take.
        ImportError: a GGUF file without the package that reads it.
        ConnectionError: a name on the hub, without a connection to it.
        PermissionError: a name on the hub whose licence must be accepted first.
        NotImplementedError: a name that TransformerLens lists but the installed version cannot load.

    Example:
        >>> import induction_kernel as ik
        >>> model = ik.load("tiny")
        >>> model.cfg.n_layers
        2
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(
            f"wanted a model's name or path, got {type(name_or_path).__name__}: {name_or_path!r:.80}"
        )
    _check_checkpoint(checkpoint, checkpoint_index)
    if isinstance(name_or_path, os.PathLike):
        name_or_path = Path(name_or_path)
    options = {"bridge": bridge, **checked_options(device, dtype, n_devices, device_map), **kwargs}
    path = TINY if name_or_path == "tiny" else as_path(name_or_path)
    if path is None:
        return load_from_hub(
            str(name_or_path), checkpoint=checkpoint, checkpoint_index=checkpoint_index, **options
        )
    embedded = is_embedded(path) or path == TINY
    if checkpoint_index is not None:
        remedy = "pass checkpoint, the step" if embedded else "leave it out"
        raise Refused(f"checkpoint_index counts checkpoints on the hub, and {path} is a path: {remedy}")
    if embedded:
        return load_embedded(path, checkpoint=checkpoint, **_for_embedded(options))
    if checkpoint is not None:
        raise Refused(f"{path} has no training checkpoints: checkpoint must be left out")
    return load_local(path, **options)


def _check_checkpoint(checkpoint: int | None, index: int | None) -> None:
    if checkpoint is not None and index is not None:
        raise Refused(
            f"checkpoint ({checkpoint}) is a training step and checkpoint_index ({index}) its place among them: "
            "pass one of them"
        )
    for name, value in {"checkpoint": checkpoint, "checkpoint_index": index}.items():
        if value is not None and not is_whole(value):
            wanted = "a training step, a whole number" if name == "checkpoint" else "a whole number"
            raise TypeError(f"{name} must be {wanted}, got {value!r}")


def _for_embedded(options: dict[str, Any]) -> dict[str, Any]:
    unknown = set(options) - {"device", "dtype", "bridge"}
    if unknown:
        raise TypeError(
            "load() of an embedded model takes checkpoint, device, dtype and bridge, "
            f"got {', '.join(sorted(unknown))}"
        )
    return options

"""Tensors that a weight file names, checked against a configuration before anything is loaded.

The headers of safetensors and GGUF files are read before a model is built. `_local` loads the weights.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import Refused
from ..formats import read_json

__all__ = ["check_headers", "check_unexpected"]

_OF_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def check_headers(path: Path, config: Any) -> None:
    """Compare a configuration with the headers of the weights beside it, if there are any.

    Raises:
        Refused: more layers than tensors; whole numbers as weights of a model that is not quantised; a damaged header.
    """
    dtypes = {} if path.is_file() else _dtypes(path)
    n_tensors = _n_tensors(path) if path.is_file() else len(dtypes)
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if n_tensors and isinstance(layers, int) and not 0 < layers <= n_tensors:
        raise Refused(
            f"{path}: the configuration has {layers} layers, but the weights are only {n_tensors} tensors: one of the "
            "two is damaged"
        )
    whole = [
        name for name, of in dtypes.items() if name.endswith(".weight") and of.startswith(("I", "U", "BOOL"))
    ]
    if whole and getattr(config, "quantization_config", None) is None:
        raise Refused(f"{path}: {whole[0]} holds {dtypes[whole[0]]}, wanted floating point numbers")


def check_unexpected(path: Path, names: list[str], config: Any) -> None:
    """Raise Refused if there are weights of layers that the configuration does not have."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", float("inf"))
    beyond = [
        name for name in names for found in [_OF_LAYER.search(name)] if found and int(found[1]) >= layers
    ]
    if beyond:
        raise Refused(f"{path} holds {beyond[0]}, but its configuration has only {layers} layers")


def _dtypes(folder: Path) -> dict[str, str]:
    """Name -> dtype of all tensors in the safetensors files of a folder that transformers would read."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    elif index.is_file():
        found = read_json(index)
        names = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise Refused(f"{index} is damaged: wanted weight_map, from each tensor to its file")
        files = sorted(set(names.values()))
    else:
        return {}
    dtypes = {}
    for name in files:
        try:
            with safe_open(folder / name, framework="pt") as file:
                dtypes |= {key: str(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118  not a mapping
        except Exception as error:  # safetensors' own, and any error from a damaged header
            raise Refused(f"{folder} cannot be read as a language model: {name}: {error}") from error
    return dtypes


def _n_tensors(path: Path) -> int:
    """The number of tensors in a GGUF file, which follows its four letters and the version."""
    with path.open("rb") as file:
        start = file.read(16)
    return struct.unpack("<Q", start[8:])[0] if len(start) == 16 else 0

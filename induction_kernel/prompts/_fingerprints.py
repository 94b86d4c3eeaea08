"""Fingerprints: a hash of everything a result depends on: measures and their options, prompts, weights, versions.

It is the same in every process and does not depend on where files lie. The versions of this package and of
TransformerLens are part of it. A folder of results (`stores`) is marked with it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
import xarray as xr

from .. import __version__
from ..model._anatomy import Model, describe
from ..model._self_check import foreign_hooks

__all__ = ["fingerprint", "weights_of"]

_SAMPLED = 4096  # numbers of each parameter that are hashed, evenly spaced
_PACKAGE = __name__.partition(".")[0] + "."
_PLAIN = (
    str,
    int,
    float,
    bool,
    bytes,
    complex,
    type(None),
    EllipsisType,
    torch.dtype,
    torch.device,
    np.generic,
    Path,
)


def fingerprint(*of: Any) -> str:
    """A hash of measures (functions, partials, frozen dataclasses) with all they hold, prompts, and plain data.

    Returns:
        64 hexadecimal digits, the same in every process.

    Raises:
        TypeError: an object whose contents cannot be read, so that it cannot be told from others of its type.
    """
    versions = [__version__, version("transformer-lens")]
    return hashlib.sha256(json.dumps([_said(of), versions]).encode()).hexdigest()


def weights_of(model: Model) -> list[Any]:
    """A model as plain data, for `fingerprint`: its description, the user's own hooks, and its weights.

    Of large parameters only about `_SAMPLED` evenly spaced numbers are taken.
    """
    sampled = [
        (list(weights.shape), weights.detach().reshape(-1)[:: max(1, weights.numel() // _SAMPLED)])
        for weights in model.parameters()
    ]
    return [describe(model), sorted(foreign_hooks(model)), sampled]


def _said(value: Any) -> Any:
    """A value as data that JSON can write, different for different contents."""
    if isinstance(value, _PLAIN):
        return [type(value).__name__, repr(value)]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return [str(value.dtype), _said((value.double() if value.is_floating_point() else value).numpy())]
    if isinstance(value, np.ndarray):
        data = value.tolist() if value.dtype.kind in "OUS" else value.tobytes()
        return [str(value.dtype), list(value.shape), hashlib.sha256(repr(data).encode()).hexdigest()]
    if isinstance(value, xr.DataArray | xr.Dataset):
        return [type(value).__name__, _said(value.to_dict(data="array"))]
    if isinstance(value, Mapping):
        return ["mapping", sorted(([str(key), _said(of)] for key, of in value.items()), key=repr)]
    if isinstance(value, list | tuple):
        return [_said(each) for each in value]
    if isinstance(value, set | frozenset):
        return ["set", sorted((_said(each) for each in value), key=repr)]
    if callable(getattr(value, "get_vocab", None)):
        return _said_of_tokenizer(value)
    return _said_of_code(value)


def _said_of_tokenizer(value: Any) -> Any:
    """A tokenizer as its rules and special tokens, without the place it was read from.

    Padding and truncation are left out: a fast tokenizer keeps those of its latest call.
    """
    pieces, backend = getattr(value, "sp_model", None), getattr(value, "backend_tokenizer", None)
    if backend is not None:  # the rules include the vocabulary, which would take seconds word by word
        rules = json.dumps(
            json.loads(backend.to_str()) | {"padding": None, "truncation": None}, sort_keys=True
        )
    elif pieces is not None:
        rules = [pieces.serialized_model_proto(), value.get_vocab()]
    else:
        rules = [type(value).__name__, getattr(value, "bpe_ranks", None), value.get_vocab()]
    meant = {key: str(token) for key, token in getattr(value, "special_tokens_map", {}).items()}
    adds = [getattr(value, key, None) for key in ("add_bos_token", "add_eos_token")]
    return ["tokenizer", _said([rules, meant, adds])]


def _said_of_code(value: Any) -> Any:
    """The same for code: functions, partials, methods, classes and frozen dataclasses."""
    if isinstance(value, functools.partial):
        return ["partial", _said([value.func, value.args, value.keywords])]
    if isinstance(value, type | BuiltinFunctionType):
        return ["name", f"{value.__module__}.{value.__qualname__}"]
    if isinstance(value, CodeType):
        return ["code", value.co_code.hex(), list(value.co_names), _said(value.co_consts)]
    if isinstance(value, FunctionType) or hasattr(value, "__wrapped__"):
        return _said_of_function(value)
    if isinstance(value, MethodType):
        return ["method", _said([value.__func__, value.__self__])]
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return [f"{type(value).__module__}.{type(value).__qualname__}", _said(held)]
    raise TypeError(
        f"no fingerprint can be made of a {type(value).__name__}, so results cannot be kept: wanted measures made of "
        "functions, functools.partial and frozen dataclasses, with plain data or prompts as options (or no path)"
    )


def _said_of_function(value: Any) -> Any:
    """A function as its name, defaults, enclosed values and code.

    Code of this package is left out: the version stands for it.
    """
    name, wrapped = f"{value.__module__}.{value.__qualname__}", getattr(value, "__wrapped__", None)
    ours = name.startswith(_PACKAGE)
    if wrapped is not None and ours:
        return _said(wrapped)
    enclosed = []
    for cell in getattr(value, "__closure__", None) or ():
        try:
            enclosed.append(_said(cell.cell_contents))
        except TypeError:
            if wrapped is None:  # a decorator may hold objects of its own, such as `torch.no_grad()`
                raise
    kept = [getattr(value, key, None) for key in ("__defaults__", "__kwdefaults__")]
    code = None if ours else getattr(value, "__code__", None)
    return ["function", name, _said([*kept, code, wrapped]), enclosed]

"""Results of a sweep over checkpoints, kept as files so that it can go on after a stop.

The fingerprint depends on the measures with their options, the source's recipe and log, the step and the versions; not
on where files are. Each file is written whole or not at all, so results may be computed anywhere and in any order.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
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
from ..errors import Refused
from ..files import kept_folder, netcdf_of, read_netcdf, write_whole

__all__ = ["fingerprint", "opened", "read_result", "write_result"]

FORMAT = 1
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
    """A hash of measures (functions, partials, frozen dataclasses), their contents (also prompts) and plain data.

    It is the same in every process.

    Raises:
        TypeError: an object whose contents cannot be hashed.
    """
    versions = [FORMAT, __version__, version("transformer-lens")]
    return hashlib.sha256(json.dumps([_said(of), versions]).encode()).hexdigest()


def opened(path: str | os.PathLike[str], mark: str) -> Path:
    """The folder of a sweep's results, either new or of the sweep with this fingerprint.

    Raises:
        Refused: a folder that holds something else, or another sweep; a file; no parent folder.
    """
    said = {"format": FORMAT, "fingerprint": mark}
    return kept_folder(path, "sweep.json", said, "sweep (other measures, options or version)")


def write_result(path: Path, result: xr.Dataset, mark: str) -> None:
    """Write a checkpoint's result with its fingerprint."""
    write_whole(path, netcdf_of(result.assign_attrs(fingerprint=mark)))


def read_result(path: Path, mark: str) -> xr.Dataset | None:
    """The stored result; None if there is none.

    Raises:
        Refused: a file of another source, or one that cannot be read.
    """
    if not path.exists():
        return None
    try:
        found = read_netcdf(path)
    except Refused as error:
        raise Refused(
            f"{str(path)!r} is damaged: delete it to have it computed again ({error.__cause__})"
        ) from error
    if found.attrs.pop("fingerprint", None) != mark:
        raise Refused(
            f"{str(path)!r} is the result of another source (other recipe, seed or log): pass another folder, or "
            "delete this one"
        )
    return found


def _said(value: Any) -> Any:
    """A value as data that JSON can write."""
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
    """A tokenizer's rules and special tokens, but not where it was read from.

    Padding and truncation are left out: a fast tokenizer keeps those of its latest call.
    """
    pieces, backend = getattr(value, "sp_model", None), getattr(value, "backend_tokenizer", None)
    if (
        backend is not None
    ):  # the rules include the vocabulary; hashing 100,000 entries one by one would take seconds
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
    """A function, class or other code as data that JSON can write."""
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
        f"no fingerprint can be made of a {type(value).__name__}, so results cannot be stored: wanted measures made of "
        "functions, functools.partial and frozen dataclasses, with plain data or prompts as options (or no path)"
    )


def _said_of_function(value: Any) -> Any:
    """A function's name, defaults, closure and code; for this package's functions the version replaces the code."""
    name, wrapped = f"{value.__module__}.{value.__qualname__}", getattr(value, "__wrapped__", None)
    ours = name.startswith(_PACKAGE)
    if wrapped is not None and ours:
        return _said(wrapped)
    enclosed = []
    for cell in getattr(value, "__closure__", None) or ():
        try:
            enclosed.append(_said(cell.cell_contents))
        except TypeError:
            if wrapped is None:  # a decorator may hold other objects, such as `torch.no_grad()`
                raise
    kept = [getattr(value, key, None) for key in ("__defaults__", "__kwdefaults__")]
    code = None if ours else getattr(value, "__code__", None)
    return ["function", name, _said([*kept, code, wrapped]), enclosed]

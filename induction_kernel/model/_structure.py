"""The structure of a model: its modules with their code, settings, shapes and hooks, without its weights' values.

Models of one structure, such as the checkpoints of a training run, compute the same function of tokens and weights, so
a check of the code that runs one of them holds for all. What their weights do is not covered.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._anatomy import Model, all_modules

__all__ = ["structure_of"]

_LABELS = {
    *("model_name", "tokenizer_name", "name_or_path", "_name_or_path", "_commit_hash", "tokenizer", "seed"),
    *("checkpoint_index", "checkpoint_value", "checkpoint_label_type", "from_checkpoint", "training"),
    *("_block_alias_cache", "_capture_hooks_wired", "_capture_hook_handles", "_fired_hook_out"),
}
"""Attributes that are not structure: names of the weights, and records that a Bridge keeps of its runs."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
_DEPTH = 4


class _Names(NamedTuple):
    """What is known of objects while a model is told.

    Attributes:
        modules: id of a module -> its name.
        told: id of any other object and depth -> what is told of it.
    """

    modules: dict[int, str]
    told: dict[tuple[int, int], Any]


class _OwnCode(Exception):
    """Raised for code that is made at run time (a closure, a class in a function): no name tells it from other code."""


def structure_of(model: Model) -> str | None:
    """A hash shared by models that differ only in the values of their weights; None if that cannot be told.

    It cannot if a module, or its class, has code that is made at run time (a closure, a class in a function).
    """
    modules = all_modules(model)
    names = _Names({id(module): name for module, name in modules.items()}, {})
    try:
        told = [
            (name, _of_code(type(module)), _told(vars(module), names)) for module, name in modules.items()
        ]
        # Libraries (transformers) add methods to torch.nn.Module itself, which run no model.
        mine = {cls for module in modules for cls in type(module).__mro__ if cls is not torch.nn.Module}
        classes = {_of_code(cls): _methods(cls) for cls in mine}
    except _OwnCode:
        return None
    return hashlib.sha256(repr((told, sorted(classes.items()))).encode()).hexdigest()


def _methods(cls: type) -> list[tuple[str, str]]:
    """The methods of a class, with the functions behind them, which somebody may have replaced."""
    return [(key, _of_code(each)) for key, each in vars(cls).items() if isinstance(each, FunctionType)]


def _told(value: Any, names: _Names, depth: int = _DEPTH) -> Any:
    """A value as text, tuples and lists."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, torch.nn.Module):
        return names.modules.get(id(value), type(value).__qualname__)
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _of_code(value)
    if isinstance(value, partial):
        return _told((value.func, value.args, value.keywords), names, depth)
    if isinstance(value, MethodType):
        return _of_code(value.__func__), _told(value.__self__, names, 0)
    if isinstance(value, Mapping):
        kept = [(key, each) for key, each in value.items() if key not in _LABELS and not _is_empty(each)]
        return [(_told(key, names), _under(key, each, names, depth)) for key, each in kept]
    if isinstance(value, list | tuple):
        return [_told(each, names, depth) for each in value]
    held = getattr(value, "__dict__", None)
    if held is None or not depth:
        return type(value).__qualname__, None
    key = id(value), depth  # many modules hold the same configuration
    if key not in names.told:
        names.told[key] = type(value).__qualname__, _told(held, names, depth - 1)
    return names.told[key]


def _is_empty(value: Any) -> bool:
    """Whether this is an empty dictionary, such as a module's hooks if it has none."""
    return isinstance(value, dict) and not value


def _under(key: Any, value: Any, names: _Names, depth: int) -> Any:
    """The value of an attribute, as text, tuples and lists; of weights and hooks only shapes and names."""
    if key in _HOOKS:
        return _hooks(value)
    if key in ("weight", "bias") and isinstance(value, Tensor) and value.is_floating_point():
        return _shape_of(value)  # a Bridge may keep a weight as a buffer
    return _told(value, names, depth)


def _of_tensor(value: Tensor) -> str:
    """A parameter's shape; the shape and the sum of any other tensor (masks, rotary angles), which training keeps."""
    return _shape_of(value) + ("" if isinstance(value, torch.nn.Parameter) else repr(_sum_of(value)))


def _shape_of(value: Tensor) -> str:
    return repr((tuple(value.shape), value.dtype, value.device))


def _sum_of(value: Tensor) -> float:
    return float(value.count_nonzero() if value.dtype == torch.bool else value.detach().cpu().double().sum())


def _hooks(hooks: Mapping[int, Any]) -> list[str]:
    """Names of a library's own hooks; the user's own are found by `foreign_hooks`."""
    return [
        f"{each.__module__}.{getattr(each, '__qualname__', type(each).__qualname__)}"
        for each in hooks.values()
    ]


def _of_code(value: Any) -> str:
    """The full name of a class or function that can be found by it; else the code of a function without a closure."""
    name = f"{value.__module__}.{value.__qualname__}"
    found: Any = sys.modules.get(value.__module__ or "builtins")
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is value or getattr(found, "__func__", None) is value:
        return name
    if not isinstance(value, FunctionType) or value.__closure__ is not None:
        raise _OwnCode(name)
    code = value.__code__
    return repr((name, code.co_code, code.co_names, code.co_consts, value.__defaults__))

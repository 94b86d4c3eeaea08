"""A TransformerLens model's sizes, hook names and modules, and forward passes that leave it as it was.

`forward` restores hooks, training mode and gradients, also after an exception, and only one thread at a time uses the
model. `_self_check` tests whether the hooks can be trusted; `_weights` reads the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from importlib.metadata import version
from threading import Lock, RLock, get_ident
from typing import Any, NamedTuple, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import __version__
from ..errors import Refused

__all__ = [
    "Hook",
    "Model",
    "Sizes",
    "all_modules",
    "bos_id",
    "bos_of",
    "check_model",
    "describe",
    "device_of",
    "forward",
    "full_precision",
    "hook_name",
    "hooks_on",
    "in_this_thread",
    "is_bridge",
    "kept_as_it_was",
    "lock_of",
    "no_left_padding",
    "one_thread_at_a_time",
    "per_query_head",
    "sizes",
]

Hook = tuple[str, Callable[..., Any]]
_version = cache(version)  # reads and parses a file


class Model(Protocol):
    """What this package needs from a model: a TransformerLens `HookedTransformer` or `TransformerBridge`."""

    cfg: Any
    tokenizer: Any
    blocks: Any
    W_E: Tensor
    W_U: Tensor

    def hooks(self, fwd_hooks: Any = ...) -> Any:
        """A context in which these forward hooks are on the model."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Its parameters, as of any torch module."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One forward pass."""
        ...


class Sizes(NamedTuple):
    """The sizes of a model, by their TransformerLens names."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int


def check_model(model: Any) -> None:
    """Raise TypeError unless `model` is a TransformerLens model with attention heads, Refused if it has no weights."""
    if hasattr(model, "_orig_mod"):
        raise TypeError(
            "wanted the model itself, got a compiled one (torch.compile), which ignores hooks set later: pass "
            "compiled._orig_mod, which has the same weights"
        )
    has_hooks = callable(getattr(model, "hooks", None)) and callable(model)
    if not has_hooks or not all(
        getattr(getattr(model, "cfg", None), key, None) for key in ("n_layers", "n_heads")
    ):
        raise TypeError(
            "wanted a TransformerLens HookedTransformer or TransformerBridge, "
            f"got {type(model).__name__}: load one with induction_kernel.load(...)"
        )
    parameters = getattr(model, "parameters", None)
    first = next(parameters(), None) if parameters is not None else None
    if first is not None and first.is_meta:
        raise Refused(
            "wanted a model with weights, got one on the device 'meta', which has only shapes: load its weights first"
        )


def sizes(model: Model) -> Sizes:
    """The sizes of the model.

    Raises:
        TypeError: not a TransformerLens model.
    """
    check_model(model)
    cfg = model.cfg
    grouped = not getattr(cfg, "ungroup_grouped_query_attention", False)
    n_key_value_heads = (getattr(cfg, "n_key_value_heads", None) if grouped else None) or cfg.n_heads
    return Sizes(
        cfg.n_layers,
        cfg.n_heads,
        n_key_value_heads,
        cfg.d_head,
        cfg.d_model,
        cfg.d_vocab,
        getattr(cfg, "n_ctx", None) or 2**31,
    )


def bos_id(model: Model) -> int | None:
    """The id of the beginning-of-sequence token; None if there is no tokenizer, or it has no such token."""
    return bos_of(getattr(model, "tokenizer", None))


def bos_of(tokenizer: Any) -> int | None:
    """The id of a tokenizer's beginning-of-sequence token; None if it has no such token."""
    token = getattr(tokenizer, "bos_token_id", None)
    # TransformerLens sets "<|endoftext|>" if a tokenizer has none, even if it has no such token (BERT).
    made_up = token is not None and token == getattr(tokenizer, "unk_token_id", None)
    return None if made_up and tokenizer.bos_token != tokenizer.unk_token else token


def describe(model: Model) -> dict[str, str | int]:
    """Attributes of a result: the model, its class and the versions it was made with."""
    return {
        "model": str(getattr(model.cfg, "model_name", None) or "unnamed"),
        "model_class": type(model).__name__,
        "transformer_lens": _version("transformer-lens"),
        "induction_kernel": __version__,
        "format": 1,
    }


def hook_name(site: str, layer: int) -> str:
    """TransformerLens' name of a hook point: in attention ("q", "rot_q", "pattern", "z" ...) or on the stream."""
    of_attention = site in ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z")
    return f"blocks.{layer}.{'attn.' if of_attention else ''}hook_{site}"


def all_modules(model: Model) -> dict[torch.nn.Module, str]:
    """Every module and its name, also of the model that a Bridge wraps (whose root a Bridge does not list)."""
    named: dict[torch.nn.Module, str] = {}
    waiting: list[tuple[str, Any]] = [("", getattr(model, "original_model", None)), ("", model)]
    while waiting:  # in the order of `named_modules`, whose nested generators take several times as long
        name, module = waiting.pop()
        if isinstance(module, torch.nn.Module) and module not in named:
            named[module] = name
            parts = reversed(module._modules.items())
            waiting += [(f"{name}.{key}".lstrip("."), part) for key, part in parts]
    return named


_LOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_MAKING = Lock()


def lock_of(model: Model) -> Any:
    """The model's reentrant lock, stored outside it, a context: only its holder sets hooks and flags on modules."""
    with _MAKING:
        return _LOCKS.setdefault(model, RLock())


_Function = TypeVar("_Function", bound=Callable[..., Any])


def one_thread_at_a_time(function: _Function) -> _Function:
    """Decorator: the function holds the lock of its model, the first argument, while it runs."""

    @wraps(function)
    def held(model: Model, *args: Any, **kwargs: Any) -> Any:
        check_model(model)
        with lock_of(model):
            return function(model, *args, **kwargs)

    return cast("_Function", held)


def in_this_thread(function: _Function) -> _Function:
    """The hook, acting in this thread only, so that the user's calls in other threads are not affected."""
    owner = get_ident()

    def hook(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if get_ident() == owner else None

    return cast("_Function", hook)


def hooks_on(model: Model, hooks: Sequence[Hook]) -> Any:
    """A context in which these hooks are on the model, for this thread."""
    return model.hooks(fwd_hooks=[(name, in_this_thread(hook)) for name, hook in hooks])


@contextmanager
def kept_as_it_was(model: Model) -> Iterator[None]:
    """A context: evaluation mode, uncompiled, no gradients, one thread at a time; all flags are restored at the end."""
    check_model(model)
    with lock_of(model):
        modules = all_modules(model)
        flags = [module.training for module in modules]
        compiled = {module: call for module in modules if (call := module._compiled_call_impl) is not None}
        try:
            for module in [each for each in modules if each.training]:  # modules set attributes slowly
                module.training = False
            for module in compiled:
                module._compiled_call_impl = None  # `module.compile()` ignores hooks set later
            with torch.no_grad():
                yield
        finally:
            for module, flag in zip(modules, flags, strict=True):
                if module.training != flag:
                    module.training = flag
            for module, call in compiled.items():
                module._compiled_call_impl = call


def forward(
    model: Model,
    tokens: Tensor,
    hooks: Sequence[Hook] = (),
    *,
    arguments: Mapping[str, Any] | None = None,
    return_type: str | None = "logits",
    gradients: bool = False,
) -> Any:
    """Logits `[prompt, position, vocab]` (or None) of one forward pass with `hooks` for its duration.

    In the model's dtype and on its device, without gradients unless `gradients`. `_padding` makes the arguments and
    hooks that hide padding.
    """
    given = no_left_padding(model, tokens) if arguments is None else arguments
    with kept_as_it_was(model), torch.set_grad_enabled(gradients), hooks_on(model, hooks):
        return model(tokens.to(device_of(model)), return_type=return_type, **given)


def is_bridge(model: Model) -> bool:
    """Whether the model is a `TransformerBridge`, not one of TransformerLens' own models."""
    return "TransformerBridge" in {base.__name__ for base in type(model).__mro__}


def device_of(model: Model) -> torch.device:
    """The device on which the model takes its tokens."""
    return torch.device(getattr(model.cfg, "device", None) or "cpu")


def no_left_padding(model: Model, tokens: Tensor) -> dict[str, Tensor]:
    """Arguments that keep a HookedTransformer, whose tokenizer may pad left, from taking leading tokens for padding."""
    side = getattr(getattr(model, "tokenizer", None), "padding_side", "right")
    if side == "left" and "HookedTransformer" in {base.__name__ for base in type(model).__mro__}:
        return {"attention_mask": torch.ones_like(tokens, device=device_of(model))}
    return {}


def per_query_head(tensor: Tensor, n_heads: int, dim: int) -> Tensor:
    """Key or value heads repeated, so that `dim` counts query heads (grouped-query attention)."""
    n = tensor.shape[dim]
    return tensor if n == n_heads else tensor.repeat_interleave(n_heads // n, dim)


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 converted to float32, so that sums are accurate; other dtypes unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

"""Runs of a model with hooks, in full or only up to the last activation wanted; batches, memory, progress bars.

Nothing attends to padding (see `_padding`). `_anatomy` names the hook points; `_self_check` tests them at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .._given import is_whole
from ..errors import NotDefined, Refused
from ._anatomy import (
    Hook,
    Model,
    describe,
    forward,
    hook_name,
    in_this_thread,
    is_bridge,
    one_thread_at_a_time,
)
from ._padding import hidden_padding
from ._self_check import foreign_hooks, self_check
from ._unembedding import unembedding_of

__all__ = ["bar", "batches", "is_out_of_memory", "progress_bar", "run", "stream"]


@one_thread_at_a_time
def run(
    model: Model,
    tokens: Tensor,
    hooks: Sequence[Hook] = (),
    *,
    lengths: Tensor | None,
    gradients: bool = False,
) -> Tensor:
    """Logits `[prompt, position, vocab]` of one forward pass with `hooks` for its duration.

    In the model's dtype and on its device.

    Args:
        model: the model to run.
        tokens: `[prompt, position]`, padded on the right.
        hooks: further hooks for the pass.
        lengths: `[prompt]`, beyond which is padding; None if there is none.
        gradients: whether autograd records the pass.

    Raises:
        NotDefined: logits of another shape.
    """
    self_check(model)
    arguments, masks = hidden_padding(model, tokens, lengths)
    logits = forward(model, tokens, [*masks, *hooks], arguments=arguments, gradients=gradients)
    if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise NotDefined(
            f"wanted a model that gives logits [prompt, position, vocab], {describe(model)['model_class']} "
            f"{describe(model)['model']} gives {list(logits.shape)} for tokens {list(tokens.shape)}: use one with a "
            "head at every position"
        )
    return logits


class _Enough(Exception):
    """Raised by the last hook needed, to end the pass before the layers that are not read."""


@one_thread_at_a_time
def stream(
    model: Model,
    tokens: Tensor,
    read: Callable[[str, int, Tensor], None],
    sites: dict[str, set[int]],
    hooks: Sequence[Hook] = (),
    *,
    lengths: Tensor | None,
    at: Tensor | None = None,
    ids: Tensor | None = None,
    whole: bool = False,
    arguments: Mapping[str, Any] | None = None,
    gradients: bool = False,
) -> Tensor | None:
    """One forward pass that calls `read(site, layer, activation)` with each wanted activation, and ends after the last.

    Args:
        model: the model to run.
        tokens: `[prompt, position]`, padded on the right.
        read: called in the order of the pass.
        sites: site ("pattern", "v", "z", ...) -> layers.
        hooks: further hooks for the pass.
        lengths: `[prompt]`, beyond which is padding; None if there is none.
        at: `[prompt]` or `[prompt, read]`, positions whose logits are wanted too; the pass then runs to its end.
        ids: `[prompt, read, target]`, the tokens whose logits alone are wanted at `at [prompt, read]`; None for all.
        whole: whether the logits of all positions are wanted; the pass then runs to its end.
        arguments: further arguments of the pass.
        gradients: whether autograd records the pass.

    Returns:
        Logits `[prompt, vocab]` or `[prompt, read, vocab]` at these positions (`[prompt, read, target]` of `ids`), or
        `[prompt, position, vocab]`; None if none are wanted.

    Raises:
        RuntimeError: a hook never fired.
    """
    self_check(model)
    wanted = [(site, layer) for site, layers in sites.items() for layer in layers]
    missing = set(wanted)
    last = max((layer for _, layer in wanted), default=-1)

    def hook(activation: Tensor, hook: Any, *, site: str, layer: int) -> None:
        read(site, layer, activation)
        missing.discard((site, layer))
        if at is None and not whole and layer == last and not missing:
            raise _Enough

    hiding, masks = hidden_padding(model, tokens, lengths)
    arguments = {**hiding, **(arguments or {})}
    standing = [*masks, *hooks, *_reading(model, wanted, hook)]
    fewer: list[Tensor] = []
    logits, kind = None, None if at is None and not whole else "logits"
    with suppress(_Enough), _unembedding_only(model, at, fewer):
        logits = forward(model, tokens, standing, arguments=arguments, return_type=kind, gradients=gradients)
    _check_fired(model, missing)
    if at is None:
        return logits
    if logits is None:  # the pass ended before TransformerLens' unembedding
        linear = unembedding_of(model)
        assert linear is not None  # that is why it ended
        with torch.set_grad_enabled(gradients):
            if ids is not None:
                return linear.target_logits(fewer[0][None], ids)[0]
            logits = linear.logits(fewer[0])
    logits = logits if fewer else _at(logits, at)
    if ids is not None:
        return logits.gather(-1, ids.to(logits.device))
    return logits if at.ndim > 1 else logits[:, 0]


def _reading(model: Model, wanted: Sequence[tuple[str, int]], hook: Callable[..., None]) -> list[Hook]:
    """Hooks that call `hook(activation, hook, site=, layer=)` with each wanted activation."""
    reading: list[Hook] = []
    for site, layer in wanted:
        bound = _bound(hook, site=site, layer=layer)
        through = site == "resid_mid" and is_bridge(model)
        reading += _after_attention(layer, bound) if through else [(hook_name(site, layer), bound)]
    return reading


def _check_fired(model: Model, missing: set[tuple[str, int]]) -> None:
    """Raise RuntimeError if an activation, given by site and layer, was never read."""
    if missing:
        site, layer = min(missing)
        raise RuntimeError(
            f"hook {hook_name(site, layer)} of {type(model).__name__} {describe(model)['model']} never fired; "
            "the architecture is not supported: docs/extending.md says what a new one needs"
        )


@contextmanager
def _unembedding_only(model: Model, at: Tensor | None, done: list[Tensor]) -> Iterator[None]:
    """A context: only positions `at` are unembedded, or all if the user's own hooks are on the model.

    `done` gets their residual stream when they are. TransformerLens' own unembedding copies W_U at each call, so the
    pass ends before it.
    """
    unembed = getattr(model, "unembed", None)
    if at is None or not isinstance(unembed, torch.nn.Module) or foreign_hooks(model):
        yield
        return

    copies = type(unembed).__name__ == "Unembed" and unembedding_of(model) is not None

    def fewer(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        done.append(_at(args[0], at))
        if copies:
            raise _Enough
        return (done[-1], *args[1:])

    handle = unembed.register_forward_pre_hook(in_this_thread(fewer))
    try:
        yield
    finally:
        handle.remove()


def _at(rows: Tensor, at: Tensor) -> Tensor:
    """`rows [prompt, position, ...]` at positions `at [prompt]` or `[prompt, read]`, as `[prompt, read, ...]`."""
    at = at.to(rows.device).view(len(at), -1)
    return rows[torch.arange(len(at), device=rows.device)[:, None], at]


def _after_attention(layer: int, read: Callable[[Tensor, Any], None]) -> list[Hook]:
    """Hooks on the stream after attention; a Bridge's resid_mid is a norm's input (in OPT-350m, a later norm's)."""
    before: list[Tensor] = []

    def keep(stream: Tensor, hook: Any) -> None:
        before.append(stream)

    def add(attn_out: Tensor, hook: Any) -> None:
        read(before.pop().to(attn_out.device) + attn_out, hook)

    return [(hook_name("resid_pre", layer), keep), (hook_name("attn_out", layer), add)]


def _bound(function: Callable[..., None], **bound: Any) -> Callable[..., None]:
    # A closure, not functools.partial: the Bridge reads a hook's signature and name.
    def hook(activation: Tensor, hook: Any) -> None:
        function(activation, hook, **bound)

    return hook


def batches(n_prompts: int, length: int, *, batch_size: int | None, cost: int) -> list[slice]:
    """Slices over the prompts: `batch_size` prompts each, or about 2**24 numbers at `cost` numbers per position.

    Raises:
        Refused: a batch size below 1.
    """
    if batch_size is not None and (not is_whole(batch_size) or batch_size < 1):
        raise Refused(f"wanted batch_size >= 1, got {batch_size!r}")
    size = int(batch_size or 0) or max(1, 2**24 // max(1, length * cost))
    return [slice(start, min(start + size, n_prompts)) for start in range(0, n_prompts, size)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, or torch on a CPU (Linux, Windows) or another device, ran out of memory."""
    said = ("allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(each in str(error) for each in said)


class _Bar(tqdm):
    """The sum of parts is rounded to the total, above which tqdm warns."""

    def update(self, n: float | None = 1) -> bool | None:
        left = (self.total or 0) - self.n
        return super().update(left if n is not None and abs(n - left) < 1e-6 else n)


def bar(**options: Any) -> tqdm[Any]:
    """A progress bar with tqdm's options, which may advance by parts of a unit."""
    return _Bar(**options)


def progress_bar(total: int, *, progress: bool, unit: str = "layer", what: str | None = None) -> tqdm[Any]:
    """A progress bar, shown if the work takes longer than two seconds; `TQDM_DISABLE` hides it too.

    It may advance by parts of a unit, such as one layer's part of a run; whole numbers are shown.
    """
    shown = "{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}]"
    options: dict[str, Any] = {"total": total, "delay": 2, "unit": unit, "desc": what, "leave": False}
    options["bar_format"] = shown
    return bar(**options) if progress else bar(**options, disable=True)

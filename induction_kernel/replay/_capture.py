"""Taps: functions that replace activations, as hooks on a whole run of the model or inside one block.

A tap gets an activation of a widened batch, `[cell, prompt, ...]` (the prompts once for each edited run, or cell), and
returns it or its replacement. `_blocks` and `_decoder` keep the untouched run; nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..model._anatomy import Hook, Model, hook_name, per_query_head
from ..model._runs import run, stream

__all__ = ["Taps", "attended", "hooks_at", "hooks_of_run", "pattern_hook", "tapped_hooks", "tapped_run"]

Taps = Mapping[str, Callable[[Tensor], Tensor]]
"""Site -> function of the activation there, `[cell, prompt, ...]`, that returns it or its replacement."""


def tapped_run(
    model: Model,
    tokens: Tensor,
    taps: Mapping[int, Taps],
    held: Mapping[int, Tensor] | None = None,
    *,
    lengths: Tensor | None,
    gradients: bool = False,
) -> Tensor:
    """Logits `[prompt, position, vocab]` of one whole run of the model with these taps.

    Args:
        model: the model to run; hooks that are already on it act.
        tokens: `[prompt, position]`.
        taps: layer -> taps; they get activations `[1, prompt, ...]`.
        held: layer -> pattern `[prompt, head, query, key]` to hold fixed.
        lengths: `[prompt]`, beyond which is padding; None if there is none.
        gradients: whether autograd records the run, and the taps on its patterns.
    """
    hooks = hooks_of_run(model, tokens, taps, held, lengths=lengths, gradients=gradients)
    return run(model, tokens, hooks, lengths=lengths, gradients=gradients)


def hooks_of_run(
    model: Model,
    tokens: Tensor,
    taps: Mapping[int, Taps],
    held: Mapping[int, Tensor] | None = None,
    *,
    cells: int = 1,
    lengths: Tensor | None,
    gradients: bool = False,
) -> list[Hook]:
    """Hooks that make these taps in one whole run, for a batch with the prompts `cells` times.

    A tap on a pattern needs one more run up to its layer, to read the pattern that it replaces. The other arguments are
    those of `tapped_run`.
    """
    held = {} if held is None else {layer: pattern[None] for layer, pattern in held.items()}

    def hooks(layers: Iterable[int]) -> list[Hook]:
        return [
            each for layer in layers for each in hooks_at(layer, taps.get(layer, {}), cells, held.get(layer))
        ]

    touched = sorted({*taps, *held})
    for layer in (layer for layer in touched if "pattern" in taps.get(layer, {})):
        seen: list[Tensor] = []
        before = {site: tap for site, tap in taps[layer].items() if site in ("resid_pre", "q", "k")}
        standing = [*hooks(each for each in touched if each < layer), *hooks_at(layer, before, cells)]
        stream(
            model, tokens, lambda _, __, pattern, seen=seen: seen.append(pattern), {"pattern": {layer}}, standing,
            lengths=lengths, gradients=gradients,
        )  # fmt: skip
        held[layer] = taps[layer]["pattern"](_widened(seen[0], cells))
    return hooks(touched)


def hooks_at(layer: int, taps: Taps, cells: int, held: Tensor | None = None) -> list[Hook]:
    """TransformerLens hooks for the taps of one layer: inside its block, and on the stream before and after it."""
    outside = [_hook(site, layer, cells, taps[site]) for site in ("resid_pre", "resid_post") if site in taps]
    return outside + tapped_hooks(layer, taps, cells, held)


def tapped_hooks(layer: int, taps: Taps, cells: int, held: Tensor | None = None) -> list[Hook]:
    """TransformerLens hooks for taps inside one block (not on the pattern), for a batch with the prompts `cells` times.

    A pattern `held [cell or 1, prompt, head, query, key]` is set through z (`z = pattern @ v`), because editing a
    Bridge's hook on the pattern may have no effect.
    """
    hooks = [_hook(site, layer, cells, taps[site]) for site in ("q", "k", "v") if site in taps]
    if held is not None:
        hooks += _in_z_space(layer, cells, held)
    hooks += [_hook(site, layer, cells, taps[site]) for site in ("z", "attn_out", "mlp_out") if site in taps]
    if "resid_mid" in taps:
        hooks += _through_attention_output(layer, taps["resid_mid"], cells)
    return hooks


def pattern_hook(layer: int, cells: int, seen: list[Tensor]) -> Hook:
    """A hook that keeps the pattern `[cell, prompt, head, query, key]`; on some Bridges it fires after z."""
    return hook_name("pattern", layer), lambda pattern, hook: seen.append(_widened(pattern, cells))


def _hook(site: str, layer: int, cells: int, tap: Callable[[Tensor], Tensor]) -> Hook:
    def hook(activation: Tensor, hook: Any) -> Tensor:
        return _narrow(tap(_widened(activation, cells)), activation)

    return hook_name(site, layer), hook


def _in_z_space(layer: int, cells: int, held: Tensor) -> list[Hook]:
    """Hooks that read v and replace z by `held @ v`."""
    values: list[Tensor] = []

    def read(v: Tensor, hook: Any) -> None:
        values.append(v)

    def write(z: Tensor, hook: Any) -> Tensor:
        v = _widened(per_query_head(values.pop(), z.shape[2], 2), cells)
        return _narrow(attended(held.to(v), v), z)

    return [(hook_name("v", layer), read), (hook_name("z", layer), write)]


def attended(pattern: Tensor, v: Tensor) -> Tensor:
    """`z [cell, prompt, query, head, d_head]`, from `pattern [cell or 1, prompt, head, query, key]` and v."""
    return torch.einsum("cphqk,cpkhd->cpqhd", pattern.expand(len(v), -1, -1, -1, -1), v)


def _through_attention_output(layer: int, tap: Callable[[Tensor], Tensor], cells: int) -> list[Hook]:
    # A Bridge's hook on resid_mid is the norm's input, not the stream itself, so attention's output is edited instead.
    before: list[Tensor] = []

    def read(resid: Tensor, hook: Any) -> None:
        before.append(resid)

    def write(attn_out: Tensor, hook: Any) -> Tensor:
        resid = before.pop().to(attn_out.device)
        return _narrow(tap(_widened(resid + attn_out, cells)), attn_out) - resid

    return [(hook_name("resid_pre", layer), read), (hook_name("attn_out", layer), write)]


def _widened(activation: Tensor, cells: int) -> Tensor:
    return activation.unflatten(0, (cells, -1))


def _narrow(edited: Tensor, like: Tensor) -> Tensor:
    return edited.flatten(0, 1).to(like)

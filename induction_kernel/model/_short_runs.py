"""The two short runs of the check at a model's first use: what its hooks show, and what edits at them change.

Both end before the unembedding, which takes as long as several layers and shows no more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ..errors import Refused
from ._anatomy import Hook, Model, Sizes, describe, forward, full_precision, hook_name, in_this_thread, sizes

__all__ = ["SHOWN", "edited", "named", "seen"]

_LENGTH = 6
SHOWN = ("pattern", "v", "z")


def seen(model: Model) -> tuple[dict[tuple[str, int], Tensor], Tensor]:
    """One pass over two copies of a prompt: one untouched, one with another last token.

    Returns (site, layer) -> activation of the untouched copy, `[1, ...]`, and what both unembed.
    """
    size = sizes(model)
    tokens = _tokens(size, 2, _LENGTH)
    tokens[1, -1] = (tokens[0, -1] + 1) % size.d_vocab
    shown: dict[tuple[str, int], Tensor] = {}

    def read(site: str, layer: int) -> Hook:
        def hook(activation: Tensor, hook: Any) -> None:
            shown[site, layer] = full_precision(activation.detach()[:1].clone())

        return hook_name(site, layer), hook

    return shown, _end(model, tokens, [read(site, i) for i in range(size.n_layers) for site in SHOWN])


def edited(model: Model) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
    """One pass over copies of a short prompt: one untouched, and one for each layer with z edited there.

    Returns for each layer what was added to z and the stream before it, `[1, ...]`, and what all copies unembed.
    """
    size, generator = sizes(model), torch.Generator().manual_seed(0)
    tokens = _tokens(size, size.n_layers + 1, 2)  # two, since the end must vary with the position
    added: dict[int, Tensor] = {}
    streams: dict[int, Tensor] = {}

    def enter(layer: int) -> Hook:
        def hook(resid: Tensor, hook: Any) -> None:
            streams[layer] = full_precision(resid.detach()[:1])

        return hook_name("resid_pre", layer), hook

    def edit(layer: int) -> Hook:
        def hook(z: Tensor, hook: Any) -> Tensor:
            new, row = z.clone(), layer + 1
            noise = torch.randn(new[row].shape, generator=generator, dtype=torch.float32).to(new)
            new[row] += 10 * (1 + new[row].abs().max()) * noise
            added[layer] = full_precision((new - z)[row:][:1].detach())
            return new

        return hook_name("z", layer), hook

    end = _end(model, tokens, [make(layer) for layer in range(size.n_layers) for make in (enter, edit)])
    return [(added[layer], streams.get(layer)) for layer in range(size.n_layers)], end


def _tokens(size: Sizes, copies: int, length: int) -> Tensor:
    spread = torch.linspace(0, size.d_vocab - 1, min(length, size.n_ctx), dtype=torch.float64)
    return spread.long().repeat(copies, 1)


class _Enough(Exception):
    """Raised before the unembedding, to end the pass."""


def _end(model: Model, tokens: Tensor, hooks: list[Hook]) -> Tensor:
    """What one pass unembeds, `[copy, position, d_model]`; its logits if the model has no such part."""
    found: list[Tensor] = []

    def stop(_: Any, args: tuple[Any, ...]) -> None:
        found.append(args[0])
        raise _Enough

    unembed = getattr(model, "unembed", None)
    has = isinstance(unembed, torch.nn.Module)
    handle = unembed.register_forward_pre_hook(in_this_thread(stop)) if has else None
    try:
        with suppress(_Enough):
            found.append(forward(model, tokens, hooks))
    except (AssertionError, AttributeError, KeyError, ValueError) as error:
        raise Refused(f"{named(model)} cannot be run with hooks on {', '.join(SHOWN)}: {error}") from error
    finally:
        if handle is not None:
            handle.remove()
    return full_precision(found[0].detach())


def named(model: Model) -> str:
    said = describe(model)
    return f'the {said["model_class"]} "{said["model"]}"'

"""Sites of activations, and what becomes of an activation there: `new = scale * old + value`.

Edits say what the new values are (`_edits`); nothing is run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts

__all__ = ["CONVENTION", "HEAD_SITES", "SITES", "Edit", "EditFromRun", "New", "OwnEdit", "fitted", "shape_at"]

HEAD_SITES = ("z", "q", "k", "v", "pattern")
SITES = (*HEAD_SITES, "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")
CONVENTION = (
    "Zero and Scale act on z and v as they stand, a value bias with them; ZeroValues leaves the value bias"
)
"""What every result of an edit says of it."""


class New(NamedTuple):
    """What becomes of an activation: `scale * old + value`.

    The `new` of an edit of your own gives one for each layer:

        class Shrink:
            def new(self, model, prompts, site, layers):
                return {layer: New(0.5, torch.zeros(())) for layer in layers}

        result = ik.ablate(model, prompts, "L1H0", edit=Shrink())

    `scale`, where it is a tensor, and `value` broadcast to `[prompt, position, head, d_head]`, `[prompt, position,
    d_model]` or (pattern) `[prompt, head, query, key]`. Of a pattern alone: `removed`, bool, broadcasts to the last and
    says which entries are knocked out; `instead [head, d_head]` is what z gets for every unit of attention that an
    edit takes from a row.
    """

    scale: float | Tensor
    value: Tensor
    removed: Tensor | None = None
    instead: Tensor | None = None


class OwnEdit(Protocol):
    """Says what an activation becomes; a class with `new` is enough for an edit of your own."""

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """For each layer, the new value at `site`."""
        ...


class EditFromRun(Protocol):
    """Says what an activation becomes of what stood in another run, which is made for it.

    For example half of the other run's activation in the place of this one's:

        class Half:
            def __init__(self, other):
                self.other = other

            def source(self, model, prompts):
                return self.other

            def new(self, model, prompts, site, layers, taken):
                return {layer: New(0.0, 0.5 * taken[layer]) for layer in layers}

        result = ik.sweep(model, prompts, edit=Half(other))
    """

    def source(self, model: Model, prompts: Prompts) -> Any:
        """The prompts of the other run, as many and of the same lengths, anything `as_prompts` takes; None for none."""
        ...

    def new(
        self, model: Model, prompts: Prompts, site: str, layers: set[int], taken: Mapping[int, Tensor]
    ) -> dict[int, New]:
        """For each layer, the new value at `site`, of `taken[layer]`, what stood there in the other run.

        Called for one batch of the prompts after another; `taken` is empty where there is no other run.
        """
        ...


Edit: TypeAlias = OwnEdit | EditFromRun
"""What may be an edit: a class with `new`, and with `source` where it takes from another run."""


def shape_at(model: Model, prompts: Prompts, site: str) -> torch.Size:
    """Of the whole activation of these prompts at a site."""
    size, (n, length) = sizes(model), prompts.tokens.shape
    if site == "pattern":
        return torch.Size((n, size.n_heads, length, length))
    if site in HEAD_SITES:
        return torch.Size((n, length, size.n_key_value_heads if site in "kv" else size.n_heads, size.d_head))
    return torch.Size((n, length, size.d_model))


def fitted(tokens: Tensor, width: int) -> Tensor:
    """Right-padded tokens, padded less or more."""
    last = tokens[:, -1:].expand(-1, max(0, width - tokens.shape[1]))
    return torch.cat([tokens, last], 1)[:, :width]

"""Sites of activations, and the form of an edit: at a site, `new = scale * old + value`.

`_edits` and `_edits_from_runs` define the edits. No model is run here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts

__all__ = [
    "CONVENTION",
    "HEAD_SITES",
    "SITES",
    "Edit",
    "EditFromRun",
    "New",
    "OwnEdit",
    "check_site",
    "fitted",
    "shape_at",
    "site_meant",
]

HEAD_SITES = ("z", "q", "k", "v", "pattern")
SITES = (*HEAD_SITES, "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post")
CONVENTION = "Zero and Scale act on z and v including the value bias; ZeroValues leaves the value bias"
"""The attribute `convention` of every result of an edit."""


class New(NamedTuple):
    """The new value of an activation: `scale * old + value`.

    The method `new` of an edit of your own returns one for each layer:

        class Shrink:
            def new(self, model, prompts, site, layers):
                return {layer: New(0.5, torch.zeros(())) for layer in layers}

        result = ik.ablate(model, prompts, "L1H0", edit=Shrink())

    Attributes:
        scale: a number, or a tensor that broadcasts as `value` does.
        value: broadcasts to the activation, `[prompt, position, head, d_head]`, `[prompt, position, d_model]` or, for a
            pattern, `[prompt, head, query, key]`.
        removed: for patterns only: bool, broadcasts to `[prompt, head, query, key]`; True is knocked out.
        instead: for patterns only: `[head, d_head]`, which is added to z times the attention that the edit takes from
            the row.
    """

    scale: float | Tensor
    value: Tensor
    removed: Tensor | None = None
    instead: Tensor | None = None


class OwnEdit(Protocol):
    """An edit that needs no other run; any class with this method `new` is one."""

    def new(self, model: Model, prompts: Prompts, site: str, layers: set[int]) -> dict[int, New]:
        """For each layer, the new value at `site`."""
        ...


class EditFromRun(Protocol):
    """An edit that takes from another run, which is made for it; any class with these two methods is one.

    This one replaces an activation by half of the other run's:

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
        """The other run's prompts: anything `as_prompts` takes, as many, of the same lengths; None for no other run."""
        ...

    def new(
        self, model: Model, prompts: Prompts, site: str, layers: set[int], taken: Mapping[int, Tensor]
    ) -> dict[int, New]:
        """For each layer, the new value at `site`; `taken[layer]` is the other run's activation there.

        Called for each batch of prompts in turn. `taken` is empty if there is no other run.
        """
        ...


Edit: TypeAlias = OwnEdit | EditFromRun
"""An edit: an object with the method `new`, and with `source` if it takes from another run."""


def check_site(site: Any) -> None:
    """Raise Refused unless there is such a site."""
    if site not in SITES:
        raise Refused(f"wanted a site out of {', '.join(SITES)}, got {site!r}{site_meant(site)}")


def site_meant(site: Any, known: Sequence[str] = SITES) -> str:
    """`: write site="z"` for the name of TransformerLens' hook there, such as "hook_z"; "" for any other."""
    meant = str(site).rpartition(".")[2].removeprefix("hook_")
    return f': write site="{meant}"' if meant in known else ""


def shape_at(model: Model, prompts: Prompts, site: str) -> torch.Size:
    """Shape of the whole activation of these prompts at a site."""
    size, (n, length) = sizes(model), prompts.tokens.shape
    if site == "pattern":
        return torch.Size((n, size.n_heads, length, length))
    if site in HEAD_SITES:
        return torch.Size((n, length, size.n_key_value_heads if site in "kv" else size.n_heads, size.d_head))
    return torch.Size((n, length, size.d_model))


def fitted(tokens: Tensor, width: int) -> Tensor:
    """Right-padded tokens, cut or padded further to this width."""
    last = tokens[:, -1:].expand(-1, max(0, width - tokens.shape[1]))
    return torch.cat([tokens, last], 1)[:, :width]

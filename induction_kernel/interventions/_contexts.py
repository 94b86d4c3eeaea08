"""A context in which an edit stays on the model, for the user's own calls and for `generate`.

Only edits that do not depend on the prompt: positions of a text still to be written are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..errors import Refused
from ..model._anatomy import Hook, Model, check_model, kept_as_it_was, lock_of
from ..prompts._conversion import as_prompts
from ..replay._capture import hooks_at
from ._activations import HEAD_SITES, Edit, New
from ._changes import tap
from ._edits import Add, Mean, Scale, Zero, ZeroValues
from ._intervention import Intervention
from ._plan import planned

__all__ = ["edited"]


@contextmanager
def edited(
    model: Model, edit: Edit, heads: Any = None, *, site: str = "z", layers: Iterable[int] | None = None
) -> Iterator[Model]:
    """A context in which the edit is on the model, for your own calls: `with edited(model, Zero(), "L5H1"): ...`.

    Other threads that measure on this model wait until the context is left, and do not see the edit: inside it, wait
    for no thread that does, and nest the contexts of two models in one order in all threads. Your own calls of the
    model see it in every thread.

    Args:
        model: any TransformerLens model; its hooks are as before afterwards, also after an exception.
        edit: `Zero()`, `ZeroValues()`, `Scale(factor)`, `Add(vector)` with a vector `[d_head]`, `[head, d_head]` or
            `[d_model]`, or `Mean(reference)`, which is then the mean over all positions but the first.
        heads: those edited, as Head, (layer, head) or "L5H1"; None for all. Key/value heads at sites k and v.
        site: what is edited; not the pattern.
        layers: only these; None for all.

    Yields:
        The model.

    Raises:
        TypeError: not an edit. Refused: an edit that depends on the prompt, heads the model does not have.
    """
    check_model(model)
    with lock_of(model):
        with kept_as_it_was(model):
            hooks = _hooks(model, Intervention(edit, site), heads, layers)
        with model.hooks(fwd_hooks=hooks):
            yield model


def _hooks(model: Model, intervention: Intervention, heads: Any, layers: Iterable[int] | None) -> list[Hook]:
    (cell,) = planned(model, intervention, by=(), length=1, heads=heads, layers=layers).cells
    site = intervention.site
    new = _of_any_prompt(model, intervention.edit, site, set(cell.touched))
    return [
        hook
        for layer in sorted(cell.touched)
        for hook in hooks_at(layer, {site: tap([cell], new, site, layer, 0)}, 1)
    ]


def _of_any_prompt(model: Model, edit: Edit, site: str, layers: set[int]) -> dict[int, New]:
    prompts = as_prompts(model, torch.zeros(1, 1, dtype=torch.long), lengths=[1])
    if isinstance(edit, Mean) and edit.reference is not None and site != "pattern":
        if edit.by_position:
            raise Refused(
                "edited() knows no positions of what will be run, so it cannot hold Mean(by_position=True): pass "
                "Mean(reference), the mean over all positions but the first, or use ablate or sweep"
            )
        return replace(edit, by_position=False).new(model, prompts, site, layers)
    most = 2 if site in HEAD_SITES else 1
    if isinstance(edit, Zero | ZeroValues | Scale) or (isinstance(edit, Add) and edit.vector.ndim <= most):
        return edit.new(model, prompts, site, layers)
    missing = " (its reference is missing)" if isinstance(edit, Mean) and edit.reference is None else ""
    raise Refused(
        "wanted an edit that does not depend on the prompt: Zero(), ZeroValues(), Scale(factor), Add(vector) of one "
        f"position, or Mean(reference) of another site than the pattern; got {edit!r}{missing}"
    )

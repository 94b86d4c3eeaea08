"""A context in which an edit stays on the model, for the user's own calls and for `generate`.

Only for edits that do not depend on the prompt, since the text still to be generated is not known.
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
from ._edits import Add, KnockOut, Scale, Zero, ZeroValues
from ._edits_from_runs import Mean
from ._intervention import Intervention
from ._plan import planned

__all__ = ["edited"]


@contextmanager
def edited(
    model: Model, edit: Edit, heads: Any = None, *, site: str = "z", layers: Iterable[int] | None = None
) -> Iterator[Model]:
    """A context in which the edit is on the model, for your own calls: `with edited(model, Zero(), "L5H1"): ...`.

    Your own calls of the model see the edit, in every thread. Functions of this package that other threads call on the
    model wait until the context is left, and do not see it. So do not wait for such a thread inside the context, and
    nest the contexts of several models in the same order in every thread.

    Args:
        model: any TransformerLens model; its hooks are restored at the end, also after an exception.
        edit: `Zero()`, `ZeroValues()`, `Scale(factor)`, `Add(vector)` with a vector `[d_head]`, `[head, d_head]` or
            `[d_model]`, or `Mean(reference)`, here always the mean over all positions but the first.
        heads: the heads to edit, as Head, (layer, head) or "L5H1"; None for all. Key/value heads at sites k and v.
        site: what is edited, as in `sweep`; not the pattern.
        layers: only these; None for all.

    Yields:
        The model.

    Raises:
        TypeError: not an edit.
        Refused: an edit that depends on the prompt, heads the model does not have.
    """
    check_model(model)
    if isinstance(edit, KnockOut):
        raise _depends_on_prompts(edit)
    with lock_of(model):
        with kept_as_it_was(model):
            hooks = _hooks(model, Intervention(edit, site), heads, layers)
        with model.hooks(fwd_hooks=hooks):
            yield model


def _hooks(model: Model, intervention: Intervention, heads: Any, layers: Iterable[int] | None) -> list[Hook]:
    """TransformerLens hooks that make the edit."""
    (cell,) = planned(model, intervention, by=(), length=1, heads=heads, layers=layers).cells
    site = intervention.site
    new = _of_any_prompt(model, intervention.edit, site, set(cell.touched))
    return [
        hook
        for layer in sorted(cell.touched)
        for hook in hooks_at(layer, {site: tap([cell], new, site, layer, 0)}, 1)
    ]


def _of_any_prompt(model: Model, edit: Edit, site: str, layers: set[int]) -> dict[int, New]:
    """Layer -> new value at the site, of an edit that is the same for every prompt."""
    prompts = as_prompts(model, torch.zeros(1, 1, dtype=torch.long), lengths=[1])
    if isinstance(edit, Mean) and edit.reference is not None and site != "pattern":
        if edit.by_position:
            raise Refused(
                "edited() knows no positions of what will be run, so it cannot use Mean(by_position=True): pass "
                "Mean(reference), the mean over all positions but the first, or use ablate or sweep"
            )
        return replace(edit, by_position=False).new(model, prompts, site, layers)
    most = 2 if site in HEAD_SITES else 1
    if isinstance(edit, Zero | ZeroValues | Scale) or (isinstance(edit, Add) and edit.vector.ndim <= most):
        return edit.new(model, prompts, site, layers)
    raise _depends_on_prompts(edit)


def _depends_on_prompts(edit: Edit) -> Refused:
    """The error for an edit that depends on the prompt."""
    got = type(edit).__name__
    if isinstance(edit, Mean) and edit.reference is None:
        got += " without a reference"
    if isinstance(edit, Add):
        got += f" with a vector of shape {list(edit.vector.shape)}"
    return Refused(
        "wanted an edit that does not depend on the prompt: Zero(), ZeroValues(), Scale(factor), Add(vector) of one "
        f"position, or Mean(reference), not of patterns; got {got}: use one of these, or sweep, ablate or knock_out, "
        "which take the prompts"
    )

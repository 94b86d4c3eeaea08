"""The check at a model's first use: its hooks show its attention, and an edit of z reaches the end.

A hook name that exists does not prove that the hook fires, nor that an edit there does anything: on some Bridges a hook
on the pattern shows or changes a tensor that the computation does not use. So before a model is used, one run on six
tokens must show in every layer that z is pattern times v, and whether attention is causal; and another on two tokens
that an edit of z changes what is unembedded, unless a model that differs in its weights alone has shown it. `made_of`
tells whether a model has changed since; `foreign_hooks` finds the user's own hooks.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import NotDefined, Refused
from ._anatomy import (
    Model,
    all_modules,
    check_model,
    hook_name,
    one_thread_at_a_time,
    per_query_head,
    sizes,
)
from ._short_runs import SHOWN, edited, named, seen
from ._structure import structure_of

__all__ = ["foreign_hooks", "is_causal", "loose", "made_of", "self_check"]

_CHECKED: WeakKeyDictionary[Any, tuple[int, bool]] = WeakKeyDictionary()  # parts, whether causal
_ACTS: set[str] = (
    set()
)  # structures of models in which an edit of z in every layer changed what is unembedded


@one_thread_at_a_time
def self_check(model: Model) -> bool | None:
    """Raise unless the model's hooks show its attention and act on it; tested once, and again if its parts change.

    Nothing is tested while the user's own hooks are on the model, since they may change anything.

    Returns:
        Whether attention is causal in that run; None if nothing could be tested because of such hooks.

    Raises:
        TypeError: not a TransformerLens model, or one of its modules is compiled.
        Refused: attention that is not finite.
        NotDefined: a hook that never fires, a z that is not pattern times v, or an edit of z that changes nothing.
    """
    check_model(model)
    parts = made_of(model)
    known, causal = _CHECKED.get(model, (None, True))
    if known == parts:
        return causal
    if foreign_hooks(model):
        return None
    shown, end = seen(model)
    _check_finite(model, shown)
    for layer in range(sizes(model).n_layers):
        _check_attention(model, layer, shown)
    structure = structure_of(model)
    if structure not in _ACTS and _check_acts(model) and structure is not None:
        _ACTS.add(structure)
    causal = _looks_back(model, shown, end)
    _CHECKED[model] = parts, causal
    return causal


def is_causal(model: Model) -> bool:
    """Whether no position attends to, or depends on, later ones, as a run shows it; a configuration may be wrong.

    If nothing could be tested yet because of the user's own hooks, the model's configuration decides.
    """
    causal = self_check(model)
    if causal is not None:
        return causal
    of_modules = all(getattr(module, "is_causal", True) is not False for module in all_modules(model))
    return of_modules and getattr(model.cfg, "attention_dir", "causal") == "causal"


def _looks_back(model: Model, shown: dict[tuple[str, int], Tensor], end: Tensor) -> bool:
    """Whether positions attend only to themselves and earlier ones, and another last token changes nothing earlier."""
    patterns = (pattern for (site, _), pattern in shown.items() if site == "pattern")
    before, after = end[0, :-1], end[-1, :-1]
    moved = (before - after).abs() > loose(model) * (1 + before.abs())  # NaN counts as no change
    return not bool(moved.any()) and not any(bool(pattern.triu(1).any()) for pattern in patterns)


def _check_finite(model: Model, shown: dict[tuple[str, int], Tensor]) -> None:
    """Queries that are NaN make a HookedTransformer attend to nothing: its z and its logits are finite, and wrong."""
    for layer in range(sizes(model).n_layers):
        there = {site: shown[site, layer] for site in SHOWN if (site, layer) in shown}
        pattern = there.get("pattern")
        if pattern is not None and not bool((pattern.sum(-1) > 0).all()):
            raise Refused(
                f"the attention patterns of layer {layer} are not finite: "
                "look for NaN or infinite weights (or overflow in float16) in the model"
            )
        for site, activation in there.items():
            if not bool(activation.isfinite().all()):
                raise Refused(
                    f"{site} of layer {layer} is not finite: look for NaN or infinite weights (or overflow in float16)"
                )


def _check_attention(model: Model, layer: int, shown: dict[tuple[str, int], Tensor]) -> None:
    """Raise NotDefined unless the hooks of the layer fired and show z = pattern @ v."""
    for site in SHOWN:
        if (site, layer) not in shown:
            raise NotDefined(
                f"hook {hook_name(site, layer)} of {named(model)} never fires, so its attention cannot be read: "
                "either there is none (a state-space or convolution layer), or the model was loaded without "
                'attn_implementation="eager" (ik.load does that), or a HookedTransformer is needed'
            )
    pattern, v, z = (shown[site, layer] for site in SHOWN)
    try:
        expected = torch.einsum(
            "phqk,pkhd->pqhd", pattern, per_query_head(v, pattern.shape[1], 2).to(pattern)
        )
        apart = float((expected.to(z) - z).abs().max() / expected.abs().max().clamp_min(1e-30))
    except RuntimeError:  # shapes that do not go together
        apart = float("inf")
    if not apart <= loose(model):
        raise NotDefined(
            f"{hook_name('z', layer)} of {named(model)} is not its pattern times its values (they differ by "
            f"{apart:.2g} of the largest), so {hook_name('pattern', layer)} is not the attention it uses, and nothing "
            "read from it would be right: use a HookedTransformer, or another version of TransformerLens"
        )


def _check_acts(model: Model) -> bool:
    """Raise NotDefined if an edit of z in some layer should change what is unembedded and does not.

    Returns:
        Whether that could be seen in every layer.
    """
    layers, end = edited(model)
    varies, could = (end[0] - end[0, :1]).abs().max(), True
    for layer, (edit, stream) in enumerate(layers):
        block: Any = model.blocks[layer]
        written = float(torch.einsum("pshd,hdm->psm", edit, block.attn.W_O.detach().to(edit)).abs().max())
        entering = 0.0 if stream is None else float(stream.abs().max())
        moved = (end[layer + 1] - end[0]).abs().max()
        # Nothing can be seen if the heads write almost nothing (W_O = 0), or if the end does not depend on the stream
        # (a final norm with weights of 0). Copies of one prompt may differ by rounding; NaN counts as a change.
        visible = written > loose(model) * (1 + entering) and bool(varies > 0)
        if visible and bool(moved <= loose(model) * varies):
            raise NotDefined(
                f"an edit at {hook_name('z', layer)} of {named(model)} changes no logit, so nothing can be ablated or "
                "patched there: use a HookedTransformer, or another version of TransformerLens"
            )
        could = could and visible
    return could


def loose(model: Model) -> float:
    """Tolerance for rounding: a Bridge may compute its softmax in float32 whatever the dtype of its weights."""
    return 1e-4 if model.W_U.dtype in (torch.float32, torch.float64) else 0.05


def made_of(model: Model) -> int:
    """A hash of the model's modules and configuration, not of its weights, which may change between calls.

    Raises:
        TypeError: a compiled module, which ignores hooks.
    """
    modules = all_modules(model)
    for module, name in modules.items():
        if hasattr(module, "_orig_mod"):
            raise TypeError(
                f"{name or 'the model'} is compiled (torch.compile) and ignores hooks set later: pass the model with "
                "the module itself in its place, compiled._orig_mod, which has the same weights"
            )
    parts = tuple((type(module), "forward" in vars(module)) for module in modules)
    # repr, since str(cfg) sorts and wraps the configuration, which takes as long as a small pass
    return hash((parts, repr(vars(model.cfg))))


# Bridges and Hugging Face models set hooks themselves; this package's hooks on modules last for one pass only.
_NOT_THE_USERS = ("transformer_lens.", "transformers.", "induction_kernel.")


@one_thread_at_a_time
def foreign_hooks(model: Model) -> list[str]:
    """Names of the modules with the user's own hooks: not set by TransformerLens, transformers or this package."""
    found = []
    for module, name in all_modules(model).items():
        hooks = [
            hook
            for key in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
            for hook in getattr(module, key, {}).values()
        ]
        if "HookPoint" in {base.__name__ for base in type(module).__mro__}:
            of_users = len(hooks) > _wired(module)
        else:
            of_users = any(
                not str(getattr(hook, "__module__", "")).startswith(_NOT_THE_USERS) for hook in hooks
            )
        if of_users:
            found.append(name)
    return found


def _wired(point: Any) -> int:
    """The number of hooks that TransformerLens 4 set here itself, for parts without a module (OPT's MLP)."""
    hooks = [getattr(handle, "user_hook", None) for handle in (*point.fwd_hooks, *point.bwd_hooks)]
    return sum(getattr(hook, "__qualname__", "").startswith("_wire_symbolic_hooks.") for hook in hooks)

"""Can what a model shows be trusted, and is it still the same model? Other people's hooks, and its parts.

A hook name that exists does not prove that it fires, nor that an edit there does anything.
"""

from __future__ import annotations

from .anatomy import Model, all_modules

__all__ = ["foreign_hooks", "made_of"]


def made_of(model: Model) -> int:
    """Changes with the model's parts, not with its weights: they are read anew at every call."""
    modules = [(type(module), "forward" in vars(module)) for module in all_modules(model)]
    return hash((tuple(modules), str(model.cfg)))


_THEIR_OWN = (
    "transformer_lens.",
    "transformers.",
)  # a Bridge, and a Hugging Face model, wire hooks of their own


def foreign_hooks(model: Model) -> list[str]:
    """Where hooks stand on the model that its own libraries did not put there for themselves."""
    found = []
    for module, name in all_modules(model).items():
        hooks = [
            hook
            for key in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
            for hook in getattr(module, key, {}).values()
        ]
        of_users = type(module).__name__ == "HookPoint"
        if any(of_users or not str(getattr(hook, "__module__", "")).startswith(_THEIR_OWN) for hook in hooks):
            found.append(name)
    return found

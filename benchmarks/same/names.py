"""Public names, found where the installed version of the package has them: `names.vote`, whatever it is called there.

A name is looked for among the everyday names and in every namespace, as it is and as it was called before. Options of
functions likewise: `n_prompts=4` is passed on as `prompts=4` to a version that calls it so.
"""

import inspect
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import Any

NAMESPACES = (
    "", "data", "fewshot", "kernel", "theory", "training", "evidence", "interventions", "metrics", "scorers", "heads",
    "prompts", "stats", "masks", "loading", "plots",
)  # fmt: skip
BEFORE = {
    "few_shot_prompts": "few_shot",
    "load_classification": "classification",
    "predict": "in_context",
    "vote": "reconstruct",
    "label_logits": "label_writing",
    "function_vector_effect": "function_vectors",
    "onset_coupling": "turn_together",
}
OPTIONS_BEFORE = {"n_prompts": "prompts", "n_controls": "controls", "resamples": "draws"}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return found(name)


@cache
def found(name: str) -> Any:
    """What is called `name`, or was before; functions take the options of either version.

    Raises:
        LookupError: nothing is called so.
    """
    for candidate in (name, BEFORE.get(name, name)):
        for namespace in NAMESPACES:
            value = getattr(_module(namespace), candidate, None)
            if value is not None and not isinstance(value, ModuleType):
                return _with_options(value) if inspect.isfunction(value) else value
    raise LookupError(f"no namespace has {name}")


@cache
def _module(namespace: str) -> ModuleType | None:
    try:
        return import_module(f"induction_kernel.{namespace}".rstrip("."))
    except ModuleNotFoundError:
        return None


def _with_options(function: Any) -> Any:
    taken = inspect.signature(function).parameters

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = {key if key in taken else OPTIONS_BEFORE.get(key, key): each for key, each in options.items()}
        return function(*args, **given)

    return call

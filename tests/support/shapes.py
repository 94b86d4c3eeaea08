"""The type checker handed to jaxtyping's pytest hook: beartype, for functions that name tensor shapes only.

Public verbs annotate a plain `Tensor` and check their arguments themselves, with messages for users. beartype
would come first with its own, so it is kept to signatures such as `x: Float[Tensor, "head query key"]`.
"""

import inspect

from beartype import beartype
from jaxtyping import AbstractArray


def check(function):
    """Return `function` checked by beartype if an annotation of it names a shape, else as it is."""
    signature = inspect.signature(function)
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    named = any(names_shape(annotation) for annotation in [*annotations, signature.return_annotation])
    return beartype(function) if named else function


def names_shape(annotation) -> bool:
    """Whether an annotation is, or contains, a jaxtyping array: `Float[Tensor, "a"] | None`, `tuple[...]`."""
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(names_shape(argument) for argument in getattr(annotation, "__args__", ()))

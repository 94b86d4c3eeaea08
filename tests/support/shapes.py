"""The type checker handed to jaxtyping's pytest hook: beartype, for functions that name tensor shapes only.

Public verbs annotate a plain `Tensor` and check their arguments themselves, with messages for users. beartype
would come first with its own, so it is kept to signatures such as `x: Float[Tensor, "head query key"]`.
"""

import inspect
import re

import jaxtyping
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


def only_where_shapes_are_named(jaxtyped):
    """jaxtyping's decorator, but for functions without shapes: it would wrap them too, closures at every call."""

    def decorator(*things, typechecker):
        def decorated(thing):
            plain = inspect.isfunction(thing) and not any(map(may_name_shape, thing.__annotations__.values()))
            return thing if plain else jaxtyped(thing, typechecker=typechecker)

        return decorated(*things) if things else decorated

    return decorator


def may_name_shape(annotation) -> bool:
    """As `names_shape`; in a text, by the names that jaxtyping has."""
    if isinstance(annotation, str):
        return any(hasattr(jaxtyping, name) for name in re.findall(r"(\w+)\[", annotation))
    return names_shape(annotation)

"""Arguments that users give in several forms: whole numbers, seeds, rows of a table, functions of their own.

It says whether they can be used, before anything is computed with them. It knows no model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, TypeGuard

from .errors import Refused

__all__ = ["checked_seed", "is_whole", "plain", "refused_arguments", "rows_of"]

LARGEST_SEED = 2**64 - 1  # torch takes no larger one


def checked_seed(seed: Any) -> int:
    """The seed as a Python int, of whatever kind of whole number it is (a NumPy one, say).

    Raises:
        TypeError: no whole number (None would make a result that cannot be made again). Refused: out of range.
    """
    if not is_whole(seed):
        raise TypeError(f"wanted seed as a whole number, 0 or more, got {seed!r}")
    number = int(seed)
    if not 0 <= number <= LARGEST_SEED:
        raise Refused(f"wanted seed from 0 to {LARGEST_SEED}, got {number}")
    return number


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is an integer, of Python or NumPy, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def rows_of(given: Any) -> Any:
    """The rows of a DataFrame as tuples, of a dict as pairs, of an array or iterator as a list; the rest as it is."""
    if isinstance(given, Mapping):
        return list(given.items())
    if hasattr(given, "itertuples"):
        return list(given.itertuples(index=False, name=None))
    given = plain(given)
    return list(given) if hasattr(given, "__iter__") and not isinstance(given, str | bytes) else given


def plain(given: Any) -> Any:
    """What an array, a tensor or a column holds, as lists, numbers and strings; anything else as it is."""
    given = given.values if hasattr(given, "dims") else given  # an xarray DataArray
    return given.tolist() if hasattr(given, "tolist") else given


def refused_arguments(function: Callable[..., Any], n: int) -> str | None:
    """The signature of a function that cannot be called with `n` arguments; None where it can, or does not say."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return None
    try:
        signature.bind(*range(n))
    except TypeError:
        return str(signature)
    return None

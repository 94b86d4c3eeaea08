"""Public names of a package, loaded when first used: what its `.pyi` lists, and the nearest for a mistyped one."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import lazy_loader

__all__ = ["attach"]


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose `__init__.pyi` lists what is public.

    Args:
        package: its `__name__`.
        file: its `__file__`.
    """
    load, public, names = lazy_loader.attach_stub(package, file)

    def get(name: str) -> Any:
        if name in names:
            return load(name)
        near = get_close_matches(name, names, 3)
        hint = f": did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    return get, public, names

"""Public names of a package, loaded when first used: what its `.pyi` lists, and the nearest for a mistyped one."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
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
        if name.startswith("__"):  # asked by libraries (inspect, pytest), often, and mistyped by nobody
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        places = {space: Path(file).parent / space / "__init__.py" for space in names}
        spaces = {space: path for space, path in places.items() if path.with_suffix(".pyi").exists()}
        inside = [
            f"{space}.{name}"
            for space, path in spaces.items()
            if name in lazy_loader.attach_stub(f"{package}.{space}", str(path))[2]
        ]
        near = inside or get_close_matches(name, names, 3)
        hint = f": did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    return get, public, names

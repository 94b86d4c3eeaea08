"""GGUF files, whose metadata transformers parses three times, and whose map of names it makes for every module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import Any

import numpy as np

from ._build import quietly

__all__ = ["parsed_once"]


@contextmanager
def parsed_once() -> Iterator[None]:
    """In this thread, `gguf` parses each file and makes each map of tensor names only once inside.

    Other threads call gguf's own functions, and so does code that keeps a name imported inside; threads that load a
    model wait, as with `quietly`.
    """
    import gguf

    with quietly():
        theirs = {"GGUFReader": gguf.GGUFReader, "get_tensor_name_map": gguf.get_tensor_name_map}
        ours = {
            "GGUFReader": cache(_plain(gguf.GGUFReader)),
            "get_tensor_name_map": cache(gguf.get_tensor_name_map),
        }
        inside = {get_ident()}
        try:
            for name, function in theirs.items():
                setattr(gguf, name, _in_threads(inside, ours[name], function))
            yield
        finally:
            inside.clear()
            for name, function in theirs.items():
                setattr(gguf, name, function)


def _plain(reader: type) -> type:
    """The reader over a plain array of the file, which is cut into small pieces three times as fast as a memmap."""

    class Plain(reader):
        @property
        def data(self) -> np.ndarray:
            return self._data

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._data = np.asarray(mapped)

    return Plain


def _in_threads(inside: set[int], ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: (ours if get_ident() in inside else theirs)(*args, **kwargs)

"""Files written whole or not at all, and text files read in the encoding that they begin by naming."""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "text_of"]

# In this order: a UTF-32 mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def text_of(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text of a file, without a byte-order mark, which says the encoding where there is one.

    Raises:
        ValueError: no such file, or another encoding.
    """
    try:
        with Path(path).open("rb") as file:
            begins = file.read(4)
        told = next((name for mark, name in MARKS.items() if begins.startswith(mark)), encoding)
        return Path(path).read_text(encoding=told)
    except LookupError:
        raise ValueError(
            f"wanted an encoding that Python knows, such as 'utf-8' or 'latin-1', got {encoding!r}"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a text file in {encoding}: {error}") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and is removed when it fails.

    Raises:
        ValueError: the folder does not exist or cannot be written to, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise ValueError(
            f"cannot write {str(target)!r}: wanted a file name in an existing folder that can be written to"
        )
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise ValueError(f"cannot write {str(target)!r}: {error.strerror}") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

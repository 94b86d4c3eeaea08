"""Text files as text, in the encoding that their byte-order mark says."""

from __future__ import annotations

import codecs
from pathlib import Path

__all__ = ["text_of"]

MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def text_of(path: str | Path) -> str:
    """A file as text, without a byte-order mark; UTF-8 where it has none.

    Raises:
        ValueError: no such file, or another encoding.
    """
    try:
        raw = Path(path).read_bytes()
        codec = next((codec for mark, codec in MARKS.items() if raw.startswith(mark)), "utf-8")
        return raw.decode(codec).replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a text file in UTF-8: {error}") from error

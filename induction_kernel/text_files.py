"""Text files as text and lines, in the encoding that their byte-order mark says."""

from __future__ import annotations

import codecs
from pathlib import Path

from .errors import Refused

__all__ = ["decoded", "lines_of", "text_of"]

MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def text_of(path: str | Path) -> str:
    """A file as text, without a byte-order mark; UTF-8 where it has none.

    Raises:
        Refused: no such file, or another encoding.
    """
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {str(path)!r}: {error}") from error
    return decoded(raw, Path(path).name, "utf-8", remedy="save it as UTF-8").replace("\r\n", "\n")


def decoded(
    raw: bytes, name: str, encoding: str, *, remedy: str = "give encoding=, such as 'latin-1' or 'utf-16-le'"
) -> str:
    """Bytes of a file of this name as text, without a byte-order mark."""
    if raw.startswith(b"PK\x03\x04"):
        raise Refused(f"{name} is an archive or an Excel workbook: unpack it, or save it as .csv")
    codec = next((codec for mark, codec in MARKS.items() if raw.startswith(mark)), encoding)
    try:
        text = raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Refused(f"line {line} of {name} is not {codec}: {remedy}") from error
    except LookupError as error:
        raise Refused(f"wanted an encoding that Python knows, got {encoding!r}") from error
    if "\0" in text:
        raise Refused(f"{name} is no text in {codec}, it holds null bytes: {remedy}")
    return text


def lines_of(text: str) -> list[str]:
    """Lines without their ends; only line feeds end a line, so texts may hold any other separator."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines

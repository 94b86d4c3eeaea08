"""A file's bytes as text, and its format: by the ending, else by the content.

Columns and classes are read in `_tables` and `_readers`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from ..errors import Refused
from ..formats import decoded, lines_of

__all__ = ["ENDINGS", "PARQUET", "content", "kind_of", "separator", "unpacked"]

ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".txt", ".parquet")
PARQUET = b"PAR1"
FEW = 10  # lines of a file, below which classes need not recur


def unpacked(path: Path) -> tuple[bytes, str]:
    """A file's bytes, decompressed if it is gzip, and its ending in lower case."""
    if not path.is_file():
        raise Refused(f"there is no file {str(path)!r}")
    raw = path.read_bytes()
    if not raw.startswith(b"\x1f\x8b"):
        return raw, path.suffix.lower()
    try:
        return gzip.decompress(raw), Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"cannot unpack {path.name}: {error}") from error


def content(path: Path, encoding: str) -> str:
    """A file as text; a byte-order mark overrides `encoding`."""
    return decoded(unpacked(path)[0], path.name, encoding)


def kind_of(ending: str, text: str, *, columns: bool) -> str | None:
    """One of "tsv", "csv", "jsonl", "json" (one list) and "lines" (class first); None if it cannot be told.

    `.tsv`, `.csv` and `.jsonl` are taken at their word. Others are recognised by content: JSON by its first character,
    tables by tabs, lines with the class first by few different first words (a short `.txt` need not repeat them), and
    last by commas and semicolons, which occur in any text. If `columns` are asked for, it is a table.
    """
    if ending in (".tsv", ".csv", ".jsonl"):
        return ending[1:]
    lines = [line for line in lines_of(text) if line.strip()]
    if not lines:
        return "lines"
    begin, tabs = lines[0].lstrip()[0], lines[0].count("\t")
    if begin in "{[":
        return "jsonl" if begin == "{" else "json"
    if tabs and sum(line.count("\t") == tabs for line in lines) > 0.9 * len(lines):
        return "tsv"
    if not columns and (_class_first(lines) or (ending == ".txt" and len(lines) < FEW)):
        return "lines"
    return "csv" if separator(lines[0], "") else None


def _class_first(lines: list[str]) -> bool:
    """Whether the first words are classes: at least two, each on two lines or more on average."""
    first = [line.partition(" ")[0].partition(":")[0] for line in lines]
    return 2 <= len(set(first)) <= len(lines) / 2 and not any(re.search(r'[,;"]', word) for word in first)


def separator(line: str, default: str = ",") -> str:
    """What separates the cells of a line outside quotation marks: a comma, else a semicolon, else a tab."""
    bare = re.sub(r'"[^"]*"', "", line)
    return next((sign for sign in ",;\t" if sign in bare), default)

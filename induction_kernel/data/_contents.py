"""Format of a file of labelled data (CSV, TSV, JSON, JSON lines, Parquet, lines with a class): by ending or content.

Also its bytes, unpacked if gzipped. Columns and classes are read in `_tables` and `_readers`; the formats that results
are saved in are in `formats`.
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
FEW = 10  # lines: in a shorter .txt file, no class needs to occur twice


def unpacked(path: Path) -> tuple[bytes, str]:
    """A file's bytes, decompressed if gzipped, and its ending in lower case, without ".gz".

    Raises:
        Refused: no such file, or a damaged gzip file.
    """
    if not path.is_file():
        raise Refused(f"wanted a file that exists, got {str(path)!r}")
    raw = path.read_bytes()
    if not raw.startswith(b"\x1f\x8b"):
        return raw, path.suffix.lower()
    try:
        return gzip.decompress(raw), Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(
            f"cannot unpack {path.name} ({error}): fetch it again, or unpack it yourself"
        ) from error


def content(path: Path, encoding: str) -> str:
    """A file as text; a byte-order mark overrides `encoding`.

    Raises:
        Refused: no such file, or another encoding.
    """
    return decoded(unpacked(path)[0], path.name, encoding)


def kind_of(ending: str, text: str, *, columns: bool) -> str | None:
    """Format of a file: "tsv", "csv", "jsonl", "json" (one list) or "lines" (class first); None if it is not clear.

    The endings `.tsv`, `.csv` and `.jsonl` decide. Other files are recognised by content, in this order: JSON by the
    first character; a table with tabs; lines that begin with a class by first words that recur (in a short `.txt` they
    need not); a table with commas or semicolons, last because these occur in any text.

    Args:
        ending: of the file, with its point.
        text: its content.
        columns: whether columns are asked for: then it is not "lines", unless it is empty.
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
    """Whether the first words look like classes: two or more different ones, each on two lines or more on average."""
    first = [line.partition(" ")[0].partition(":")[0] for line in lines]
    return 2 <= len(set(first)) <= len(lines) / 2 and not any(re.search(r'[,;"]', word) for word in first)


def separator(line: str, default: str = ",") -> str:
    """The separator of a table's cells in a line: a comma, else a semicolon, else a tab, outside quotation marks."""
    bare = re.sub(r'"[^"]*"', "", line)
    return next((sign for sign in ",;\t" if sign in bare), default)

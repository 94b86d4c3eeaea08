"""The bytes of a file as text, and which kind of labelled data they are: by the ending, else by what is written.

It knows nothing of columns and classes: see `tables` and `rows`.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path

__all__ = ["ENDINGS", "PARQUET", "content", "decoded", "kind_of", "lines_of", "separator", "unpacked"]

ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".txt", ".parquet")
PARQUET = b"PAR1"
FEW = 10  # lines, in which classes need not recur
MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def unpacked(path: Path) -> tuple[bytes, str]:
    """A file's bytes, decompressed where it is gzip, and its ending in small letters."""
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    raw = path.read_bytes()
    if not raw.startswith(b"\x1f\x8b"):
        return raw, path.suffix.lower()
    try:
        return gzip.decompress(raw), Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot unpack {path.name}: {error}") from error


def content(path: Path, encoding: str) -> str:
    """A file as text; a byte-order mark says more surely than `encoding` how it is encoded."""
    return decoded(unpacked(path)[0], path.name, encoding)


def lines_of(text: str) -> list[str]:
    """Lines without their ends; only line feeds end a line, so texts may hold any other separator."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def decoded(raw: bytes, name: str, encoding: str) -> str:
    """Bytes of a file of this name as text, without a byte-order mark."""
    if raw.startswith(b"PK\x03\x04"):
        raise ValueError(f"{name} is an archive or an Excel workbook: unpack it, or save it as .csv")
    codec = next((codec for mark, codec in MARKS.items() if raw.startswith(mark)), encoding)
    try:
        text = raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"line {line} of {name} is not {codec}: give encoding=, for instance 'latin-1'"
        ) from error
    except LookupError as error:
        raise ValueError(f"wanted an encoding that Python knows, got {encoding!r}") from error
    if "\0" in text:
        raise ValueError(
            f"{name} is no text in {codec}, it holds null bytes: give encoding=, like 'utf-16-le'"
        )
    return text


def kind_of(ending: str, text: str, *, columns: bool) -> str | None:
    """ "tsv", "csv", "jsonl", "json" (one list) or "lines" (class first); None where nobody can tell.

    `.tsv`, `.csv` and `.jsonl` are what they say. Others are recognised: JSON by its first sign, tables by tabs, lines
    with the class first by few different first words (a short `.txt` need not repeat them), commas and semicolons last,
    which stand in any text. Where `columns` are asked for, it is a table.
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

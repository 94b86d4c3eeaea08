"""What rows of text and class does a source hold? Files and folders here, data sets by name on the hub.

Classes stay as they are written: numbering and naming them is for `data`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .known import KNOWN, Known

__all__ = ["Rows", "Source", "called", "find_known", "read_rows"]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
FILES = (".tsv", ".csv", ".jsonl", ".txt")


class Rows(NamedTuple):
    """What a source holds.

    Attributes:
        texts: the inputs.
        values: the class of each, as it is written.
        order: all classes in order, where the source says so.
    """

    texts: list[str]
    values: list[str]
    order: list[str] | None = None


def read_rows(
    source: Source, text: Any, label: Any, split: str | None, encoding: str, known: Known | None
) -> Rows:
    """Texts and classes of a source; arguments as in `classification`."""
    if not isinstance(source, str | os.PathLike):
        rows = _pair(source, encoding)
    elif Path(source).is_dir():
        rows = _folder(Path(source), split or "val", encoding)
    elif Path(source).is_file():
        rows = _file(Path(source), text, label, encoding, known)
    elif str(source) in KNOWN or _is_repository(source):
        rows = _hub(str(source), text, label, split, known)
    else:
        raise ValueError(
            f"wanted a file or folder that exists, a name in {list(KNOWN)} or 'owner/name' of a data set on the hub, "
            f"got {str(source)!r}"
        )
    rows = rows._replace(texts=[x.strip() for x in rows.texts])  # GLUE's end in a blank
    if not rows.texts:
        raise ValueError(f"wanted at least one labelled text in {called(source)}, got none")
    for what, cells in (("text", rows.texts), ("class", rows.values)):
        if "" in cells:
            raise ValueError(
                f"wanted a {what} in every row of {called(source)}, got none in row {cells.index('')}"
            )
    return rows


def called(source: Source) -> str:
    """What a source is called: a name, or that of its file."""
    if not isinstance(source, str | os.PathLike):
        return Path(source[0]).name if source else "no files"
    return Path(source).name if Path(source).exists() else str(source)


def find_known(source: Source) -> Known | None:
    """The known data set of this name, or that a file's or folder's name begins with."""
    if isinstance(source, str) and source in KNOWN and not Path(source).exists():
        return KNOWN[source]
    name = called(source)
    short = {key.split("/")[-1]: known for key, known in KNOWN.items()}
    return next((known for key, known in short.items() if re.match(rf"(tweet_)?{key}\b", name)), None)


def _is_repository(source: Any) -> bool:
    return (
        isinstance(source, str)
        and re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None
        and not source.endswith(FILES)
    )


def _pair(source: Any, encoding: str) -> Rows:
    if len(source) != 2:
        raise ValueError(f"wanted a pair of files, texts and classes, got {len(source)}")
    texts, values = (_lines(Path(path), encoding) for path in source)
    if len(texts) != len(values):
        raise ValueError(
            f"wanted as many classes as texts, got {len(values)} lines in {Path(source[1]).name} and {len(texts)} in "
            f"{Path(source[0]).name}"
        )
    return Rows(texts, [value.strip() for value in values])


def _folder(folder: Path, split: str, encoding: str) -> Rows:
    pair = [folder / f"{split}_{kind}.txt" for kind in ("text", "labels")]
    if not all(path.is_file() for path in pair):
        there = sorted(path.name for path in folder.iterdir())[:10]
        raise ValueError(
            f"wanted {pair[0].name} and {pair[1].name} in {folder.name}, got {there}: give split=, or a file"
        )
    return _pair(pair, encoding)


def _file(path: Path, text: Any, label: Any, encoding: str, known: Known | None) -> Rows:
    if path.suffix == ".txt":
        return _lines_with_class(path, encoding)
    if path.suffix == ".jsonl":
        records = [_record(line, i, path) for i, line in enumerate(_lines(path, encoding))]
    elif path.suffix in (".csv", ".tsv"):
        records = _table(path, text, label, encoding)
        plain = bool(records) and "2" in records[0]  # no header
        if text is None and label is None and known is KNOWN["ag_news"] and plain:
            text, label = "{1}. {2}", 0  # as it was published: class, title, description
    else:
        raise ValueError(f"wanted a file that ends in {', '.join(FILES)}, got {path.name}")
    return Rows(*_columns(records, text, label, path.name, known))


def _table(path: Path, text: Any, label: Any, encoding: str) -> list[dict[str, Any]]:
    """Every row's cells as they are written, under names or, without a header, numbers."""
    tabs = path.suffix == ".tsv"
    content = _content(path, encoding)
    options: dict[str, Any] = {"sep": "\t", "quoting": 3} if tabs else {}
    try:
        table = pd.read_csv(
            StringIO(content), header=None, dtype=str, keep_default_na=False, on_bad_lines="error", **options
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"cannot read {path.name} as a table: {error}") from error
    rows = table.fillna("").values.tolist()
    numbers = any(isinstance(column, int) for column in (text, label))
    if numbers or not (_names(text) | _names(label) | {"label"}) & set(rows[0]):
        rows.insert(0, [str(i) for i in range(len(rows[0]))])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def _names(column: Any) -> set[str]:
    """The columns a pattern in braces names, or the one column."""
    if column is None:
        return set()
    return set(re.findall(r"\{(\w+)\}", str(column))) or {str(column)}


def _columns(
    records: list[dict[str, Any]], text: Any, label: Any, name: str, known: Known | None
) -> tuple[list[str], list[str]]:
    """Texts and classes out of the columns that are given, known, or called as usual."""
    if not records:
        raise ValueError(f"wanted at least one labelled text in {name}, got none")
    there = list(records[0])
    if text is None:
        usual = ([known.text] if known else []) + ["text", "sentence"]
        text = next((column for column in usual if _names(column) <= set(there)), None)
    if label is None:
        usual = ([known.label] if known else []) + ["label"]
        label = next((column for column in usual if column in there), None)
    for what, column in (("text", text), ("label", label)):
        if column is None or not _names(column) <= set(there):
            got = "" if column is None else f", got {what}={column!r}"
            raise ValueError(f"wanted {what}= one of the columns {there} of {name}{got}")
    written = str(text) if "{" in str(text) else f"{{{text}}}"
    texts = [
        re.sub(r"\{(\w+)\}", lambda found, row=row: str(row.get(found[1], "")), written) for row in records
    ]
    return texts, [str(row.get(str(label), "")).strip() for row in records]


def _record(line: str, row: int, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {row + 1} of {path.name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"wanted an object in line {row + 1} of {path.name}, got {line[:40]}")
    return record


def _lines_with_class(path: Path, encoding: str) -> Rows:
    texts, values = [], []
    for i, line in enumerate(_lines(path, encoding)):
        found, _, text = line.partition(" ")
        if not text.strip():
            raise ValueError(
                f"wanted lines 'CLASS:fine text' or 'CLASS text' in {path.name}, got {line[:40]!r} in line {i + 1}; "
                "texts and classes in two files are given as a pair (texts, classes)"
            )
        texts.append(text.strip())
        values.append(found.partition(":")[0])
    return Rows(texts, values)


def _lines(path: Path, encoding: str) -> list[str]:
    """Lines without their ends; only line feeds end a line, so texts may hold any other separator."""
    lines = [line.removesuffix("\r") for line in _content(path, encoding).split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _content(path: Path, encoding: str) -> str:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    raw = path.read_bytes()
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"line {line} of {path.name} is not {encoding}: give encoding=, for instance 'latin-1'"
        ) from error
    except LookupError as error:
        raise ValueError(f"wanted an encoding that Python knows, got {encoding!r}") from error


def _hub(name: str, text: Any, label: Any, split: str | None, known: Known | None) -> Rows:
    """A data set from the hub, by the package `datasets`."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "data sets by name need the package `datasets`: install induction-kernel[datasets], or give a file"
        ) from error
    split = split or (known.split if known else None)
    if split is None:
        raise ValueError(f"wanted split= for {name!r}, which is not in {list(KNOWN)}")
    where, revision = (known.hub, known.revision) if known else ((name,), None)
    try:
        table = datasets.load_dataset(*where, split=split, revision=revision)
    except ConnectionError as error:
        raise ConnectionError(
            f"the data set {name!r} is not here and the hub cannot be reached: give a file instead ({error})"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(f"the hub has no data set {name!r}, or not for you: {error}") from error
    assert isinstance(table, datasets.Dataset)  # one split was asked for
    texts, values = _columns(table.to_list(), text, label, name, known)
    column = str(label) if label is not None else known.label if known else "label"
    names = getattr(table.features[column], "names", None)
    if names is None:
        return Rows(texts, values)
    if "-1" in values:
        raise ValueError(f"the split {split!r} of {name!r} has no public labels: choose another one")
    return Rows(texts, [names[int(value)] for value in values], list(names))

"""Texts and classes of a labelled data set, row by row: from files, folders, DataFrames and the Hugging Face hub.

Classes are kept as written, except that 1, 1.0 and "1" are the same. `_labelled` numbers them and gives them words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..errors import Refused
from ..formats import decoded, lines_of
from ._classes import as_class
from ._contents import ENDINGS, PARQUET, content, kind_of, unpacked
from ._registry import KNOWN, Known
from ._tables import columns_of, delimited, json_lines, json_list, parquet

__all__ = ["Rows", "Source", "called", "check_there", "find_known", "read_rows"]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame


class Rows(NamedTuple):
    """The rows of a source, in its order.

    Attributes:
        texts: the inputs; None where one is missing.
        values: the class of each text, as written; None where it is missing.
        order: all classes in order, if the source gives an order.
    """

    texts: list[str | None]
    values: list[str | None]
    order: list[str] | None = None


def check_there(source: str | os.PathLike[str]) -> None:
    """Raise Refused unless this is a file, a folder or the name of a data set; nothing is read or fetched."""
    if Path(source).exists() or str(source) in KNOWN or _is_repository(source):
        return
    raise Refused(
        f"wanted a file or folder that exists, a name in {list(KNOWN)} or 'owner/name' of a data set on the hub, "
        f"got {str(source)!r}"
    )


def read_rows(
    source: Source, text: Any, label: Any, split: str | None, encoding: str, known: Known | None
) -> Rows:
    """Texts and classes of a source, without blanks around the texts.

    Args:
        source: as in `load_classification`, like the next four.
        text: column of the texts.
        label: column of the classes.
        split: of a folder or a named data set.
        encoding: of files.
        known: the known data set that this is, if any.

    Raises:
        TypeError: another kind of source or column.
        Refused: as in `load_classification`.
    """
    one = not isinstance(source, str | os.PathLike) or Path(source).is_file()
    if split is not None and one:
        raise Refused(
            f"split= is for a folder or a data set's name, got {called(source)}: pass the file of that split"
        )
    if isinstance(source, pd.DataFrame):
        rows = Rows(*columns_of(source, text, label, called(source), known))
    elif not isinstance(source, str | os.PathLike):
        rows = _pair(_without_columns(source, text, label), encoding)
    elif Path(source).is_dir():
        rows = _folder(Path(_without_columns(source, text, label)), split or "val", encoding)
    elif Path(source).is_file():
        rows = _file(Path(source), text, label, encoding, known)
    else:
        check_there(source)
        rows = _hub(str(source), text, label, split, known)
    stripped = [text and text.strip() for text in rows.texts]  # texts in GLUE end in a blank
    return rows._replace(texts=stripped)


def called(source: Source) -> str:
    """The name of a source: of its file or folder, the name it was given by, or "DataFrame"."""
    if isinstance(source, pd.DataFrame):
        return "DataFrame"
    if isinstance(source, str | os.PathLike):
        return Path(source).name if Path(source).exists() else str(source)
    if not isinstance(source, Sequence) or not all(isinstance(each, str | os.PathLike) for each in source):
        how = ": pass its .to_pandas()" if hasattr(source, "to_pandas") else ""
        raise TypeError(
            f"wanted a file, a folder, a pair of files, a DataFrame or a name, got {type(source).__name__}{how}"
        )
    return Path(source[0]).name if source else "no files"


def find_known(source: Source) -> Known | None:
    """The known data set with this name, or with whose name the file's or folder's name begins; else None."""
    if isinstance(source, str) and source in KNOWN and not Path(source).exists():
        return KNOWN[source]
    name = called(source)
    short = {key.split("/")[-1]: known for key, known in KNOWN.items()}
    return next((known for key, known in short.items() if re.match(rf"(tweet_)?{key}\b", name.lower())), None)


def _is_repository(source: Any) -> bool:
    """Whether it looks like "owner/name" on the hub rather than a file."""
    return (
        isinstance(source, str)
        and re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None
        and not source.lower().removesuffix(".gz").endswith(ENDINGS)
    )


def _pair(source: Any, encoding: str) -> Rows:
    """The rows of two files, texts and classes, line by line."""
    if len(source) != 2:
        raise Refused(f"wanted a pair of files, texts and classes, got {len(source)} files")
    texts, values = (lines_of(content(Path(path), encoding)) for path in source)
    if len(texts) != len(values):
        raise Refused(
            f"wanted as many classes as texts, got {len(values)} lines in {Path(source[1]).name} and {len(texts)} in "
            f"{Path(source[0]).name}"
        )
    return Rows([_there(text) for text in texts], [_there(as_class(value)) for value in values])


def _there(text: str) -> str | None:
    """The text; None if it is blank."""
    return text if text.strip() else None


def _without_columns(source: Any, text: Any, label: Any) -> Any:
    """The source, which is read line by line; Refused if columns are asked for."""
    if text is not None or label is not None:
        raise Refused(
            f"text= and label= are for the columns of a table: {called(source)} is read line by line, with texts in "
            "one file and classes in another: leave them out"
        )
    return source


def _folder(folder: Path, split: str, encoding: str) -> Rows:
    """The rows of one split in a folder with `<split>_text.txt` and `<split>_labels.txt`."""
    pair = [folder / f"{split}_{kind}.txt" for kind in ("text", "labels")]
    if not all(path.is_file() for path in pair):
        there = sorted(path.name for path in folder.iterdir())[:10]
        raise Refused(
            f"wanted {pair[0].name} and {pair[1].name} in {folder.name}, got {there}: pass split=, or a file"
        )
    return _pair(pair, encoding)


def _file(path: Path, text: Any, label: Any, encoding: str, known: Known | None) -> Rows:
    """The rows of one file in any of the known formats."""
    raw, ending = unpacked(path)
    if raw.startswith(PARQUET):
        return Rows(*columns_of(parquet(raw, path.name), text, label, path.name, known))
    written = decoded(raw, path.name, encoding)
    kind = kind_of(ending, written, columns=text is not None or label is not None)
    if kind == "lines":
        return _lines_with_class(written, path.name)
    if kind == "jsonl":
        table = json_lines(written, path.name)
    elif kind == "json":
        table = json_list(written, path.name)
    elif kind is not None:
        table = delimited(written, text, label, path.name, known, tabs=kind == "tsv")
    elif ending == ".txt":
        raise Refused(
            f"wanted lines 'CLASS:fine text' or 'CLASS text' in {path.name}, or a table and its columns text= and "
            f"label=, got {lines_of(written)[0][:40]!r}"
        )
    else:
        raise Refused(
            f"wanted a file that ends in {', '.join(ENDINGS)}, or whose content shows which of these it is, "
            f"got {path.name}"
        )
    return Rows(*columns_of(table, text, label, path.name, known))


def _lines_with_class(written: str, name: str) -> Rows:
    """The rows of a file with lines `CLASS:fine text` or `CLASS text`."""
    lines = [line for line in lines_of(written) if line.strip()]
    parts = [line.partition(" ") for line in lines]
    values, texts = (
        [found.partition(":")[0].strip() for found, _, _ in parts],
        [_there(text) for *_, text in parts],
    )
    classes = {value for value, text in zip(values, texts, strict=True) if text is not None}
    for i, (line, value) in enumerate(zip(lines, values, strict=True)):
        if value not in classes:
            raise Refused(
                f"wanted lines 'CLASS:fine text' or 'CLASS text' in {name}, got {line[:40]!r} in line {i + 1}; "
                "pass texts and classes in two files as a pair (texts, classes)"
            )
    return Rows(texts, [_there(as_class(value)) for value in values])


def _hub(name: str, text: Any, label: Any, split: str | None, known: Known | None) -> Rows:
    """The rows of one split of a data set on the hub, read with the package `datasets`."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "data sets by name need the package `datasets`: install induction-kernel[datasets], or pass a file"
        ) from error
    split = split or (known.split if known else None)
    if split is None:
        raise Refused(f"wanted split= for {name!r}, which is neither a file nor in {list(KNOWN)}")
    where, revision = (known.hub, known.revision) if known else ((name,), None)
    try:
        table = datasets.load_dataset(*where, split=split, revision=revision)
    except ConnectionError as error:
        raise ConnectionError(
            f"the data set {name!r} is not in the local cache, and the hub cannot be reached: pass a file instead "
            f"({error})"
        ) from error
    except FileNotFoundError as error:
        raise Refused(
            f"the hub has no data set {name!r}, or you have no access to it: check the name, or pass a file ({error})"
        ) from error
    assert isinstance(table, datasets.Dataset)  # one split was asked for
    frame = table.to_pandas()
    assert isinstance(frame, pd.DataFrame)  # no batches were asked for
    texts, values, order = columns_of(frame, text, label, name, known)
    column = str(label) if label is not None else known.label if known else "label"
    names = getattr(table.features.get(column), "names", None)
    if names is None:
        return Rows(texts, values, order)
    if "-1" in values:
        raise Refused(f"the split {split!r} of {name!r} has no public labels: choose another split")
    return Rows(texts, [None if value is None else names[int(value)] for value in values], list(names))

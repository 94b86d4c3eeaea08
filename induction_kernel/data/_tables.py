"""Texts and classes in the columns of a table, which is read from CSV, TSV, JSON or Parquet or is a DataFrame.

Missing values are null, NaN, empty or blank; "NA" or "null" in a cell of a file is a word like any other. `_labelled`
numbers the classes and gives them words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from io import BytesIO, StringIO
from typing import Any

import numpy as np
import pandas as pd

from ..errors import Refused
from ..formats import lines_of
from ._classes import as_class
from ._contents import separator
from ._registry import KNOWN, Known

__all__ = ["columns_of", "delimited", "json_lines", "json_list", "parquet"]

BRACES = r"\{{\{{|\}}\}}|\{{({names})\}}|\{{([^{{}}]*)\}}|[{{}}]"
Columns = tuple[list[str | None], list[str | None], list[str] | None]


def columns_of(table: pd.DataFrame, text: Any, label: Any, name: str, known: Known | None) -> Columns:
    """Texts and classes from the columns that are given, else those of the known data set, else the usual ones.

    Args:
        table: one labelled text per row.
        text: column of the texts, as in `load_classification`; None for the known or usual one.
        label: column of the classes, likewise.
        name: the source, for error messages.
        known: the known data set that this is, if any.

    Returns:
        Texts and classes, None where missing; and all classes in order if their column is an ordered categorical, else
        None.

    Raises:
        TypeError: a column that is neither a name nor a number.
        Refused: no rows, no such columns, two columns of the same name, a cell that is a list.
    """
    if not len(table):
        raise Refused(f"wanted at least one labelled text in {name}, got none")
    there = [str(column) for column in table.columns]
    if text is None and label is None and known is KNOWN["ag_news"] and there[:3] == ["0", "1", "2"]:
        text, label = "{1}. {2}", 0  # as it was published, without a header: class, title, description
    usual = (
        ([known.text] if known else []) + ["text", "sentence"],
        ([known.label] if known else []) + ["label"],
    )
    of_text = _found(table, there, "text", text, usual[0], name)
    of_label = _found(table, there, "label", label, usual[1], name)
    texts, values = (_joined(table, parts, name) for parts in (of_text, of_label))
    kind = table.dtypes.iloc[of_label[0]] if isinstance(of_label[0], int) and len(of_label) == 1 else None
    order = None
    if isinstance(kind, pd.CategoricalDtype) and kind.ordered:
        order = [as_class(each) for each in kind.categories]
    return texts, [None if value is None else as_class(value) for value in values], order


def _found(
    table: pd.DataFrame, there: list[str], what: str, given: Any, usual: Sequence[str], name: str
) -> list[str | int]:
    """The parts of which each text (or class) is joined: literal strings, and columns by number."""
    if given is None:
        parts = _usual(table, there, what, usual, name)
    else:
        try:
            parts = _parsed(_called(table, given), there)
        except KeyError as error:
            said = f"wanted {what}= one of the columns {there} of {name}, got {what}={given!r}"
            raise Refused(f"{said}{_hint(error.args[0], str(given), there)}") from None
    twice = [there[part] for part in parts if isinstance(part, int) and there.count(there[part]) > 1]
    if twice:
        raise Refused(f"{name} has several columns {twice[0]!r}: give them different names")
    return parts


def _usual(
    table: pd.DataFrame, there: list[str], what: str, usual: Sequence[str], name: str
) -> list[str | int]:
    """The parts of the first of the usual columns that exists; Refused if none does."""
    for column in usual:
        with suppress(KeyError):
            return _parsed(column, there)
    row = f" (its first row: {table.iloc[0].tolist()})" if there[0] == "0" else ""
    raise Refused(f"wanted {what}= one of the columns {there} of {name}{row}")


def _called(table: pd.DataFrame, given: Any) -> str:
    """The name of a column given by name or number; a number that is not a name counts columns from 0."""
    if isinstance(given, str):
        return given
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"wanted a column as its name or its number from 0, got {given!r}")
    by_place = given not in table.columns and 0 <= given < table.shape[1]
    return str(table.columns[int(given)] if by_place else given)


def _parsed(asked: str, there: Sequence[str]) -> list[str | int]:
    """A column's name, or text with names in braces, as literal strings and column numbers.

    Raises:
        KeyError: with the name that no column has, or the brace that belongs to no name.
    """
    if asked in there:
        return [list(there).index(asked)]
    names = "|".join(re.escape(name) for name in sorted(filter(None, there), key=len, reverse=True))
    parts: list[str | int] = []
    end = 0
    for found in re.finditer(BRACES.format(names=names), asked):
        literal, end = asked[end : found.start()], found.end()
        if found[0] in ("{{", "}}"):
            parts.append(literal + found[0][0])
        elif found[1] is None:
            raise KeyError(found[0] if found[2] is None else found[2])
        else:
            parts += [literal, list(there).index(found[1])]
    if not any(isinstance(part, int) for part in parts):
        raise KeyError(asked)
    return [part for part in (*parts, asked[end:]) if part != ""]


def _hint(missing: str, given: str, there: list[str]) -> str:
    """The end of the message about a column that does not exist: which one, and a name like it."""
    if missing in ("{", "}"):
        return ": write a brace that stands for itself twice, {{ or }}"
    which = f", without a column {missing!r}" if missing != given else ""
    folded = {name.strip().casefold(): name for name in there}
    near = get_close_matches(missing.strip().casefold(), folded, n=1, cutoff=0.5)
    return f"{which}: did you mean {folded[near[0]]!r}?" if near else which


def _joined(table: pd.DataFrame, parts: list[str | int], name: str) -> list[str | None]:
    """Every row's parts joined to one text; None if a cell of it is missing."""
    columns = [
        [part] * len(table) if isinstance(part, str) else _cells(table.iloc[:, part], name) for part in parts
    ]
    rows = zip(*columns, strict=True)
    return [None if any(cell is None for cell in row) else "".join(map(str, row)) for row in rows]


def _cells(column: pd.Series, name: str) -> list[str | None]:
    """A column's cells as text; None where they are missing.

    Whole numbers are written without a decimal point: pandas turns a column of them into floats if a value is missing.
    """
    found: list[str | None] = []
    for row, value in enumerate(column.tolist()):
        if isinstance(value, str):
            found.append(value if value.strip() else None)
        elif isinstance(value, list | tuple | set | dict | bytes | np.ndarray):
            raise Refused(
                f"wanted words or numbers in column {str(column.name)!r} of {name}, got a {type(value).__name__} "
                f"in row {row}"
            )
        else:
            found.append(None if value is None or value is pd.NA or value != value else as_class(value))
    return found


def delimited(
    content: str, text: Any, label: Any, name: str, known: Known | None, *, tabs: bool
) -> pd.DataFrame:
    """A CSV table, or with `tabs` a TSV table without quoting (as in GLUE), all cells as text.

    Columns are named by the header or, without one, numbered from 0. Other arguments are as in `columns_of`.

    Raises:
        Refused: not a table.
    """
    first = next((line for line in lines_of(content) if line.strip()), "")
    options: dict[str, Any] = {"sep": "\t", "quoting": 3} if tabs else {"sep": separator(first)}
    try:
        table = pd.read_csv(
            StringIO(content), header=None, dtype=str, keep_default_na=False, on_bad_lines="error", **options
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Refused(f"cannot read {name} as a table: {error}") from error
    table.columns = [str(i) for i in range(table.shape[1])]
    header = ["" if value != value else str(value).strip() for value in table.iloc[0]]
    if _has_header(header, text, label, known):
        table = table.iloc[1:].set_axis(header, axis=1)
    return table


def _has_header(first: list[str], text: Any, label: Any, known: Known | None) -> bool:
    """Whether the first row is a header: it is if columns are given by name, and is not if given by number.

    If no columns are given, it is a header if it has one of the usual names.
    """
    asked = [each for each in (text, label) if each is not None]
    if not all(isinstance(each, str) for each in asked):
        return False
    names = [name for each in asked for name in re.findall(r"\{([^{}]+)\}", each) or [each]]
    if not names:
        usual = {"label", "text", "sentence"} | ({known.text, known.label} if known else set())
        return bool(usual & {name.lower() for name in first})
    return not all(name.isdecimal() for name in names) or bool(set(names) & set(first))


def json_lines(content: str, name: str) -> pd.DataFrame:
    """The table of a JSON lines file, one object per line; numbers with a decimal point stay as written.

    Raises:
        Refused: a line that is not a JSON object.
    """
    records = []
    for i, line in enumerate(lines_of(content)):
        if not line.strip():
            continue
        record = _parse(line, f"line {i + 1} of {name}")
        if not isinstance(record, dict):
            raise Refused(f"wanted an object in line {i + 1} of {name}, got {line[:40]}")
        records.append(record)
    return pd.DataFrame(records, dtype=object)


def json_list(content: str, name: str) -> pd.DataFrame:
    """The table of a JSON file that is one list of objects.

    Raises:
        Refused: anything else.
    """
    records = _parse(content, name)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise Refused(f"wanted a list of objects in {name}, got {' '.join(content[:60].split())}")
    return pd.DataFrame(records, dtype=object)


def _parse(content: str, where: str) -> Any:
    """JSON as Python objects; Refused if it is not JSON."""
    try:
        return json.loads(content, parse_float=str)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"{where} is not JSON: {error}") from error


def parquet(raw: bytes, name: str) -> pd.DataFrame:
    """The table of a Parquet file.

    Raises:
        ImportError: pandas has no engine for Parquet.
        Refused: a damaged file.
    """
    try:
        return pd.read_parquet(BytesIO(raw))
    except ImportError as error:
        raise ImportError(
            f"{name} is Parquet, for which pandas needs pyarrow: install induction-kernel[datasets], or pass a .csv"
        ) from error
    except (ValueError, OSError) as error:
        raise Refused(
            f"cannot read {name} as Parquet, so it may be damaged: fetch it again ({error})"
        ) from error

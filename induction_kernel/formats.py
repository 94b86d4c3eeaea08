"""What files hold: text in any encoding, JSON, tables as CSV, labelled results as netCDF.

Only contents: where and how they are written says `stores`. What is read and is damaged is refused in a sentence that
names the file. NetCDF is made in memory, since HDF5 ends the process where it cannot write.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
import xarray as xr
from xarray.backends import H5NetCDFStore

from .errors import Refused

__all__ = ["csv_of", "decoded", "lines_of", "netcdf_of", "read_json", "read_netcdf", "text_of"]

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


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        Refused: a file that cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise Refused(f"{path} is damaged: its entries are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} is damaged: {error}") from error


def netcdf_of(data: xr.Dataset | Mapping[str, xr.Dataset]) -> memoryview:
    """A Dataset, or several as groups, as the content of a netCDF file."""
    if not isinstance(data, xr.Dataset):
        return xr.DataTree.from_dict(dict(data)).to_netcdf(engine="h5netcdf")
    buffer = io.BytesIO()
    # With a lock of its own: in a Dask worker xarray would ask the scheduler for one by the buffer's name.
    store = H5NetCDFStore.open(buffer, mode="w", lock=Lock())
    try:
        data.dump_to_store(store)
    finally:
        store.close()
    return buffer.getbuffer()


def read_netcdf(path: Path) -> xr.Dataset:
    """The Dataset in a netCDF file.

    Raises:
        Refused: no such file, or a damaged one.
    """
    try:
        return xr.load_dataset(path, engine="h5netcdf").drop_encoding()
    except MemoryError:
        raise
    except Exception as error:  # whatever h5py raises for a damaged file
        raise Refused(f"{str(path)!r} is damaged: it is no netCDF file ({error})") from error


def csv_of(frame: pd.DataFrame, *, index: bool = False) -> str:
    """A table as CSV in which no text acts as a formula of a spreadsheet.

    Texts that begin with =, +, -, @, a tab or a line break get an apostrophe in front, headings and index too; numbers
    are as they are. Texts that begin with apostrophes before such a sign get one more, so that taking one away,
    `text.str.replace(r"^'(?='*[=+@\\t\\r\\n-])", "", regex=True)`, gives all back.

    Source: OWASP, CSV injection.
    """
    plain = frame.reset_index() if index else frame
    guarded = plain.map(_guarded).rename(columns=_guarded)
    text = guarded.to_csv(index=False)
    # By itself, a carriage return is not quoted, and would end the row.
    return guarded.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC) if "\r" in text else text


def _guarded(value: Any) -> Any:
    formula = isinstance(value, str) and value.lstrip("'").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value

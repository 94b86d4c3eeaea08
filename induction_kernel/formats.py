"""Formats of result files: a Dataset as the bytes of netCDF, a table as CSV; and netCDF, JSON and text files read.

Files are written in `stores`; formats of labelled data sets are recognised in `data/_contents`. NetCDF is made in
memory, since HDF5 ends the process if it cannot write a file. A damaged file is refused by an error that names it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from .errors import Refused

if TYPE_CHECKING:  # the command line reads texts before it imports these
    import pandas as pd
    import xarray as xr

__all__ = ["csv_of", "decoded", "lines_of", "netcdf_of", "read_json", "read_netcdf", "text_of"]

MARKS = {  # byte-order marks, the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def text_of(path: str | Path) -> str:
    """A text file's content with line feeds as line ends, read as UTF-8 or by its byte-order mark, which is removed.

    Raises:
        Refused: a file that cannot be read, or another encoding.
    """
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise Refused(f"cannot read {str(path)!r}: {error}") from error
    return decoded(raw, Path(path).name, "utf-8", remedy="save it as UTF-8").replace("\r\n", "\n")


def decoded(
    raw: bytes, name: str, encoding: str, *, remedy: str = "give encoding=, such as 'latin-1' or 'utf-16-le'"
) -> str:
    """The bytes of a file as text, without a byte-order mark.

    Args:
        raw: the bytes.
        name: of the file, for error messages.
        encoding: used unless there is a byte-order mark.
        remedy: what to do about a wrong encoding, for error messages.

    Raises:
        Refused: another encoding, an encoding that Python does not know, null bytes, an archive.
    """
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
        raise Refused(f"{name} is not text in {codec}, since it holds null bytes: {remedy}")
    return text


def lines_of(text: str) -> list[str]:
    """The lines of a text without their line ends; only line feeds end a line, so texts may hold other separators."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines


def read_json(path: Path) -> Any:
    """The content of a JSON file as Python objects.

    Raises:
        Refused: a file that cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise Refused(f"{path} is damaged: its entries are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} is damaged: {error}") from error


def netcdf_of(data: xr.Dataset | Mapping[str, xr.Dataset]) -> memoryview:
    """The bytes of a netCDF file with one Dataset, or with several by name, as groups."""
    import xarray as xr
    from xarray.backends import H5NetCDFStore

    if not isinstance(data, xr.Dataset):
        return xr.DataTree.from_dict(dict(data)).to_netcdf(engine="h5netcdf")
    buffer = io.BytesIO()
    # With a lock of its own: in a Dask worker, xarray would ask the scheduler for a lock by the buffer's name.
    store = H5NetCDFStore.open(buffer, mode="w", lock=Lock())
    try:
        data.dump_to_store(store)
    finally:
        store.close()
    return buffer.getbuffer()


def read_netcdf(path: Path) -> xr.Dataset:
    """The Dataset of a netCDF file, loaded into memory.

    Raises:
        Refused: no such file, or a damaged one.
    """
    import xarray as xr

    try:
        return xr.load_dataset(path, engine="h5netcdf").drop_encoding()
    except MemoryError:
        raise
    except Exception as error:  # h5py raises many types for damaged files
        raise Refused(f"{str(path)!r} is damaged: it is not a netCDF file ({error})") from error


def csv_of(frame: pd.DataFrame, *, index: bool = False) -> str:
    """A table as CSV text in which no cell is a spreadsheet formula.

    Texts that begin with =, +, -, @, a tab or a line break get an apostrophe in front, also in headings and the index;
    numbers stay as they are. Texts with apostrophes before such a character get one more, so that removing one,
    `text.str.replace(r"^'(?='*[=+@\\t\\r\\n-])", "", regex=True)`, gives back every text.

    Args:
        frame: the table.
        index: whether to write its index too.

    Source: OWASP, CSV injection.
    """
    plain = frame.reset_index() if index else frame
    guarded = plain.map(_guarded).rename(columns=_guarded)
    text = guarded.to_csv(index=False)
    # pandas does not quote a lone carriage return, which would end the row.
    return guarded.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC) if "\r" in text else text


def _guarded(value: Any) -> Any:
    """The value, with an apostrophe in front if a spreadsheet would take it for a formula."""
    formula = isinstance(value, str) and value.lstrip("'").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if formula else value

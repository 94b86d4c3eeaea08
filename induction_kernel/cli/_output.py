"""Output of the commands: tables on the terminal, plain text in a pipe, figures and data in files.

On a terminal tables are drawn with rich; elsewhere they are plain text with every column, for other programs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer
import xarray as xr

from ..fewshot._study import FewShotStudy
from ..formats import csv_of, netcdf_of
from ..heads._choice import head_table
from ..heads._summary import summarise
from ..kernel._held_out import reconstruction_table
from ..pages._frames import by_heads_removed, effects, summaries
from ..pages._writer import report
from ..plots._figure import PICTURES, save_figure
from ..stores import write_whole
from ._checks import check_out

__all__ = [
    "Part",
    "as_text",
    "echo",
    "plain",
    "score_parts",
    "study_writer",
    "write_netcdf",
    "writer",
]

Part = str | pd.DataFrame
FIGURES = (".html", *PICTURES)


def echo(parts: Sequence[Part]) -> None:
    """Print texts and tables, one after the other."""
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        for part in parts:
            console.print(part if isinstance(part, str) else _drawn(part), markup=False)
        return
    typer.echo(plain(parts))


def plain(parts: Sequence[Part]) -> str:
    """Texts and tables as lines, every column of a table in full."""
    return "\n".join(part if isinstance(part, str) else _lines(part) for part in parts)


def _lines(frame: pd.DataFrame) -> str:
    return _shown(frame).to_string(index=_has_names(frame), index_names=False)


def _drawn(frame: pd.DataFrame) -> Any:
    """The table as rich draws it; cells are plain text without markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown, named = _shown(frame), _has_names(frame)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (*([""] if named else []), *shown.columns):
        numeric = column != "" and all(re.fullmatch(r"(-?\d.*)?", cell) for cell in shown[column])
        table.add_column(Text(str(column)), justify="right" if numeric else "left", overflow="fold")
    for name, row in zip(shown.index, shown.to_numpy(), strict=True):
        table.add_row(*(Text(str(cell)) for cell in ([name, *row] if named else row)))
    return table


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells as texts, numbers with three digits after the point; empty columns are left out."""
    return frame.dropna(axis="columns", how="all").map(_cell)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return str(value)


def _has_names(frame: pd.DataFrame) -> bool:
    """Whether the index names the rows."""
    return frame.index.dtype.kind not in "iu"


def writer(out: Path | None) -> Callable[[xr.Dataset, Callable[[xr.Dataset], Any]], None]:
    """A function that writes a result to `out`, in the format of its ending; refuses before anything is measured."""
    check_out(out, figure=True)

    def write(found: xr.Dataset, draw: Callable[[xr.Dataset], Any]) -> None:
        if out is None:
            return
        if out.suffix in FIGURES:
            save_figure(draw(found), out)
        elif out.suffix == ".nc":
            write_whole(out, netcdf_of(found))
        else:
            write_whole(out, csv_of(by_heads_removed(found) if "k" in found.dims else effects(found)))

    return write


def study_writer(out: Path | None) -> Callable[[FewShotStudy], None]:
    """A function that writes a study to `out`: a page, all numbers or the table, by its ending; refuses at once."""
    check_out(out)

    def write(study: FewShotStudy) -> None:
        if out is None:
            return
        if out.suffix == ".html":
            report(study, out)
        elif out.suffix == ".nc":
            write_whole(out, netcdf_of(study.datasets()))
        else:
            write_whole(out, csv_of(reconstruction_table(study.table), index=True))

    return write


def score_parts(results: dict[str, xr.Dataset], top: int) -> list[Part]:
    """The strongest heads of each scorer."""
    parts: list[Part] = []
    for method, scores in results.items():
        frame = head_table(scores, top)
        why = str(summarise(scores)["untested"].item())
        untested = why and "untested" in frame["passes"].values
        title = f"{method}: {scores.attrs['title']}"
        parts += [f"\n{title}" if parts else title, frame, *([f"untested: {why}"] if untested else [])]
    return parts


def as_text(results: dict[str, xr.Dataset], form: str) -> str:
    """Every head of each scorer as "csv" or "json"."""
    frame = summaries(results)
    return csv_of(frame).rstrip("\n") if form == "csv" else str(frame.to_json(orient="records", indent=1))


def write_netcdf(results: dict[str, xr.Dataset], out: Path) -> None:
    """Write the scores of one scorer as a plain file, those of several as a group each."""
    write_whole(out, netcdf_of(next(iter(results.values())) if len(results) == 1 else results))

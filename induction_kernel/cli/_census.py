"""The command `census`: what every head of a model does, as a table, a page or numbers in a file.

Everything but typer is imported when the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._app import app
from ._checks import check_model, check_out
from ._options import Device, Dtype, Model, Top, loaded, said_if_refused


@app.command()
def census(
    model: Model = "tiny",
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="ordinary text, or a file with some")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="also write a page (.html), all numbers (.nc) or a table (.csv)")
    ] = None,
    prompts: Annotated[int, typer.Option(help="prompts of each kind", min=12)] = 32,
    seed: Annotated[int, typer.Option(help="seed of prompts and resamplings", min=0)] = 0,
    top: Top = 20,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Find out what every head does.

    Scores all heads on many behaviours, with chance and control, names those that pass, and shows what they look at in
    ordinary text.

    \b
    Examples:
      induction-kernel census
      induction-kernel census gpt2 --out gpt2-heads.html
      induction-kernel census ./my-model chapter.txt --out heads.nc --top 40
    """

    def run() -> None:
        check_out(out)
        words = None if text is None else _text(text)
        check_model(model, device, dtype)
        from ..head_census._census import census as measured
        from . import _output as output

        asked = loaded(model, device, dtype)
        found = measured(asked, text=words, n_prompts=prompts, seed=seed)
        output.echo(_said(found, top))
        if out is not None:
            _written(found, asked, out)

    said_if_refused(run)


def _text(text: str) -> str:
    from ..formats import text_of
    from ._inputs import is_file

    return text_of(text) if is_file(text, "a text, or a file with some") else text


def _said(found: Any, top: int) -> list[Any]:
    """How many heads have a name, the most particular ones, and what is left out."""
    from ..head_census._tables import table

    tested = found["n_tested"].values > 0
    named = found["behaviour"].values != ""
    counted = (
        f"{int(named.sum())} of {tested.size} heads have a name, {int((tested & ~named).sum())} are unnamed"
    )
    parts: list[Any] = [f"{found.attrs['model']}: {counted}"]
    if named.any():
        parts.append(table(found, top))
    left = str(found.attrs["left_out"])
    return parts + ([f"left out: {left}"] if left else [])


def _written(found: Any, model: Any, out: Path) -> None:
    from ..formats import csv_of, netcdf_of
    from ..head_census._tables import every_head
    from ..pages._writer import report
    from ..stores import write_whole

    if out.suffix == ".html":
        typer.echo(report(found, out, model=model).resolve())
    else:
        write_whole(out, netcdf_of(found) if out.suffix == ".nc" else csv_of(every_head(found)))

"""The typer application that the commands register with."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"induction_kernel {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Find the attention heads behind in-context learning and measure what they do."""

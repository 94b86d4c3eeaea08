"""Options that several commands share, and the handling of refusals.

Only typer is imported here; everything else is imported when a command runs, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OUT_OF_MEMORY, Refused

MODEL_HELP = "tiny (the embedded model), a local Hugging Face folder, a .gguf file, or a name on the hub"
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps; by default the one TransformerLens chooses")
]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="also write a figure (.html, or with the extra export .png, .svg, .pdf), all numbers (.nc) or a table "
        "(.csv)"
    ),
]
Top = Annotated[int, typer.Option(help="rows of a table, at most", min=1)]


class Scorer(StrEnum):
    """The scorers of the command line, by their names in Python."""

    induction = "induction"
    prefix_matching = "prefix_matching"
    previous_token = "previous_token"
    duplicate_token = "duplicate_token"
    first_token = "first_token"
    current_token = "current_token"
    label_attention = "label_attention"
    copying = "copying"
    ov_eigenvalues = "ov_eigenvalues"


class Format(StrEnum):
    """The output formats of `score`."""

    table = "table"
    csv = "csv"
    json = "json"
    netcdf = "netcdf"


class By(StrEnum):
    """The parts of the model that `patch` gives an effect for."""

    layer = "layer"
    head = "layer,head"
    position = "layer,position"
    head_and_position = "layer,head,position"


class EditName(StrEnum):
    """What replaces the output of removed heads."""

    mean = "mean"
    zero = "zero"


class Missing(StrEnum):
    """What is done with rows without a text or a class."""

    refuse = "refuse"
    drop = "drop"


class SpanName(StrEnum):
    """What the weights of demonstrations are pooled over."""

    demonstration = "demonstration"
    words = "words"


class HoldName(StrEnum):
    """What is held fixed while heads are removed."""

    patterns = "patterns"


def said_if_refused(run: Callable[[], None]) -> None:
    """Run a command; turn a refusal into a message and exit status 2. Any other error keeps its traceback."""
    try:
        run()
    except (Refused, ImportError, ConnectionError, PermissionError, MemoryError) as error:
        if isinstance(error, MemoryError) and not str(error).startswith(OUT_OF_MEMORY):
            raise
        typer.echo(f"induction-kernel: {error}", err=True)
        raise typer.Exit(2) from error


def loaded(model: str, device: str | None, dtype: str | None) -> Any:
    """Load the model of these options, which `check_model` has seen."""
    from ..loading._sources import load

    return load(model, device=device, dtype=dtype)

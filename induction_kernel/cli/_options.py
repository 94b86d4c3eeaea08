"""Options that several commands share, and how a refusal is said.

Only typer is imported here; everything else when a command runs, so that `--help` answers at once.
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
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; the default is TransformerLens' choice")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64")]
Out = Annotated[
    Path | None, typer.Option(help="also write a figure (.html), every number (.nc) or a table (.csv)")
]
Top = Annotated[int, typer.Option(help="rows of a table", min=1)]


class Scorer(StrEnum):
    """The scores of the command line, by their names in Python."""

    induction = "induction"
    prefix_matching = "prefix_matching"
    previous_token = "previous_token"
    duplicate_token = "duplicate_token"
    label_attention = "label_attention"
    copying = "copying"
    ov_eigenvalues = "ov_eigenvalues"


class Format(StrEnum):
    """How `score` writes."""

    table = "table"
    csv = "csv"
    json = "json"
    netcdf = "netcdf"


class By(StrEnum):
    """What the effects of `patch` are by."""

    layer = "layer"
    head = "layer,head"
    position = "layer,position"
    head_and_position = "layer,head,position"


class EditName(StrEnum):
    """What stands in the place of removed heads."""

    mean = "mean"
    zero = "zero"


class Missing(StrEnum):
    """What becomes of rows without a text or a class."""

    refuse = "refuse"
    drop = "drop"


class SpanName(StrEnum):
    """What the weights of demonstrations are pooled over."""

    demonstration = "demonstration"
    words = "words"


class HoldName(StrEnum):
    """What is held while heads are removed."""

    patterns = "patterns"


def said_if_refused(run: Callable[[], None]) -> None:
    """What the package refuses is one sentence and exit status 2; anything else is a bug, with its traceback."""
    try:
        run()
    except (Refused, ImportError, ConnectionError, MemoryError) as error:
        if isinstance(error, MemoryError) and not str(error).startswith(OUT_OF_MEMORY):
            raise
        typer.echo(f"induction-kernel: {error}", err=True)
        raise typer.Exit(2) from error


def loaded(model: str, device: str | None, dtype: str | None) -> Any:
    """The model of these options."""
    from ..loading._sources import load

    kwargs: dict[str, Any] = {} if device is None else {"device": device}
    if dtype is not None:
        import torch

        known = ("float32", "bfloat16", "float16", "float64")
        if dtype not in known:
            raise Refused(f"wanted --dtype {', '.join(known)}, got {dtype}")
        kwargs["dtype"] = getattr(torch, dtype)
    return load(model, **kwargs)

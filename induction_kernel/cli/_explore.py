"""The command `explore`: a page with every head's attention on a text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Refused
from ._app import app
from ._checks import check_heads, check_model
from ._options import Device, Dtype, Model, loaded, said_if_refused

CHARACTERS = 24  # of a token, at most: what is read of a file


class PrecisionName(StrEnum):
    """How weights are stored."""

    plain = "plain"
    fine = "fine"


@app.command()
def explore(
    model: Model = "tiny",
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEXT]", help="a text, or a file with one; without it repeated random tokens"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("attention.html"),
    heads: Annotated[
        str | None,
        typer.Option(
            help='heads to store whole, such as "L5H1,L6H9"; all by default. There are pictures of all'
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(help="tokens of the text that are read, at most; the rest is left out", min=1)
    ] = 1024,
    precision: Annotated[
        PrecisionName,
        typer.Option(
            help="plain: weights in steps of 1/255; fine: small weights too, in five times the space"
        ),
    ] = PrecisionName.plain,
    scores: Annotated[
        bool, typer.Option(help="score the heads on repeated random tokens, for the map's colours")
    ] = True,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Write a page to explore the attention of every head.

    The page holds everything it needs and fetches nothing: pictures of all heads, each pattern, the text, the map of
    scores.

    \b
    Examples:
      induction-kernel explore
      induction-kernel explore tiny "fox dax ; apple wug ; fox"
      induction-kernel explore gpt2 chapter.txt --tokens 512 --out chapter.html
      induction-kernel explore ./my-model chapter.txt --heads L5H1,L6H9 --precision fine
    """

    def run() -> None:
        from ..stores import checked_target

        checked_target(out)
        check_heads(heads)
        words = None if text is None else _text(text, tokens)
        check_model(model, device, dtype)
        asked = loaded(model, device, dtype)
        _written(asked, words, out, heads=heads, tokens=tokens, precision=precision.value, scores=scores)

    said_if_refused(run)


def _written(
    model: Any, text: str | None, out: Path, *, heads: str | None, tokens: int, precision: Any, scores: bool
) -> None:
    from ..attention_explorer._explorer import explore
    from ..prompts._repeated import repeated_tokens
    from ..scorers._attention import duplicate_token, induction, previous_token
    from ..scorers._attention_scorer import observe

    repeats = repeated_tokens(model, prompts=16) if scores or text is None else None
    shown = repeats[:2] if text is None and repeats is not None else _tokens(model, text or "", tokens)
    measured = observe(model, repeats, [induction, previous_token, duplicate_token]) if scores else None
    page = explore(model, shown, heads=heads, scores=measured, precision=precision)
    typer.echo(f"{page.n_bytes / 1e6:.1f} MB: {' '.join(page.notes())}")
    page.save(out)
    typer.echo(out.resolve())


def _text(text: str, tokens: int) -> str:
    """The text, or the beginning of the file that it names."""
    from ..formats import text_of
    from ._inputs import is_file

    if not is_file(text, "a text, or a file with one"):
        return text
    whole, most = text_of(text), CHARACTERS * tokens
    return whole if len(whole) <= most else whole[:most].rsplit(None, 1)[0]  # no word is cut


def _tokens(model: Any, text: str, n: int) -> Any:
    """The first n tokens of the text, `[1, position]`."""
    import torch

    from ..prompts._text import encode_whole, start_token

    whole = encode_whole(model, text, start_token(model, None).tolist())
    if len(whole) > n:
        typer.echo(f"note: the first {n} tokens are shown; --tokens takes more", err=True)
    if not whole:
        raise Refused("wanted a text of at least one token")
    return torch.tensor(whole[:n])[None]

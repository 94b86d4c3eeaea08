"""Commands about the heads of a model: report, score, ablate, patch.

Everything but typer is imported when a command runs: `_results` measures, `_output` prints and writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Refused
from ._app import app
from ._checks import check_heads, check_model, check_out
from ._options import (
    MODEL_HELP,
    By,
    Device,
    Dtype,
    EditName,
    Format,
    HoldName,
    Model,
    Out,
    Scorer,
    Top,
    loaded,
    said_if_refused,
)

Scorers = Annotated[
    list[Scorer] | None, typer.Option(help="may be given several times; induction by default")
]
Form = Annotated[
    Format, typer.Option(help="table: the strongest heads; csv, json: every head; netcdf: every prompt")
]
File = Annotated[Path | None, typer.Option(help="a file instead of the terminal; netcdf needs one")]
Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] CLEAN CORRUPTED",
        help="two prompts with the same number of tokens, or two text files with one prompt per line; before them "
        f"the model, unless it is tiny: {MODEL_HELP}",
    ),
]
Answers = Annotated[
    str,
    typer.Option(
        help='right and wrong next token with their leading spaces, " Mary, John"; or a text file, one pair per line'
    ),
]
Site = Annotated[str, typer.Option(help="what is patched: z, q, k, v, pattern, mlp_out, ...")]
Parts = Annotated[By, typer.Option(help="the parts of the model that each get an effect")]
Noising = Annotated[
    bool, typer.Option("--noising", help="patch the corrupted run into the clean one instead")
]


@app.command()
def report(
    model: Model = "tiny",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    heads: Annotated[
        str | None, typer.Option(help='heads to show instead of the strongest ones, such as "L5H1,L6H9"')
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(help="repeated prompts to score on; by default 32, or what the time allows", min=12),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of prompts and resampling", min=0)] = 0,
    minutes: Annotated[
        float, typer.Option(help="time that the page may take: what does not fit is cut or left out")
    ] = 5.0,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Write an HTML page about a model's heads.

    The page holds everything it needs and fetches nothing. What it costs is estimated first; the page says what was
    cut or left out to stay within --minutes (inf for no bound).

    \b
    Examples:
      induction-kernel report
      induction-kernel report gpt2 --out gpt2.html
      induction-kernel report ./my-model --heads L5H1,L6H9 --dtype bfloat16 --minutes 20
    """

    def run() -> None:
        from ..stores import checked_target

        if not minutes > 0:
            raise Refused(f"wanted --minutes above 0, or inf for no bound, got {minutes}")
        checked_target(out)
        check_heads(heads)
        check_model(model, device, dtype)
        from ..pages._writer import report as written

        options: dict[str, Any] = {"n_prompts": prompts, "seed": seed, "minutes": minutes}
        page = written(loaded(model, device, dtype), out, heads=heads, **options)
        for each in page.left_out:
            typer.echo(f"note: {each}", err=True)
        typer.echo(page.resolve())

    said_if_refused(run)


@app.command()
def score(
    model: Model = "tiny",
    scorer: Scorers = None,
    format: Form = Format.table,
    out: File = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Score every head of a model.

    Each scorer makes its own prompts.

    \b
    Examples:
      induction-kernel score
      induction-kernel score gpt2 --scorer induction --scorer copying
      induction-kernel score ./my-model --format csv --out heads.csv
      induction-kernel score tiny --format netcdf --out heads.nc
    """

    def run() -> None:
        from ..stores import checked_target, write_whole

        if format is Format.netcdf and out is None:
            raise Refused("netcdf is a binary format: name a file, such as --out heads.nc")
        if out is not None:
            checked_target(out)
        check_model(model, device, dtype)
        import induction_kernel

        from . import _output as output

        names = dict.fromkeys(name.value for name in scorer or [Scorer.induction])
        found = loaded(model, device, dtype)
        scores = {name: getattr(induction_kernel, name)(found) for name in names}
        if format is Format.netcdf and out is not None:
            output.write_netcdf(scores, out)
            return
        parts = (
            output.score_parts(scores, top)
            if format is Format.table
            else [output.as_text(scores, format.value)]
        )
        if out is None:
            output.echo(parts)
            return
        write_whole(out, output.plain(parts) + "\n")

    said_if_refused(run)


@app.command()
def ablate(
    model: Model = "tiny",
    heads: Annotated[
        str | None, typer.Option(help='heads to remove together, in this order, such as "L1H7,L1H1"')
    ] = None,
    edit: Annotated[
        EditName, typer.Option(help="what replaces a head's output: its mean on the control prompts, or zero")
    ] = EditName.mean,
    prompts: Annotated[int, typer.Option(help="repeated prompts to measure on", min=2)] = 16,
    seed: Annotated[int, typer.Option(help="seed of the prompts and the random heads", min=0)] = 0,
    hold: Annotated[
        HoldName | None, typer.Option(help="hold all attention patterns fixed, so that only values change")
    ] = None,
    out: Out = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Remove heads and measure the loss on a repeat.

    Removes each head in turn; or those of --heads together, compared with random other heads of their layers.

    \b
    Examples:
      induction-kernel ablate
      induction-kernel ablate gpt2 --prompts 4 --out map.html
      induction-kernel ablate tiny --heads L1H7,L1H1
      induction-kernel ablate tiny --hold patterns --out effects.csv
    """

    def run() -> None:
        check_out(out, figure=True)
        check_heads(heads)
        check_model(model, device, dtype)
        from . import _output as output
        from . import _results as results

        write = output.writer(out)
        from ..interventions._edits import Zero
        from ..interventions._edits_from_runs import Mean

        asked = loaded(model, device, dtype)
        options: dict[str, Any] = {
            "edit": Zero() if edit is EditName.zero else Mean(),
            "hold": None if hold is None else hold.value,
        }
        found, text = results.ablated(asked, heads, prompts=prompts, seed=seed, top=top, **options)
        output.echo(text)
        write(found, _effects_drawn if heads is None else _curve_drawn)

    said_if_refused(run)


@app.command()
def patch(
    texts: Texts,
    answers: Answers,
    site: Site = "resid_pre",
    by: Parts = By.position,
    noising: Noising = False,
    out: Out = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Patch a clean run into a corrupted one.

    Shows where the difference between their answers arises: the effect of patching each part of the model.

    \b
    Examples:
      induction-kernel patch "fox dax ; apple wug ; fox" "apple dax ; fox wug ; fox" --answers " dax, wug"
      induction-kernel patch gpt2 clean.txt corrupted.txt --answers answers.txt --out patch.html
      induction-kernel patch gpt2 clean.txt corrupted.txt --answers " Mary, John" --site z --by layer,head
    """

    def run() -> None:
        from . import _inputs as inputs

        if len(texts) not in (2, 3):
            raise Refused(
                f"wanted [MODEL] CLEAN CORRUPTED, got {len(texts)} arguments: put prompts with spaces in quotes"
            )
        check_out(out, figure=True)
        clean, corrupted = (inputs.lines(text) for text in texts[-2:])
        if len(clean) != len(corrupted):
            raise Refused(
                f"wanted a corrupted prompt for each clean one, got {len(clean)} and {len(corrupted)}"
            )
        wanted = inputs.answer_pairs(answers, len(clean))
        model = texts[0] if len(texts) == 3 else "tiny"
        check_model(model, device, dtype)
        from . import _output as output
        from . import _results as results

        write, parts = output.writer(out), by.value.split(",")
        results.check_patched(site, parts)
        found, text = results.patched(
            loaded(model, device, dtype),
            *(clean, corrupted, wanted),
            site=site, by=parts, noising=noising, top=top,
        )  # fmt: skip
        output.echo(text)
        write(found, _effects_drawn)

    said_if_refused(run)


def _effects_drawn(found: Any) -> Any:
    from ..plots._effect_map import effect_map

    return effect_map(found)


def _curve_drawn(found: Any) -> Any:
    from ..plots._ablation_curves import curve_plot

    return curve_plot(found)

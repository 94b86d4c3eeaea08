"""What can be done without writing Python? A command for each question: `induction-kernel --help` lists them.

Only typer is imported here; everything else when a command runs, so that `--help` answers at once. It measures
nothing itself; what the commands print and write is made in `printing`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import OUT_OF_MEMORY, Refused

app: typer.Typer = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

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


def _version(asked: bool) -> None:
    if asked:
        from . import __version__

        typer.echo(f"induction_kernel {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Which attention heads are induction heads, what do they look at, and what is lost without them?"""


@app.command()
def report(
    model: Model = "tiny",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    heads: Annotated[
        str | None, typer.Option(help='heads to show instead of the strongest, like "L5H1,L6H9"')
    ] = None,
    prompts: Annotated[int, typer.Option(help="repeated prompts to score on")] = 32,
    seed: Annotated[int, typer.Option(help="of prompts and resampling")] = 0,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Write one self-contained HTML page about a model's heads.

    \b
    Examples:
      induction-kernel report
      induction-kernel report gpt2 --out gpt2.html
      induction-kernel report ./my-model --heads L5H1,L6H9 --dtype bfloat16
    """

    def run() -> None:
        from .page import write_report

        path = write_report(_loaded(model, device, dtype), out, heads=heads, prompts=prompts, seed=seed)
        typer.echo(path.resolve())

    _sentence_instead_of_traceback(run)


@app.command()
def score(
    model: Model = "tiny",
    scorer: Annotated[
        list[Scorer] | None, typer.Option(help="once or several times; induction by default")
    ] = None,
    format: Annotated[
        Format, typer.Option(help="table: the strongest; csv, json: every head; netcdf: every prompt")
    ] = Format.table,
    out: Annotated[Path | None, typer.Option(help="a file instead of the terminal; netcdf needs one")] = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Score every head, each scorer on its own prompts.

    \b
    Examples:
      induction-kernel score
      induction-kernel score gpt2 --scorer induction --scorer copying
      induction-kernel score ./my-model --format csv --out heads.csv
      induction-kernel score tiny --format netcdf --out heads.nc
    """

    def run() -> None:
        if format is Format.netcdf and out is None:
            raise Refused("netcdf is a binary format: say where to, with --out heads.nc")
        import induction_kernel

        from . import printing
        from .stores import checked_target, write_whole

        if out is not None:
            checked_target(out)
        names = dict.fromkeys(name.value for name in scorer or [Scorer.induction])
        loaded = _loaded(model, device, dtype)
        results = {name: getattr(induction_kernel, name)(loaded) for name in names}
        if format is Format.netcdf and out is not None:
            printing.write_netcdf(results, out)
            return
        text = printing.TEXTS[format.value](results, top)
        if out is None:
            typer.echo(text)
            return
        write_whole(out, text + "\n")

    _sentence_instead_of_traceback(run)


@app.command()
def ablate(
    model: Model = "tiny",
    heads: Annotated[
        str | None, typer.Option(help='heads to remove together, in this order, like "L1H7,L1H1"')
    ] = None,
    edit: Annotated[
        EditName, typer.Option(help="what stands in a head's place: its mean, or 0")
    ] = EditName.mean,
    prompts: Annotated[int, typer.Option(help="repeated prompts to measure on", min=2)] = 16,
    seed: Annotated[int, typer.Option(help="of the prompts and the random heads")] = 0,
    hold: Annotated[
        HoldName | None, typer.Option(help="hold every attention pattern, so that only values move")
    ] = None,
    out: Out = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Remove heads: how much worse are repeated tokens predicted?

    Each head in turn, or those of --heads together, beside random other heads of their layers.

    \b
    Examples:
      induction-kernel ablate
      induction-kernel ablate gpt2 --prompts 4 --out map.html
      induction-kernel ablate tiny --heads L1H7,L1H1
      induction-kernel ablate tiny --hold patterns --out effects.csv
    """

    def run() -> None:
        from . import printing

        write = printing.writer(out)
        from .interventions._edits import Mean, Zero

        loaded = _loaded(model, device, dtype)
        options: dict[str, Any] = {
            "edit": Zero() if edit is EditName.zero else Mean(),
            "hold": None if hold is None else hold.value,
        }
        found, text = printing.ablated(loaded, heads, prompts=prompts, seed=seed, top=top, **options)
        typer.echo(text)
        write(found, _effects_drawn if heads is None else _curve_drawn)

    _sentence_instead_of_traceback(run)


@app.command()
def patch(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] CLEAN CORRUPTED",
            help="two prompts of as many tokens, or two text files with a prompt a line; before them, if it is "
            f"not tiny, the model: {MODEL_HELP}",
        ),
    ],
    answers: Annotated[
        str,
        typer.Option(
            help='right and wrong next token, " Mary, John" with their blanks; or a file, a pair a line'
        ),
    ],
    site: Annotated[
        str, typer.Option(help="what is patched; z, q, k, v, pattern, mlp_out, ...")
    ] = "resid_pre",
    by: Annotated[By, typer.Option(help="what the effects are by")] = By.position,
    noising: Annotated[
        bool, typer.Option("--noising", help="patch the corrupted run into the clean one instead")
    ] = False,
    out: Out = None,
    top: Top = 10,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Patch the clean run into the corrupted one: where does the difference between their answers come in?

    \b
    Examples:
      induction-kernel patch "fox dax ; apple wug ; fox" "apple dax ; fox wug ; fox" --answers " dax, wug"
      induction-kernel patch gpt2 clean.txt corrupted.txt --answers answers.txt --out patch.html
      induction-kernel patch gpt2 clean.txt corrupted.txt --answers " Mary, John" --site z --by layer,head
    """

    def run() -> None:
        from . import printing

        if len(texts) not in (2, 3):
            raise Refused(
                f"wanted [MODEL] CLEAN CORRUPTED, got {len(texts)} arguments: quote a prompt with blanks"
            )
        write = printing.writer(out)
        clean, corrupted = (printing.lines(text) for text in texts[-2:])
        wanted = printing.answer_pairs(answers, len(clean))
        loaded = _loaded(texts[0] if len(texts) == 3 else "tiny", device, dtype)
        found, text = printing.patched(
            loaded, clean, corrupted, wanted, site=site, by=by.value.split(","), noising=noising, top=top
        )
        typer.echo(text)
        write(found, _effects_drawn)

    _sentence_instead_of_traceback(run)


@app.command()
def fewshot(
    model: Model = "tiny",
    data: Annotated[
        str | None,
        typer.Argument(
            help="labelled queries: a file (.tsv, .csv, .jsonl, .parquet, .txt), or a data set's name (sst2, trec, "
            "ag_news, ...); without it, words with made-up labels"
        ),
    ] = None,
    demonstrations: Annotated[
        str | None, typer.Option(help="where demonstrations come from; the rest of DATA by default")
    ] = None,
    shots: Annotated[int, typer.Option(help="demonstrations a prompt", min=1)] = 8,
    queries: Annotated[int, typer.Option(help="queries, drawn from DATA")] = 200,
    template: Annotated[
        str | None, typer.Option(help='of an example, such as "Review: {x}\\nSentiment: {y}"')
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help='label words in the order of the classes, "bad,good"')
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help='column of the texts: its name, or its number from 0; several as in "{Title}: {Text}"'
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="column of the classes, likewise")] = None,
    encoding: Annotated[str | None, typer.Option(help="of files, such as latin-1; utf-8 by default")] = None,
    split: Annotated[
        str | None, typer.Option(help="of a data set's name or a folder, such as train or test")
    ] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="what becomes of rows without a text or a class; by default dropped from data sets known by name, "
            "refused in others"
        ),
    ] = None,
    span: Annotated[
        SpanName,
        typer.Option(help="what attention is pooled over: the words of x and y alone, or the template's too"),
    ] = SpanName.demonstration,
    seed: Annotated[int, typer.Option(help="of everything that is drawn")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="also write a page (.html), every number (.nc) or the table (.csv)")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Is in-context learning kernel regression? The vote of demonstrations, weighted by a head's attention.

    \b
    Examples:
      induction-kernel fewshot
      induction-kernel fewshot tiny --out fewshot.html
      induction-kernel fewshot gpt2 sst2.tsv --demonstrations train.tsv --labels negative,positive
      induction-kernel fewshot ./my-model mails.csv --text "{Subject}: {Mail Text}" --label folder --missing drop
    """

    def run() -> None:
        from . import printing

        write = printing.study_writer(out)
        study, said = printing.studied(
            _loaded(model, device, dtype),
            data,
            demonstrations,
            reading={
                "labels": labels,
                "template": None if template is None else template.replace("\\n", "\n"),
                "text": text,
                "label": label,
                "encoding": encoding,
                "split": split,
                "missing": None if missing is None else missing.value,
            },
            span=span.value,
            shots=shots,
            queries=queries,
            seed=seed,
        )
        typer.echo(said)
        write(study)

    _sentence_instead_of_traceback(run)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="the folder to write model and checkpoints to")],
    text: Annotated[
        list[Path] | None,
        typer.Option(help="a text file to learn, once or several times; without, the synthetic language"),
    ] = None,
    pieces: Annotated[int, typer.Option(help="of texts: byte pairs to learn, 256 for plain bytes")] = 2000,
    seed: Annotated[int, typer.Option(help="of weights and data")] = 0,
    steps: Annotated[int | None, typer.Option(help="optimiser steps; the recipe's own by default")] = None,
    layers: Annotated[int | None, typer.Option(help="1 to 4")] = None,
    heads: Annotated[int | None, typer.Option(help="in a layer")] = None,
    d_model: Annotated[int | None, typer.Option(help="width of the residual stream")] = None,
    d_head: Annotated[int | None, typer.Option(help="width of a head")] = None,
    mlp: Annotated[int | None, typer.Option(help="width of an MLP in every layer; 0 for none")] = None,
    smeared: Annotated[
        bool, typer.Option("--smeared", help="smeared keys (Olsson et al., argument 2)")
    ] = False,
    context: Annotated[int | None, typer.Option(help="tokens in a row")] = None,
    batch_size: Annotated[int | None, typer.Option(help="rows in a batch")] = None,
    checkpoints: Annotated[
        int | None, typer.Option(help="how many to keep, evenly spaced in log steps")
    ] = None,
) -> None:
    """Train a small transformer whose heads can be watched as they form; interrupted, it goes on when called again.

    \b
    Examples:
      induction-kernel train --out runs/seed1 --seed 1
      induction-kernel train --out runs/one --layers 1 --smeared
      induction-kernel train --out runs/book --text book.txt --context 256 --mlp 512 --steps 5000 --checkpoints 40
    """

    def run() -> None:
        from .training._recipe import Recipe, log_spaced
        from .training._trainer import fit

        sizes = {"layers": layers, "heads": heads, "d_head": d_head, "d_model": d_model, "mlp": mlp}
        sizes |= {"context": context, "batch_size": batch_size, "steps": steps}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        recipe = Recipe(name=out.name, smeared=smeared, pieces=pieces if text else None, **given)
        if checkpoints is not None:
            recipe = replace(recipe, checkpoints=log_spaced(recipe.steps, checkpoints))
        fit(recipe, text=text or None, seed=seed, folder=out)
        typer.echo(out.resolve())

    _sentence_instead_of_traceback(run)


@app.command()
def evidence(
    model: Annotated[
        str,
        typer.Argument(
            help=f"a folder that `train` has written, for all of its checkpoints; or {MODEL_HELP}"
        ),
    ] = "tiny",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("evidence.html"),
    text: Annotated[
        Path | None,
        typer.Option(help="a text file to measure in-context learning on, where the model reads no stories"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of all prompts and draws")] = 0,
) -> None:
    """Do induction heads make this model's in-context learning? The six arguments of Olsson et al. 2022.

    \b
    Examples:
      induction-kernel evidence
      induction-kernel evidence runs/book --text book.txt --out book.html
      induction-kernel evidence ./my-model --text book.txt
    """

    def run() -> None:
        from . import printing

        typer.echo(printing.argued(model, text, out, seed=seed))
        typer.echo(out.resolve())

    _sentence_instead_of_traceback(run)


@app.command()
def families(
    out: Annotated[Path, typer.Option(help="the folder for all runs, and curves.nc")],
    seeds: Annotated[int, typer.Option(help="runs of each family", min=1)] = 5,
    workers: Annotated[int, typer.Option(help="runs at once, a process each", min=1)] = 2,
) -> None:
    """Train models of one and two layers, with smeared keys and without: which have a phase change, and when?

    What is in the folder already is kept; interrupted, it goes on when called again.

    \b
    Examples:
      induction-kernel families --out families
      induction-kernel families --out quick --seeds 1
    """

    def run() -> None:
        from . import printing

        typer.echo(printing.raised(out, seeds=seeds, workers=workers))
        typer.echo((out / "curves.nc").resolve())

    _sentence_instead_of_traceback(run)


def _sentence_instead_of_traceback(run: Any) -> None:
    """What the package refuses is one sentence and exit status 2; anything else is a bug, with its traceback."""
    try:
        run()
    except (Refused, ImportError, ConnectionError, MemoryError) as error:
        if isinstance(error, MemoryError) and not str(error).startswith(OUT_OF_MEMORY):
            raise
        typer.echo(f"induction-kernel: {error}", err=True)
        raise typer.Exit(2) from error


def _loaded(model: str, device: str | None, dtype: str | None) -> Any:
    from .loading._sources import load

    kwargs: dict[str, Any] = {} if device is None else {"device": device}
    if dtype is not None:
        import torch

        known = ("float32", "bfloat16", "float16", "float64")
        if dtype not in known:
            raise Refused(f"wanted --dtype {', '.join(known)}, got {dtype}")
        kwargs["dtype"] = getattr(torch, dtype)
    return load(model, **kwargs)


def _effects_drawn(found: Any) -> Any:
    from .plots._effect_map import effect_map

    return effect_map(found)


def _curve_drawn(found: Any) -> Any:
    from .plots._ablation_curves import curve_plot

    return curve_plot(found)

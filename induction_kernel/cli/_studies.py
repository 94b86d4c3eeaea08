"""Commands that study or train models: fewshot, train, evidence, families.

Everything but typer is imported when a command runs. What the commands measure is in `_results`, what they print and
write in `_output`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Refused
from ._app import app
from ._checks import check_model, check_out, check_text_file
from ._options import MODEL_HELP, Device, Dtype, Missing, Model, SpanName, loaded, said_if_refused

Data = Annotated[
    str | None,
    typer.Argument(
        help="labelled queries: a file (.tsv, .csv, .jsonl, .parquet, .txt) or the name of a data set (sst2, trec, "
        "ag_news, ...); without it, words with made-up labels"
    ),
]
Demonstrations = Annotated[
    str | None, typer.Option(help="labelled texts to draw demonstrations from; by default the rest of DATA")
]
Shots = Annotated[int, typer.Option(help="demonstrations in a prompt", min=1)]
Queries = Annotated[int, typer.Option(help="number of queries, drawn from DATA", min=8)]
Template = Annotated[
    str | None, typer.Option(help='template of an example, such as "Review: {x}\\nSentiment: {y}"')
]
Labels = Annotated[
    str | None, typer.Option(help='label words in the order of the classes, such as "bad,good"')
]
Text = Annotated[
    str | None,
    typer.Option(
        help='column of the texts: its name or its number, from 0; several columns as in "{Title}: {Text}"'
    ),
]
Label = Annotated[str | None, typer.Option(help="column of the classes: its name or its number, from 0")]
Encoding = Annotated[
    str | None, typer.Option(help="encoding of the files, such as latin-1; utf-8 by default")
]
Split = Annotated[str | None, typer.Option(help="split of a data set or folder, such as train or test")]
OfMissing = Annotated[
    Missing | None,
    typer.Option(
        help="refuse or drop rows without a text or a class; by default they are dropped from data sets known by "
        "name and refused elsewhere"
    ),
]
Span = Annotated[
    SpanName,
    typer.Option(
        help="the tokens that weights are pooled over: the whole demonstration, or the words of x and y"
    ),
]
Seed = Annotated[int, typer.Option(help="seed of all random draws", min=0)]
StudyOut = Annotated[
    Path | None, typer.Option(help="also write a page (.html), all numbers (.nc) or the table (.csv)")
]


@app.command()
def fewshot(
    model: Model = "tiny",
    data: Data = None,
    demonstrations: Demonstrations = None,
    shots: Shots = 8,
    queries: Queries = 200,
    template: Template = None,
    labels: Labels = None,
    text: Text = None,
    label: Label = None,
    encoding: Encoding = None,
    split: Split = None,
    missing: OfMissing = None,
    span: Span = SpanName.demonstration,
    seed: Seed = 0,
    out: StudyOut = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Compare few-shot answers with a vote.

    Tests in-context learning as kernel regression: every demonstration votes for its label, weighted by the attention
    of a head.

    \b
    Examples:
      induction-kernel fewshot
      induction-kernel fewshot tiny --out fewshot.html
      induction-kernel fewshot gpt2 sst2.tsv --demonstrations train.tsv --labels negative,positive
      induction-kernel fewshot ./my-model mails.csv --text "{Subject}: {Mail Text}" --label folder --missing drop
    """
    reading = {
        "labels": labels,
        "template": None if template is None else template.replace("\\n", "\n"),
        "text": text,
        "label": label,
        "encoding": encoding,
        "split": split,
        "missing": None if missing is None else missing.value,
    }

    def run() -> None:
        check_out(out)
        _check_data(data, demonstrations, reading)
        check_model(model, device, dtype)
        from . import _output as output
        from . import _results as results

        write = output.study_writer(out)
        texts = results.read_labelled(data, demonstrations, reading)
        ways: dict[str, Any] = {"shots": shots, "queries": queries, "seed": seed, "span": span.value}
        study, said = results.studied(loaded(model, device, dtype), texts, **ways)
        output.echo(said)
        write(study)

    said_if_refused(run)


def _check_data(data: str | None, demonstrations: str | None, reading: dict[str, str | None]) -> None:
    """Raise Refused unless the labelled data are there, or nothing is asked that goes with some."""
    if data is None and (demonstrations or any(value is not None for value in reading.values())):
        raise Refused(
            f"wanted DATA too: {', '.join(f'--{key}' for key in ('demonstrations', *reading))} go with labelled data"
        )
    if data is not None:
        from ..data._readers import check_there

        for source in (data, demonstrations):
            if source is not None:
                check_there(source)


TextFiles = Annotated[
    list[Path] | None,
    typer.Option(help="text file to train on, may be given several times; without it, a synthetic language"),
]
Pieces = Annotated[
    int, typer.Option(help="with --text: size of the byte-pair vocabulary, 256 for plain bytes")
]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="folder for the model and its checkpoints")],
    text: TextFiles = None,
    pieces: Pieces = 2000,
    seed: Annotated[int, typer.Option(help="seed of weights and data", min=0)] = 0,
    steps: Annotated[int | None, typer.Option(help="optimiser steps; by default those of the recipe")] = None,
    layers: Annotated[int | None, typer.Option(help="number of layers, 1 to 4")] = None,
    heads: Annotated[int | None, typer.Option(help="heads in each layer")] = None,
    d_model: Annotated[int | None, typer.Option(help="width of the residual stream")] = None,
    d_head: Annotated[int | None, typer.Option(help="width of a head")] = None,
    mlp: Annotated[int | None, typer.Option(help="width of the MLP in each layer; 0 for none")] = None,
    smeared: Annotated[
        bool, typer.Option("--smeared", help="smeared keys: each key is mixed with the one before it")
    ] = False,
    context: Annotated[int | None, typer.Option(help="tokens in a sequence")] = None,
    batch_size: Annotated[int | None, typer.Option(help="sequences in a batch")] = None,
    checkpoints: Annotated[
        int | None, typer.Option(help="number of checkpoints to keep, evenly spaced in log steps")
    ] = None,
) -> None:
    """Train a small transformer with checkpoints.

    An interrupted run continues when the command is called again.

    \b
    Examples:
      induction-kernel train --out runs/seed1 --seed 1
      induction-kernel train --out runs/one --layers 1 --smeared
      induction-kernel train --out runs/book --text book.txt --context 256 --mlp 512 --steps 5000 --checkpoints 40
    """

    def run() -> None:
        for file in text or []:
            check_text_file(file)
        from ..training._recipe import Recipe, log_spaced

        sizes = {"layers": layers, "heads": heads, "d_head": d_head, "d_model": d_model, "mlp": mlp}
        sizes |= {"context": context, "batch_size": batch_size, "steps": steps}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        recipe = Recipe(name=out.name, smeared=smeared, pieces=pieces if text else None, **given)
        if checkpoints is not None:
            recipe = replace(recipe, checkpoints=log_spaced(recipe.steps, checkpoints))
        from ..training._trainer import fit

        fit(recipe, text=text or None, seed=seed, folder=out)
        typer.echo(out.resolve())

    said_if_refused(run)


@app.command()
def evidence(
    model: Annotated[
        str,
        typer.Argument(help=f"a folder that `train` wrote, with all its checkpoints; or {MODEL_HELP}"),
    ] = "tiny",
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("evidence.html"),
    text: Annotated[
        Path | None,
        typer.Option(
            help="text file to measure in-context learning on, for models that do not read the stories"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of all prompts and draws", min=0)] = 0,
) -> None:
    """Test the six arguments of Olsson et al. 2022.

    The arguments say that induction heads are the mechanism of in-context learning. Writes a page with the verdicts.

    \b
    Examples:
      induction-kernel evidence
      induction-kernel evidence runs/book --text book.txt --out book.html
      induction-kernel evidence ./my-model --text book.txt
    """

    def run() -> None:
        if out.suffix != ".html":
            raise Refused(f"wanted --out with the ending .html (it is a page), got {str(out)!r}")
        check_out(out)
        if text is not None:
            check_text_file(text)
        check_model(model)
        from . import _output as output
        from . import _results as results

        output.echo(results.argued(model, text, out, seed=seed))
        typer.echo(out.resolve())

    said_if_refused(run)


@app.command()
def families(
    out: Annotated[Path, typer.Option(help="folder for all runs and curves.nc")],
    seeds: Annotated[int, typer.Option(help="seeds of each family", min=1)] = 5,
    workers: Annotated[int, typer.Option(help="processes, one run in each", min=1)] = 2,
) -> None:
    """Train the families of small models.

    One and two layers, with smeared keys and without; prints which runs have a phase change, and when. Runs that are
    in the folder already are kept; an interrupted command continues when called again.

    \b
    Examples:
      induction-kernel families --out families
      induction-kernel families --out quick --seeds 1
    """

    def run() -> None:
        from . import _output as output
        from . import _results as results

        output.echo(results.raised(out, seeds=seeds, workers=workers))
        typer.echo((out / "curves.nc").resolve())

    said_if_refused(run)

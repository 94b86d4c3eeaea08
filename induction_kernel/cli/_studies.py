"""Commands that study or train: fewshot, train, evidence, families.

Everything but typer is imported when a command runs. What the commands measure is in `_results`, what they
print and write in `_output`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ._app import app
from ._options import MODEL_HELP, Device, Dtype, Missing, Model, SpanName, loaded, said_if_refused


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
    seed: Annotated[int, typer.Option(help="seed of all random draws")] = 0,
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
        from . import _output as output
        from . import _results as results

        write = output.study_writer(out)
        study, said = results.studied(
            loaded(model, device, dtype),
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
        output.echo(said)
        write(study)

    said_if_refused(run)


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
        from ..training._recipe import Recipe, log_spaced
        from ..training._trainer import fit

        sizes = {"layers": layers, "heads": heads, "d_head": d_head, "d_model": d_model, "mlp": mlp}
        sizes |= {"context": context, "batch_size": batch_size, "steps": steps}
        given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
        recipe = Recipe(name=out.name, smeared=smeared, pieces=pieces if text else None, **given)
        if checkpoints is not None:
            recipe = replace(recipe, checkpoints=log_spaced(recipe.steps, checkpoints))
        fit(recipe, text=text or None, seed=seed, folder=out)
        typer.echo(out.resolve())

    said_if_refused(run)


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
        from . import _output as output
        from . import _results as results

        output.echo(results.argued(model, text, out, seed=seed))
        typer.echo(out.resolve())

    said_if_refused(run)


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
        from . import _output as output
        from . import _results as results

        output.echo(results.raised(out, seeds=seeds, workers=workers))
        typer.echo((out / "curves.nc").resolve())

    said_if_refused(run)

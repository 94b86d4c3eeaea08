"""The tables of docs/performance.md, made from benchmarks/results.

Each stands between `<!-- table: NAME -->` and `<!-- end -->`. Run with `python benchmarks/tables.py` after a benchmark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
BETWEEN = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
VIEWS = {
    "ours": "`explore`",
    "circuitsvis": "circuitsvis, `attention_heads`",
    "bertviz": "BertViz, `head_view`",
}
METRICS = {"logit difference": "", "last logits": ", all logits read", "loss": ""}


def main() -> None:
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))


def with_tables(text: str) -> str:
    """The document with every table made anew."""
    return BETWEEN.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def results(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Three digits at least, no more decimals than two."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def spread(found: dict[str, float] | None) -> str:
    """The median, and in brackets the least and the most."""
    if found is None:
        return "-"
    return f"{number(found['median'])} ({number(found['least'])}-{number(found['most'])})"


def made_on(name: str) -> str:
    """The command, and the class of the machine."""
    found = results(name)
    machine = found["machine"]
    return (
        f"`{found['command']}`; {machine['processor']} with {machine['instructions']}, {machine['threads']} thread"
        f"{'s' * (machine['threads'] != 1)}, torch {machine['torch']}.\n"
    )


def swept(row: dict[str, Any]) -> list[str]:
    size = f"{row['prompts']} x {row['length']}"
    more = f"{row['first_over_steady']:.1f} (+{row['first_seconds_more']:.1f} s)"
    return [row["said"], size, row["what"] + METRICS[row["metric"]], spread(row["of_bound"]), more]


def sweeps() -> str:
    ways = ("patching", "mended", "torch hooks", "nnsight")
    header = [
        "model", "prompts", "sweep", "ours over the bound", "first call over later ones", "best possible ratio",
        "`transformer_lens.patching`", "the same, unembedding mended", "torch hooks, last logits",
        "nnsight, 12 cells a trace",
    ]  # fmt: skip
    rows = [
        [*swept(row), number(row["best"]), *(spread(row["ratios"].get(way)) for way in ways)]
        for row in results("sweeps")["rows"]
        if row["ours"] == "package"
    ]
    return table(header, rows) + "\n" + made_on("sweeps")


def best() -> str:
    found = results("sweeps")["best_of_gpt_j_6b"]
    return (
        "The more layers, the less can be saved: on average half of them run again. With the 28 layers of GPT-J-6B and "
        f"4 prompts x 64 tokens, the best possible ratio is {number(found['heads'])} for heads and "
        f"{number(found['residual'])} for the residual stream.\n"
    )


def bridges() -> str:
    header = [
        "Bridge of", "prompts", "sweep", "ours over the bound", "first call over later ones", "TransformerLens",
        "loop of `run_with_hooks`", "`patching` with `PatchingResult`",
    ]  # fmt: skip
    rows = [
        [
            *swept(row),
            row["python"],
            *(spread(row["ratios"].get(way)) for way in ("Bridge hooks", "PatchingResult")),
        ]
        for row in results("sweeps")["rows"]
        if row["ours"] != "package"
    ]
    return table(header, rows)


def scores() -> str:
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for row in results("scorers")["rows"]:
        cases.setdefault(row["way"], {})[row["case"]] = row
    names = list(next(iter(cases.values())))
    header = ["", *(f"{name}: {what}" for name in names for what in ("time", "extra memory"))]
    rows = [
        [way, *(spread(found[name][key]) for name in names for key in ("ratio", "memory_ratio"))]
        for way, found in cases.items()
    ]
    return table(header, rows) + "\n" + made_on("scorers")


def long() -> str:
    rows = [
        [
            row["case"],
            spread(row["ratio"]),
            "-" if row["whole"] is None else f"{row['whole']['megabytes']['median']:,.0f} MB",
            f"{row['rows']['megabytes']['median']:,.0f} MB",
        ]
        for row in results("scorers")["long"]
    ]
    return table(["", "time of whole patterns over rows", "extra memory, whole patterns", "row by row"], rows)


def fewshot() -> str:
    rows = [
        [
            row["case"], row["way"], f"{row['prompts']} x {row['tokens']:.0f}", f"{row['seconds']['median']:.2f} s",
            spread(row["ratio"]), f"{row['megabytes']['median']:,.0f} MB",
        ]
        for row in results("fewshot")["rows"]
    ]  # fmt: skip
    header = ["demonstrations", "way", "prompts x tokens", "time", "over `predict`", "extra memory"]
    return table(header, rows) + "\n" + made_on("fewshot")


def first() -> str:
    rows = [
        [
            row["model"], f"`{row['verb']}`", f"{row['steady']['median']:.2f} s", f"{row['first']['median']:.2f} s",
            number(row["first"]["median"] / row["steady"]["median"]),
        ]
        for row in results("first")["rows"]
    ]  # fmt: skip
    return table(["model", "call", "later calls", "first call", "ratio"], rows) + "\n" + made_on("first")


def views() -> str:
    measures = ("built", "drawn", "usable", "click_ms", "hover_ms", "heap_mb", "process_mb")
    rows = [
        [
            f"{row['heads']} x {row['tokens']:,}", VIEWS[row["way"]],
            "-" if row["bytes"] is None else number(row["bytes"] / 1e6), *(spread(row[key]) for key in measures),
            row["stopped"],
        ]
        for row in results("views")["rows"]
    ]  # fmt: skip
    header = [
        "heads x tokens", "page of", "MB", "seconds to build", "seconds until drawn", "until usable",
        "ms from click to head", "ms from hover to label", "MB of JavaScript", "MB of its process", "stopped",
    ]  # fmt: skip
    return table(header, rows) + "\n" + made_on("views")


def views_bounds() -> str:
    found = results("views")
    runs = found["model_seconds"]
    lengths = ", ".join(f"{int(length):,}" for length in runs)
    return (
        f"What had not finished in {found['seconds']} s, or held more than {found['gigabytes']} GB, was stopped. "
        f"The model's own run on {lengths} tokens takes {', '.join(number(each) for each in runs.values())} s. "
        f"circuitsvis {found['versions']['circuitsvis']}, BertViz {found['versions']['bertviz']}.\n"
    )


def notebooks() -> str:
    rows = []
    for length in (1024, 4096):
        (row,) = results(f"notebook_{length}")["rows"]
        sizes = [number(row[key] / 1e6) for key in ("bare_bytes", "state_bytes")]
        kept = row["notes"].split(" MB")[0].split()[-1]
        rows.append([f"{length:,}", spread(row["click_to_drawn_seconds"]), kept, *sizes])
    header = [
        "tokens", "seconds from click to drawn", "MB that the kernel keeps", "MB of the saved notebook",
        "with its widget's state",
    ]  # fmt: skip
    return table(header, rows) + "\n" + made_on("notebook_1024")


def slope(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")


def growth() -> str:
    rows = [
        [
            row["call"], row["dimension"], f"{row['sizes'][0]:,} to {row['sizes'][-1]:,}", number(row["all"]["work"]),
            *(slope(row[part]["time"]["median"]) for part in ("all", "last")),
            slope(row["last"]["work"]), slope(row["all"]["memory"]["median"]),
        ]
        for row in results("growth")["rows"]
    ]  # fmt: skip
    header = ["call", "in", "sizes", "work", "time", "time, last step", "work, last step", "extra memory"]
    return table(header, rows) + "\n" + made_on("growth")


def gpt_j() -> str:
    found = results("growth")["arithmetic"]
    of = [
        f"{one['seconds']:.0f} s in {one['dtype']} on a GPU with {one['peak'] / 1e12:.0f} TFLOP/s, with "
        f"{one['weights'] / 1e9:.1f} GB of weights, {one['kept'] / 1e9:.1f} GB of kept streams and "
        f"{one['batch'] / 1e9:.1f} GB for a batch"
        for one in found["of"]
    ]
    return (
        f"A sweep of the {found['cells']} heads of GPT-J-6B over {found['tokens']:,} tokens is "
        f"{found['operations']:.2g} operations. At {found['share']:.0%} of the peak, which is assumed, not measured, "
        f"that is {', or '.join(of)}.\n"
    )


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        sweeps,
        best,
        bridges,
        scores,
        long,
        fewshot,
        first,
        growth,
        gpt_j,
        views,
        views_bounds,
        notebooks,
    )
}

if __name__ == "__main__":
    main()

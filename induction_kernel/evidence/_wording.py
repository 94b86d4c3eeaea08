"""Results of arguments in words: sentences about checks, counts of verdicts, rows of tables, for pages and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ._argument import Argument
from ._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE, NOT_DEFINED

__all__ = [
    "check_rows",
    "counted",
    "ends_of",
    "first_check",
    "in_words",
    "millions",
    "percent",
    "window_rows",
]


def check_rows(results: Mapping[str, xr.Dataset]) -> list[list[str]]:
    """A row for each argument: title, verdict, and how many of its checks hold, are contradicted and inconclusive."""
    words = (HOLDS, CONTRADICTED, INCONCLUSIVE)
    return [
        [
            str(each.attrs["title"]),
            str(each.attrs["verdict"]),
            *(str(int((each["verdict"] == word).sum())) if each.sizes["check"] else "" for word in words),
        ]
        for each in results.values()
    ]


def first_check(argument: Argument, result: xr.Dataset) -> str:
    """The check named by `argument.primary`, in words; the first check where none is."""
    names = [str(name) for name in result["check"].values]
    return in_words(
        result.isel(check=next((at for at, name in enumerate(names) if argument.primary in name), 0))
    )


def counted(results: Mapping[str, xr.Dataset]) -> str:
    """How many arguments have which verdict: "2 hold, 1 is contradicted, 3 are inconclusive"."""
    verdicts = [str(each.attrs["verdict"]) for each in results.values()]
    parts = []
    for word in (HOLDS, CONTRADICTED, INCONCLUSIVE, NOT_DEFINED):
        n = verdicts.count(word)
        verb = ("holds" if n == 1 else "hold") if word == HOLDS else f"{'is' if n == 1 else 'are'} {word}"
        parts += [f"{n} {verb}"] if n else []
    return ", ".join(parts)


def window_rows(windows: xr.Dataset) -> list[list[str]]:
    """A row for each run, by `model` and `seed`: start, end and share of the score of its window, with intervals."""
    dims = [dim for dim in ("model", "seed") if dim in windows.dims]
    rows = []
    for _, run in windows.stack(run=dims).groupby("run", squeeze=False) if dims else [(None, windows)]:
        one = run.isel(run=0) if dims else run
        named = [str(one[dim].item()) for dim in dims]
        rows.append([*named, *(ends_of(one) if bool(one["exists"]) else ["no window", "", ""])])
    return rows


def ends_of(one: xr.Dataset) -> list[str]:
    """Start and end of one window in tokens, and share of the score formed in it, each with its interval."""
    starts = [millions(one[f"{key}{end}"]) for key in ("start", "end") for end in ("", "_low", "_high")]
    parts = [percent(one[f"score_share{end}"]) for end in ("", "_low", "_high")]
    return [f"{a} ({b} to {c})" for a, b, c in (starts[:3], starts[3:], parts)]


def millions(tokens: Any) -> str:
    """A number of tokens in millions: "4.38M"."""
    return f"{float(tokens) / 1e6:.2f}M"


def in_words(check: xr.Dataset) -> str:
    """One check in words: value, interval, n, threshold, and the n that a narrower interval would need."""
    value, low, high, threshold = (float(check[key]) for key in ("value", "low", "high", "threshold"))
    n, of, why = int(check["n"]), str(check["of"].item()), str(check["why"].item())
    of = of.removesuffix("s") if n == 1 else of
    over = [f"{_number(low)} to {_number(high)}"] * (low <= high) + [f"{n} {of}"] * (n > 0)
    wanted = f"wanted {'above' if bool(check['above']) else 'below'} {_number(threshold)}"
    between = f" ({', '.join(over)})" if over else ""
    sentence = f"{check['check'].item()} is {_number(value)}{between}, {wanted}"
    if str(check["verdict"].item()) != INCONCLUSIVE:
        return sentence
    return f"{sentence}: {why}" if why else sentence + _needed(check, of)


def _needed(check: xr.Dataset, of: str) -> str:
    """The half-width reached and the n that the stated one would need; empty where the interval is narrow enough."""
    half, stated, n_for = (float(check[key]) for key in ("half_width", "stated", "n_for"))
    if not half > stated:
        return ""
    return f"; the half-width is {_number(half)}, one of {_number(stated)} would need about {n_for:.0f} {of}"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "–"


def percent(value: Any) -> str:
    """A share in whole percent; a dash where it is not finite."""
    return f"{float(value):z.0%}".replace("-", "−") if np.isfinite(float(value)) else "–"

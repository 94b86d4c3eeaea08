"""Sentences and rows about verdicts and windows, for pages and the command line. It computes nothing."""

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
    "millions",
    "percent",
    "said_of",
    "window_rows",
]


def check_rows(results: Mapping[str, xr.Dataset]) -> list[list[str]]:
    """A row for each argument: its title, verdict, and how many of its checks hold, are contradicted and open."""
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
    """The check that the argument speaks of first, in words; its first one where it has none of that name."""
    names = [str(name) for name in result["check"].values]
    return said_of(
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
    """A row for each run, by `model` and `seed`: start, end and share of the score, each with its interval."""
    dims = [dim for dim in ("model", "seed") if dim in windows.dims]
    rows = []
    for _, run in windows.stack(run=dims).groupby("run", squeeze=False) if dims else [(None, windows)]:
        one = run.isel(run=0) if dims else run
        named = [str(one[dim].item()) for dim in dims]
        rows.append([*named, *(ends_of(one) if bool(one["exists"]) else ["no window", "", ""])])
    return rows


def ends_of(one: xr.Dataset) -> list[str]:
    """Start and end of one window in tokens, and the share of the score that forms in it, with intervals."""
    starts = [millions(one[f"{key}{end}"]) for key in ("start", "end") for end in ("", "_low", "_high")]
    parts = [percent(one[f"score_share{end}"]) for end in ("", "_low", "_high")]
    return [f"{a} ({b} to {c})" for a, b, c in (starts[:3], starts[3:], parts)]


def millions(tokens: Any) -> str:
    """ "4.38M"."""
    return f"{float(tokens) / 1e6:.2f}M"


def said_of(check: xr.Dataset) -> str:
    """One check in words: its number, interval, n and threshold, and what a narrower interval would take."""
    value, low, high, threshold = (float(check[key]) for key in ("value", "low", "high", "threshold"))
    n, of, why = int(check["n"]), str(check["of"].item()), str(check["why"].item())
    of = of.removesuffix("s") if n == 1 else of
    over = [f"{_number(low)} to {_number(high)}"] * (low <= high) + [f"{n} {of}"] * (n > 0)
    wanted = f"wanted {'above' if bool(check['above']) else 'below'} {_number(threshold)}"
    between = f" ({', '.join(over)})" if over else ""
    said = f"{check['check'].item()} is {_number(value)}{between}, {wanted}"
    if str(check["verdict"].item()) != INCONCLUSIVE:
        return said
    return f"{said}: {why}" if why else said + _more(check, of)


def _more(check: xr.Dataset, of: str) -> str:
    """The half-width reached, and the n that the stated one would take, where the interval is wider."""
    half, stated, n_for = (float(check[key]) for key in ("half_width", "stated", "n_for"))
    if not half > stated:
        return ""
    return f"; the half-width is {_number(half)}, one of {_number(stated)} would take about {n_for:.0f} {of}"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "–"


def percent(value: Any) -> str:
    """A share in whole percent, a dash for what is not finite."""
    return f"{float(value):z.0%}".replace("-", "−") if np.isfinite(float(value)) else "–"

"""The page of what `six_arguments` found on one model.

Makes the figures and words of `templates/evidence.html.j2` from the result of `six_arguments`: for each argument what
the paper says, the verdict with its checks, the figures behind them, and what it does not show. It measures nothing.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .. import __version__
from ..evidence._argument import Argument, Part, SixArguments, Table
from ..evidence._verdicts import CONTRADICTED, HOLDS, INCONCLUSIVE
from ..evidence._wording import check_rows, counted, first_check, in_words
from ..plots._evidence import evidence_plot
from ..plots._offline import plotly_script
from ..stores import checked_target, write_whole
from ._frames import by_check, of_figure
from ._rendering import Drawn, drawn, rendered

__all__ = ["evidence_page"]

CHECKS = "checks: values with 95% intervals; a whole interval has to lie on the shaded side of its threshold"


def evidence_page(found: SixArguments, path: str | os.PathLike[str]) -> Path:
    """Write the page of the six arguments; see `report`."""
    checked_target(path)
    title = f"Induction heads and in-context learning in {found.model}"
    data = {
        "counted": counted(found.results),
        "sources": sorted({each.source for each in found.arguments if each.source}),
        "rows": check_rows(found.results),
        "arguments": [_said(found, each, found.results[each.name]) for each in found.arguments],
        "made": _made(found),
    }
    return write_whole(path, rendered("evidence.html.j2", title, [plotly_script()], **data))


def _said(found: SixArguments, argument: Argument, result: xr.Dataset) -> dict[str, Any]:
    """What the page says and draws of one argument."""
    plots: list[dict[str, Any]] = []
    said: dict[str, Any] = {"reason": str(result.attrs.get("reason", ""))}
    if result.sizes["check"]:
        words = result["verdict"].values
        of_checks = drawn(evidence_plot(result, title=CHECKS), by_check(result), f"{argument.name}_checks")
        plots = [{"kind": "figure", "value": of_checks}]
        open_ = {
            word: [in_words(result.isel(check=at)) for at in np.flatnonzero(words == word)]
            for word in (CONTRADICTED, INCONCLUSIVE)
        }
        first = first_check(argument, result)
        said = {
            "reason": "",
            "holding": int((words == HOLDS).sum()),
            "n_checks": len(words),
            "first": "" if any(first in each for each in open_.values()) else first,
            "open": [(word, each) for word, each in open_.items() if each],
        }
    parts = list(argument.draw(found, result))
    return said | {
        "name": argument.name,
        "title": argument.title,
        "paper": argument.paper,
        "limits": argument.limits,
        "verdict": str(result.attrs["verdict"]),
        "about": str(result.attrs.get("about", "")),
        "parts": [*plots, *(_part(each, f"{argument.name}_{at}") for at, each in enumerate(parts, 1))],
    }


def _part(part: Part, name: str) -> dict[str, Any]:
    """A paragraph, a table, a figure or several figures, with the kind that the template asks for."""
    if isinstance(part, str | Table):
        return {"kind": "text" if isinstance(part, str) else "table", "value": part}
    if isinstance(part, list):
        plots = [_figure(each, f"{name}_{at}") for at, each in enumerate(part, 1)]
        return {"kind": "figures", "value": plots}
    return {"kind": "figure", "value": _figure(part, name)}


def _figure(figure: go.Figure, name: str) -> Drawn:
    return drawn(figure, of_figure(figure), name)


def _made(found: SixArguments) -> dict[str, Any]:
    """Settings and versions."""
    return {
        "model": found.model,
        "checkpoints": 0 if found.curves is None else found.curves.sizes["checkpoint"],
        "seed": found.seed,
        "version": __version__,
        "source": shlex.quote(found.model),
    }

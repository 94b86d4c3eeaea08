"""The choice of heads for the page about a model: on one half of the prompts; and the rows of their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ..heads._choice import top_heads
from ..heads._names import Head
from ..heads._summary import summarise
from ._filters import interval, number, share
from ._removed import Removed

__all__ = ["Choice", "chosen", "compared", "found_of", "rows_of_heads"]

SHOWN = 8  # rows of the table of heads, at most


@dataclass(frozen=True)
class Choice:
    """The heads that a page shows.

    Attributes:
        given: whether the caller named them.
        shown: the heads of the table.
        order: all heads: those shown first, then the others by their scores.
        passing: the heads that pass the threshold on the prompts that heads are chosen on.
        summary: the summary of these prompts.
        held: the summary of the other prompts.
    """

    given: bool
    shown: list[Head]
    order: list[Head] = field(repr=False)
    passing: list[Head]
    summary: xr.Dataset = field(repr=False)
    held: xr.Dataset = field(repr=False)


def chosen(matching: xr.Dataset, wanted: list[Head], seed: int) -> Choice:
    """Choose the strongest heads on every other prompt, or those wanted."""
    summary, held = (summarise(matching.isel(prompt=slice(at, None, 2)), seed=seed) for at in (0, 1))
    ranked = top_heads(summary, None)
    passing = [head for head in ranked if _at(summary, head)["passes"] == 1]
    shown = wanted or passing[:SHOWN] or ranked[:3]
    order = [*shown, *(head for head in ranked if head not in shown)]
    return Choice(bool(wanted), shown, order, passing, summary, held)


def found_of(choice: Choice, removed: Removed | None) -> dict[str, Any]:
    """How many heads pass, and what is lost without those shown, unless ablations are left out."""
    tested = choice.summary["tested"].values
    return {
        "given": choice.given,
        "shown": [str(head) for head in choice.shown],
        "passing": [str(head) for head in choice.passing],
        "total": tested.size,
        "untested": int((~tested).sum()),
        "why": str(choice.summary["untested"].values),
        "removed": removed is not None,
        **({} if removed is None else _lost(removed)),
    }


def _lost(removed: Removed) -> dict[str, Any]:
    """What is lost without the heads shown, together and alone."""
    joint = removed.joint
    alone = {head: float(each["share"]) for head, each in removed.single.items()}
    costliest = max(alone, key=lambda head: alone[head]) if len(alone) > 1 else None
    return {
        "lost": float(joint["share"]),
        "lost_known": bool(np.isfinite(joint["share"])),
        "costliest": None if costliest is None else {"head": str(costliest), "lost": alone[costliest]},
        "compared": compared(joint),
        "cautions": str(joint.attrs.get("cautions", "")),
    }


def compared(joint: xr.Dataset) -> dict[str, Any] | None:
    """What removing as many random heads costs, at one k of an ablation curve; None where there are no random heads."""
    if "control_share" not in joint:
        return None
    n = int(joint["n_controls"])
    lost, sets = joint["control_share"].values[:n], joint["control_heads"].values[:n].tolist()
    ends = {"low": float(lost.min()), "high": float(lost.max())}
    return {"n": n, "count": len(sets[0].split()), "finite": bool(np.isfinite(lost).all()), **ends}


def rows_of_heads(
    removed: Removed | None, choice: Choice, weights: Sequence[xr.Dataset], direct: xr.Dataset | str
) -> list[list[str]]:
    """The rows of the table of heads: scores on the held-out prompts, and the share of the benefit lost."""
    rows = []
    for head in choice.shown:
        one, of_weights = _at(choice.held, head), [_at(each, head) for each in weights]
        cells = [
            str(head),
            interval(one, "mean", "low", "high"),
            number(one["control"]),
            interval(one, "excess"),
        ]
        if of_weights:
            copies, eigenvalues = of_weights
            cells += [number((copies["score"] - copies["chance"]).mean()), number(eigenvalues["score"])]
        cells += [] if isinstance(direct, str) else [interval(_at(direct, head), "excess")]
        rows.append([*cells, *([] if removed is None else [share(removed.single[head])])])
    return rows


def _at(dataset: xr.Dataset, head: Head) -> xr.Dataset:
    return dataset.sel(layer=head.layer, head=head.head)

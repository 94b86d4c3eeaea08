"""The heads of a page: chosen on one half of the prompts, with their table and what is lost without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ..heads._choice import top_heads
from ..heads._names import Head
from ..heads._summary import summarise
from ._removed import Removed
from ._wording import interval, number, share

__all__ = ["Choice", "chosen", "compared", "found_of", "table_of_heads"]

SHOWN = 8  # rows of the table of heads, at most


@dataclass(frozen=True)
class Choice:
    """Which heads a page is about.

    Attributes:
        given: whether they were asked for.
        shown: the heads of the table.
        order: all heads, those shown first, then by their scores.
        passing: those beyond the threshold on the prompts they were chosen on.
        summary: of these prompts.
        held: the summary of the other prompts.
    """

    given: bool
    shown: list[Head]
    order: list[Head] = field(repr=False)
    passing: list[Head]
    summary: xr.Dataset = field(repr=False)
    held: xr.Dataset = field(repr=False)


def chosen(matching: xr.Dataset, wanted: list[Head], seed: int) -> Choice:
    """The strongest heads on every other prompt, or those wanted."""
    summary, held = (summarise(matching.isel(prompt=slice(at, None, 2)), seed=seed) for at in (0, 1))
    ranked = top_heads(summary, None)
    passing = [head for head in ranked if _at(summary, head)["passes"] == 1]
    shown = wanted or passing[:SHOWN] or ranked[:3]
    order = [*shown, *(head for head in ranked if head not in shown)]
    return Choice(bool(wanted), shown, order, passing, summary, held)


def found_of(choice: Choice, removed: Removed) -> dict[str, Any]:
    """How many heads there are, and what is lost without those shown."""
    tested, joint = choice.summary["tested"].values, removed.joint
    alone = {head: float(each["share"]) for head, each in removed.single.items()}
    dearest = max(alone, key=lambda head: alone[head]) if len(alone) > 1 else None
    return {
        "given": choice.given,
        "shown": [str(head) for head in choice.shown],
        "passing": [str(head) for head in choice.passing],
        "total": tested.size,
        "untested": int((~tested).sum()),
        "why": str(choice.summary["untested"].values),
        "lost": float(joint["share"]),
        "lost_known": bool(np.isfinite(joint["share"])),
        "dearest": None if dearest is None else {"head": str(dearest), "lost": alone[dearest]},
        "compared": compared(joint),
        "cautions": str(joint.attrs.get("cautions", "")),
    }


def compared(joint: xr.Dataset) -> dict[str, Any] | None:
    """What removing as many random heads costs: of one k of an ablation curve; None where there are none."""
    if "control_share" not in joint:
        return None
    n = int(joint["n_controls"])
    lost, sets = joint["control_share"].values[:n], joint["control_heads"].values[:n].tolist()
    ends = {"low": float(lost.min()), "high": float(lost.max())}
    return {"n": n, "count": len(sets[0].split()), "finite": bool(np.isfinite(lost).all()), **ends}


def table_of_heads(
    removed: Removed, choice: Choice, weights: Sequence[xr.Dataset], direct: xr.Dataset | str
) -> dict[str, Any]:
    """Columns, rows and the joint row of the table."""
    columns = ["head", "prefix matching", "control", "excess"]
    columns += ["copying, excess", "OV eigenvalues"] if weights else []
    columns += [] if isinstance(direct, str) else ["direct effect"]
    rows = []
    for head, lost in removed.single.items():
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
        rows.append([*cells, share(lost)])
    last = ["together", *[""] * (len(columns) - 1), share(removed.joint)] if len(rows) > 1 else None
    return {"columns": [*columns, "benefit lost"], "rows": rows, "last": last}


def _at(dataset: xr.Dataset, head: Head) -> xr.Dataset:
    return dataset.sel(layer=head.layer, head=head.head)

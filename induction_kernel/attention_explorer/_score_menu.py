"""Scores of heads as the explorer's menu shows them: every result that has a head summary, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._results import SEVERAL
from ..heads._summary import summarise

__all__ = ["score_menu"]

OF_SUMMARY = (
    "mean", "low", "high", "control", "chance", "excess", "excess_low", "excess_high", "threshold",
)  # fmt: skip
DIGITS = 5


def score_menu(scores: Any, n_layers: int, n_heads: int) -> list[dict[str, Any]]:
    """The scores that were passed, one entry each, for `explorer.js`.

    Args:
        scores: a result that `summarise` takes (also of several scorers), several in a list, or a dict from names to
            results or to arrays `[layer, head]`; None for none.
        n_layers: of the grid of heads.
        n_heads: of the grid of heads.

    Raises:
        TypeError, Refused: what cannot be summarised, or is of another grid of heads.
    """
    found = []
    for name, result in _named(scores):
        if isinstance(result, xr.Dataset):
            found += [_of_summary(*each, n_layers, n_heads) for each in _summaries(name, result)]
        else:
            found.append(_of_array(name, result, n_layers, n_heads))
    return found


def _named(scores: Any) -> list[tuple[str, Any]]:
    if scores is None:
        return []
    if isinstance(scores, xr.Dataset):
        return [("", scores)]
    if isinstance(scores, Mapping):
        return [(str(name), result) for name, result in scores.items()]
    if isinstance(scores, Sequence) and all(isinstance(each, xr.Dataset) for each in scores):
        return [("", each) for each in scores]
    raise TypeError(
        "wanted scores as a result such as induction(model), several in a list, or a dict from names to results or "
        f"arrays [layer, head], got {type(scores).__name__}"
    )


def _summaries(name: str, result: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """A summary for each scorer (or model) of a result, by its name."""
    summary = summarise(result)
    several = next((dim for dim in SEVERAL if dim in summary.dims), None)
    if several is None:
        said = str(summary["scorer"].item()) if "scorer" in summary.coords else "score"
        return [(name or said, summary)]
    before, n = f"{name}, " if name else "", summary.sizes[several]
    titles = str(summary.attrs.get("title", "")).split("; ")
    titles = titles if len(titles) == n else [""] * n
    return [
        (f"{before}{summary[several].values[at]}", summary.isel({several: at}).assign_attrs(title=titles[at]))
        for at in range(n)
    ]


def _of_summary(name: str, summary: xr.Dataset, n_layers: int, n_heads: int) -> dict[str, Any]:
    layers, heads = summary["layer"].values, summary["head"].values
    if layers.max() >= n_layers or heads.max() >= n_heads:
        raise Refused(
            f"{name}: wanted scores of {n_layers} layers of {n_heads} heads, got layers to {layers.max()}, heads to "
            f"{heads.max()}: these are of another model"
        )
    grid = summary.transpose("layer", "head", ...).reindex(layer=range(n_layers), head=range(n_heads))
    entry: dict[str, Any] = {
        "name": name,
        "unit": str(summary.attrs.get("unit", "")),
        "about": _about(summary),
    }
    for key in OF_SUMMARY:
        entry[key] = _rounded(grid[key].values) if key in grid else None
    passes = grid["passes"].values.ravel()
    entry["passes"] = [int(each) if np.isfinite(each) else None for each in passes]
    entry["untested"] = str(summary["untested"].values) if "untested" in summary.coords else ""
    entry["first"] = str(summary.attrs.get("ranked_first", "largest"))
    return entry


def _about(summary: xr.Dataset) -> str:
    """What a score is and what its numbers mean, in sentences."""
    known = summary.attrs
    title = str(known.get("title", "")) or f"result of {known.get('method', 'a measure')}"
    said = [title[0].upper() + title[1:]]
    n = known.get("n_prompts", 0)
    over = f"over {n} prompt{'s' if n > 1 else ''}" if n else ""
    if _known(summary, "low"):
        said.append(
            f"Mean {over} with its {float(known.get('confidence', 0.95)):.0%} interval".replace("  ", " ")
        )
    than = (
        "the control: the same measure on prompts matched in all but what is measured"
        if _known(summary, "control")
        else "chance"
    )
    said.append(f"The excess is over {than}")
    if summary["tested"].values.any():
        level = float(known.get("level", 0.05))
        said.append(
            f"A head passes if its excess is beyond its threshold, at the {level:.0%} level for all heads together"
        )
    return ". ".join(said) + "."


def _known(summary: xr.Dataset, key: str) -> bool:
    return key in summary and bool(np.isfinite(summary[key].values).any())


def _of_array(name: str, values: Any, n_layers: int, n_heads: int) -> dict[str, Any]:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu()
    try:
        grid = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: wanted a result or an array [layer, head], got {type(values).__name__}"
        ) from None
    if grid.shape != (n_layers, n_heads):
        raise Refused(
            f"{name}: wanted an array [layer, head] of {n_layers} x {n_heads}, got {list(grid.shape)}"
        )
    entry: dict[str, Any] = {"name": name, "unit": "", "about": "", **dict.fromkeys(OF_SUMMARY)}
    why = "a plain array has no interval"
    return entry | {
        "mean": _rounded(grid),
        "passes": [None] * grid.size,
        "untested": why,
        "first": "largest",
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    flat = values.astype(float).ravel()
    return [float(f"{each:.{DIGITS}g}") if np.isfinite(each) else None for each in flat]

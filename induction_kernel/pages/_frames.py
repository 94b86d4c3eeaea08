"""The numbers of tables and figures as data frames, for files and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from ..heads._summary import summarise
from ..stats._means import mean_interval

__all__ = [
    "along_prompt",
    "by_check",
    "by_head",
    "by_heads_removed",
    "by_layer",
    "by_position",
    "effects",
    "of_figure",
    "summaries",
]


def summaries(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """A row for each head and scorer, strongest first, from results that `summarise` takes."""
    frames = []
    for name, scores in results.items():
        frame = by_head(scores).drop(columns="scorer", errors="ignore")
        frame.insert(0, "method", name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def by_head(scores: xr.Dataset) -> pd.DataFrame:
    """The summary of every head, strongest first."""
    summary = summarise(scores).drop_dims("row", errors="ignore")  # passages of a census
    return summary.reset_coords("name").to_dataframe().reset_index().sort_values("rank")


def by_layer(result: xr.Dataset) -> pd.DataFrame:
    """The variables of a result by layer."""
    of_layer = [key for key, each in result.data_vars.items() if each.dims == ("layer",)]
    return result[of_layer].to_dataframe().reset_index()


def effects(found: xr.Dataset) -> pd.DataFrame:
    """A row for each cell, the largest effect of either sign first, with 95% intervals over prompts."""
    by = [dim for dim in ("layer", "head", "position") if dim in found["effect"].dims]
    effect = found["effect"].transpose("prompt", *by)
    flat = effect.values.reshape(len(effect), -1)
    low, high = mean_interval(flat)
    cells = xr.Dataset({"effect": effect.mean("prompt")})
    cells = cells.assign(low=(by, low.reshape(effect.shape[1:])), high=(by, high.reshape(effect.shape[1:])))
    if "normalised" in found:
        cells = cells.assign(normalised=found["normalised"])
    if "token" in found.coords:
        cells = cells.assign_coords(
            token=("position", [_tokens(column) for column in found["token"].values.T])
        )
    frame = cells.to_dataframe().reset_index().dropna(subset="effect")
    first = [key for key in ("name", *by, "token", "normalised", "effect", "low", "high") if key in frame]
    return frame[first].iloc[np.argsort(-frame["effect"].abs().to_numpy(), kind="stable")]


def by_heads_removed(curve: xr.Dataset) -> pd.DataFrame:
    """A row for each number of heads removed together, with the effects of random heads."""
    values: dict[str, Any] = {"k": curve["k"].values, "effect": curve["effect"].mean("prompt").values}
    if "control_effect" in curve:
        values["random"] = curve["control_effect"].mean(("prompt", "draw")).values
    values |= {key: curve[key].values for key in ("share", "share_low", "share_high")}
    if "control_share" in curve:
        values["random_sets"] = curve["n_controls"].values
        values["random_share_low"] = curve["control_share"].min("draw").values
        values["random_share_high"] = curve["control_share"].max("draw").values
    return pd.DataFrame(values | {"heads": curve["heads"].values})


def by_position(losses: xr.Dataset) -> pd.DataFrame:
    """The loss of every next token of every prompt, with the start of the second copy."""
    frame = losses[["loss"]].to_dataframe().reset_index().dropna(subset="loss")
    return frame.loc[:, ["prompt", "start", "position", "token", "loss"]]


def along_prompt(attention: xr.Dataset) -> pd.DataFrame:
    """The last token's attention along the parts of a prompt, mean over the heads of each layer."""
    return attention["attention"].mean("head").to_dataframe().reset_index().dropna(subset="attention")


def by_check(result: xr.Dataset) -> pd.DataFrame:
    """A row for each check of an argument: its number, interval, threshold and verdict."""
    of_check = [key for key, each in result.variables.items() if each.dims == ("check",)]
    return result.reset_coords()[of_check].to_dataframe().reset_index()


def of_figure(figure: go.Figure) -> pd.DataFrame:
    """A row for each point or cell of a figure: its trace, x, y and, for heat maps, z."""
    frames, traces = [], tuple[Any, ...](figure.data)
    for trace in traces:
        if trace.type == "heatmap":
            z = np.asarray(trace.z)
            y, x = (np.repeat(of, n) if by == 0 else np.tile(of, n) for by, of, n in _axes(trace, z))
            frames.append(pd.DataFrame({"trace": trace.name or "", "x": x, "y": y, "z": z.ravel()}))
        elif trace.x is not None and trace.y is not None and trace.hoverinfo != "skip":
            points = list(zip(trace.x, trace.y, strict=False))  # plotly draws as many as have both
            frames.append(pd.DataFrame(points, columns=["x", "y"]).assign(trace=trace.name or ""))
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["trace", "x", "y"])
    return found.reindex(columns=["trace", "x", "y", *(["z"] if "z" in found else [])])


def _axes(trace: Any, z: np.ndarray) -> list[tuple[int, np.ndarray, int]]:
    rows, columns = (
        np.arange(n) if of is None or len(of) != n else np.asarray(of)  # else they are edges, or steps
        for of, n in zip((trace.y, trace.x), z.shape, strict=True)
    )
    return [(0, rows, z.shape[1]), (1, columns, z.shape[0])]


def _tokens(column: np.ndarray) -> str:
    """The different tokens at a position; of more than three, the first three."""
    seen = list(dict.fromkeys(repr(str(token))[1:-1] for token in column if str(token)))
    return "/".join([*seen[:3], "…"] if len(seen) > 3 else seen)

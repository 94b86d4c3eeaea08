"""Tables of a census: the most particular heads, every head by behaviour, and two models side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._given import is_whole
from ..errors import Refused
from ..heads._averages import VARIABLES
from ..stats._correlations import correlation

__all__ = ["beside", "check_census", "every_head", "table"]


def check_census(found: Any) -> xr.Dataset:
    """The census; TypeError for anything else."""
    if not isinstance(found, xr.Dataset) or not {"fingerprint", "named", "particular"} <= set(
        found.data_vars
    ):
        raise TypeError(f"wanted what census(model) returned, got {type(found).__name__}")
    return found


def table(found: xr.Dataset, k: int | None = 20) -> pd.DataFrame:
    """The most particular heads of a census, with what makes them so, their other names, and what they look at.

    Heads are ranked on the first half of the prompts and `strength` is measured on the second, so that the order does
    not flatter it. But a head has to be named to be here, on all prompts: strengths little above the least are too
    large, as of all that had to pass a threshold.

    Args:
        found: what `census` returned.
        k: how many rows; None for all heads that have a name.

    Returns:
        Data frame by name of head: `behaviour`, its `strength` in [0, 1] and `mean` with `low` and `high` (over all
        prompts), `heads`, how many heads of the model are named so, `also`, its other names, `sink`, its mean attention
        to the first token, and `query` and `key`, its strongest pair in the text, in brackets with what stands before
        them. Only heads with a name, so it may be empty.

    Raises:
        TypeError: not a census.
        Refused: `k` below 1.
    """
    check_census(found)
    if k is not None and (not is_whole(k) or k < 1):
        raise Refused(f"wanted k >= 1 heads, or None for all, got {k!r}")
    particular = found["particular"].transpose("layer", "head").values
    rows = []
    for at in np.argsort(-np.nan_to_num(particular), axis=None, kind="stable"):
        layer, head = np.unravel_index(at, particular.shape)
        one = found.isel(layer=layer, head=head)
        if str(one["behaviour"].item()):
            rows.append(_row(found, one))
        if k is not None and len(rows) == k:
            break
    columns = [
        "name",
        "behaviour",
        "strength",
        "mean",
        "low",
        "high",
        "heads",
        "also",
        "sink",
        "query",
        "key",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("name").round(3)


def _row(found: xr.Dataset, one: xr.Dataset) -> dict[str, Any]:
    name = str(one["behaviour"].item())
    by = one.sel(scorer=name)
    words = name.replace("_", " ")
    others = [each for each in str(one["fingerprint"].item()).split(", ") if each != words]
    top = one.isel(row=0)
    query, key = (
        str(top[each].item()) if int(top["query"]) >= 0 else "" for each in ("query_text", "key_text")
    )
    return {
        "name": str(one["name"].item()), "behaviour": words, "strength": float(by["second_half"]),
        **{key: float(by[key]) for key in ("mean", "low", "high")},
        "heads": int((found["named"].sel(scorer=name) == 1).sum()), "also": ", ".join(others),
        "sink": float(one["sink"]), "query": query, "key": key,
    }  # fmt: skip


def every_head(found: xr.Dataset) -> pd.DataFrame:
    """A row for each head and behaviour, for files: the summary, `named`, strengths, fingerprint."""
    check_census(found)
    known = [key for key in VARIABLES if key in found] + ["named", "first_half", "second_half"]
    frame = found[[*known, "fingerprint", "particular"]].reset_coords("name")
    frame = frame.drop_vars([key for key in frame.coords if key not in frame.dims])
    first = ["scorer", "name", "layer", "head"]
    rows = frame.to_dataframe(dim_order=["scorer", "layer", "head"]).reset_index()
    return rows.reindex(columns=[*first, *(key for key in rows.columns if key not in first)])


def beside(first: xr.Dataset, second: xr.Dataset) -> pd.DataFrame:
    """Two censuses side by side, one row for each behaviour that both have: two models, or two checkpoints of one.

    Args:
        first: what `census` returned.
        second: another, of the same or another shape.

    Returns:
        Data frame by behaviour: `first` and `second`, how many heads are named after it (NaN if it was not tested);
        `strongest_first` and `strongest_second`, the first rank; and for models of one shape `spearman`, the rank
        correlation of the means over heads, and `in_both`, how many heads are named so in both.

    Raises:
        TypeError: not two censuses.
        Refused: no behaviour in common.
    """
    sides = [check_census(each) for each in (first, second)]
    common = [str(each) for each in first["scorer"].values if each in second["scorer"].values]
    if not common:
        raise Refused("wanted two censuses with behaviours in common, got none")
    same = all(np.array_equal(first[dim], second[dim]) for dim in ("layer", "head"))
    rows = []
    for name in common:
        a, b = (each.sel(scorer=name) for each in sides)
        row: dict[str, Any] = {"behaviour": name.replace("_", " ")}
        for key, each in (("first", a), ("second", b)):
            tested = bool(each["named"].notnull().any())
            row[key] = float((each["named"] == 1).sum()) if tested else np.nan
            at = each["rank"].argmin(["layer", "head"])
            row[f"strongest_{key}"] = str(each["name"].isel(at).item())
        if same:
            row["spearman"] = float(
                correlation(a["mean"].values.ravel(), b["mean"].values.ravel(), "spearman")
            )
            row["in_both"] = int(((a["named"] == 1) & (b["named"] == 1)).sum())
        rows.append(row)
    return pd.DataFrame(rows).set_index("behaviour").round(3)

"""The page of a census: what each head is named after, the most particular heads with what they look at, attention.

It measures nothing: `head_census` makes the numbers. With the model, its attention on ordinary text is in the page. The
text is in `templates/census.html.j2`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import __version__
from ..attention_explorer._explorer import explore
from ..errors import Refused
from ..head_census._census import text_prompts
from ..head_census._tables import check_census, every_head, table
from ..heads._names import as_heads
from ..model._anatomy import Model, describe
from ..plots._census import fingerprint_map
from ..plots._offline import plotly_script
from ..plots._scores import score_plot
from ..stores import checked_target, write_whole
from ._attention import Section, section_of
from ._filters import interval, number, percent
from ._rendering import Drawn, drawn, rendered

__all__ = ["census_page"]

SHOWN = 20  # heads in the table and as cards
SIZES = {
    "sink": "attention on the first token",
    "entropy_share": "entropy, as a share of that of uniform attention",
    "distance": "mean distance in tokens",
    "norm": "norm of the output, relative to the stream",
    "content": "dependence on content",
}
AGAINST = (
    ("prefix_matching", "direct_effect"),
    ("previous_token", "induction"),
)  # behaviours drawn one against the other


def census_page(
    found: xr.Dataset, path: str | os.PathLike[str], *, model: Model | None = None, progress: bool = True
) -> Path:
    """Write the page of a census; see `report`."""
    check_census(found)
    checked_target(path)
    named = str(found.attrs.get("model", ""))
    if model is not None and str(describe(model)["model"]) != named:
        raise Refused(
            f"wanted the model of this census, {named}, got {describe(model)['model']}: pass its own model"
        )
    most = table(found, SHOWN)
    heads = [str(name) for name in most.index]
    section = _attention(model, found, heads, progress) if model is not None else None
    data = {
        **_counts(found),
        "map": drawn(fingerprint_map(found), every_head(found), "census"),
        "heads": heads if section is not None else [],
        "rows": [_row(name, row) for name, row in zip(heads, most.to_dict("records"), strict=True)],
        "behaviours": _behaviours(found),
        "against": _against(found),
        "cards": [_card(found, name) for name in heads],
        "attention": section,
        "made": _made(found),
    }
    title = f"What the heads of {named} do"
    page = rendered("census.html.j2", title, [plotly_script()], explorer=section is not None, **data)
    return write_whole(path, page)


def _counts(found: xr.Dataset) -> dict[str, Any]:
    tested = found["n_tested"].values > 0
    named = found["behaviour"].values != ""
    return {
        "total": tested.size, "n_named": int(named.sum()), "n_unnamed": int((tested & ~named).sum()),
        "n_untested": int((~tested).sum()),
    }  # fmt: skip


def _row(name: str, row: dict[Any, Any]) -> list[str]:
    mean = f"{number(row['mean'])} ({number(row['low'])} to {number(row['high'])})"
    return [
        name,
        row["behaviour"],
        number(row["strength"]),
        mean,
        str(row["heads"]),
        f"{row['query']} <- {row['key']}" if row["key"] else "",
        row["also"],
    ]


def _behaviours(found: xr.Dataset) -> list[list[str]]:
    """A row for each behaviour: what it means, on what it is scored, how many heads have the name, the strongest."""
    rows = []
    for name in found["scorer"].values:
        one = found.sel(scorer=name)
        tested = bool(one["named"].notnull().any())
        first = one.isel(one["rank"].argmin(["layer", "head"]))
        strongest = f"{first['name'].item()}, {interval(first, 'mean', 'low', 'high')}"
        known = str(int((one["named"] == 1).sum())) if tested else "not named"
        said = [str(one[key].item()) for key in ("meaning", "prompts", "source")]
        rows.append([str(name).replace("_", " "), known, strongest, *said])
    return rows


def _against(found: xr.Dataset) -> list[Drawn]:
    there = {str(name) for name in found["scorer"].values}
    figures = []
    for x, y in AGAINST:
        if {x, y} <= there:
            a, b = (found.sel(scorer=name) for name in (x, y))
            both = pd.DataFrame({"head": found["name"].values.ravel()})
            both = both.assign(**{key: each["mean"].values.ravel() for key, each in ((x, a), (y, b))})
            figures.append(drawn(score_plot(a, b), both, f"{y}_against_{x}"))
    return figures


def _card(found: xr.Dataset, name: str) -> dict[str, Any]:
    """All that is known of one head."""
    (head,) = as_heads(name)
    one = found.sel(layer=head.layer, head=head.head)
    values = []
    for each in one["scorer"].values:
        by = one.sel(scorer=each)
        control = by["control"] if np.isfinite(by["control"]) else by["chance"]
        verdict = {1.0: "named", 0.0: "no"}.get(float(by["named"]), "not tested")
        rank = f"{int(by['rank'])} of {found['named'].isel(scorer=0).size}"
        values.append([
            str(each).replace("_", " "), interval(by, "mean", "low", "high"), number(control), rank,
            percent(by["second_half"]), verdict,
        ])  # fmt: skip
    rows = [one.isel(row=at) for at in range(one.sizes["row"])]
    passages = [
        [str(row["query_text"].item()), str(row["key_text"].item()), number(row["weight"])]
        for row in rows
        if int(row["query"]) >= 0
    ]
    sizes = [f"{words} {number(one[key])}" for key, words in SIZES.items() if np.isfinite(one[key])]
    said = str(one["fingerprint"].item())
    return {"name": name, "fingerprint": said, "values": values, "sizes": sizes, "passages": passages}


def _attention(model: Model, found: xr.Dataset, heads: list[str], progress: bool) -> Section:
    """All heads on two prompts of ordinary text, coloured by the behaviours."""
    words, _ = text_prompts(model, None, n_prompts=2, seed=int(found.attrs["seed"]))
    menu = {}
    for name in found["scorer"].values:
        one = found.sel(scorer=name)
        said = {"title": str(one["meaning"].item()), "unit": str(one["unit"].item())}
        menu[str(name).replace("_", " ")] = one.assign_attrs(said)
    shown = explore(model, words[:2], scores=menu, progress=progress)
    return section_of(shown.explored, as_heads(heads or ["L0H0"]))


def _made(found: xr.Dataset) -> dict[str, Any]:
    """Settings and versions."""
    attrs = found.attrs
    return {
        "model": attrs.get("model", ""), "source": shlex.quote(str(attrs.get("model", ""))),
        "n_prompts": attrs.get("n_prompts", 0), "level": float(attrs.get("level", 0.05)),
        "seed": attrs.get("seed", 0), "text": attrs.get("text", ""), "left_out": attrs.get("left_out", ""),
        "own_text": "given" in str(attrs.get("text", "")),
        "version": __version__, "transformer_lens": attrs.get("transformer_lens", ""),
    }  # fmt: skip

"""The explorer as a section of a page: all heads as pictures, and as many patterns whole as the page has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import xarray as xr
from markupsafe import Markup

from ..attention_explorer._contents import Explored
from ..attention_explorer._explorer import Explorer
from ..heads._names import Head
from ._removed import Removed

__all__ = ["Section", "heads_menu", "section_of"]

MOST = 2_000_000  # bytes that the section may take for all patterns to be in it


@dataclass(frozen=True)
class Section:
    """The explorer of a page.

    Attributes:
        html: the explorer; the page needs its style sheet and its module.
        whole: number of heads whose patterns are in it whole.
        heads: number of all heads.
        most: megabytes that it takes at most where all of them are.
    """

    html: Markup
    whole: int
    heads: int
    most: float = MOST / 1e6


def section_of(explored: Explored, heads: Sequence[Head]) -> Section:
    """The explorer with all patterns whole if it takes at most 2 MB, else with those of `heads`; shows the first."""
    n_layers, n_heads = explored.grid
    asked = [head.layer * n_heads + head.head for head in heads]
    explored = replace(explored, whole=tuple(range(n_layers * n_heads)), first=asked[0])
    text = Explorer(explored).fragment()
    if len(text) > MOST:
        explored = replace(explored, whole=tuple(sorted(set(asked))))
        text = Explorer(explored).fragment()
    return Section(Markup(text), len(explored.whole), n_layers * n_heads)


def heads_menu(
    scores: xr.Dataset, maps: Sequence[xr.Dataset], direct: xr.Dataset | str, removed: Removed | None
) -> dict[str, xr.Dataset]:
    """The results of the page that heads can be coloured by, by name; the one that heads are chosen by first."""
    names = ["prefix_matching", "induction", "previous_token", "duplicate_token"]
    menu = {name.replace("_", " "): scores.sel(scorer=name) for name in names}
    menu |= dict(zip(("copying", "OV eigenvalues"), maps, strict=False))
    menu |= {} if isinstance(direct, str) else {"direct effect": direct}
    return menu | ({} if removed is None or removed.every is None else {"effect of ablation": removed.every})

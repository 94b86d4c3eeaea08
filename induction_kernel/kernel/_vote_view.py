"""`vote_view`: a view of one head's vote on some prompts, with the texts of demonstrations and query.

The vote is computed in `_vote_text` and drawn in `plots/_vote_view`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xarray as xr

from ..errors import Refused
from ..heads._names import HeadLike, as_head
from ..plots._vote_view import VoteView, view_of_votes
from ..prompts._prompts import FewShotPrompts
from ._vote_text import quoted_votes

__all__ = ["vote_view"]


def vote_view(
    weights: xr.Dataset,
    prompts: FewShotPrompts,
    predictions: Any = None,
    *,
    head: HeadLike | None = None,
    show: Iterable[int] | int | None = None,
) -> VoteView:
    """Show how the demonstrations vote on some prompts: their texts, shaded by weight, and the labels' shares.

    Each demonstration has the colour of its label, darker for a larger weight relative to the prompt's largest, and a
    number, its share of all weight. Below the query are the shares of the labels, the prediction of the vote, and the
    model's prediction and the right label if they are known.

    Args:
        weights: the Dataset of `demonstration_weights`, `fewshot.predict`, `sum_heads` or `kernel_regression`. If it
            has other dimensions than prompt and demonstration, choose one entry by `head=` or `.sel`.
        prompts: the few-shot prompts of the weights.
        predictions: the model's predicted classes, int `[prompt]`, or the Dataset of `fewshot.predict`; None to show
            none.
        head: whose weights to show, if they are over layer and head: "L5H1", `(5, 1)` or a `Head`.
        show: indices of the prompts to show; None for the first eight.

    Returns:
        A `VoteView`, which a notebook shows as the last value of a cell; `.save(path)` writes it as a page.

    Raises:
        TypeError: not a Dataset, not `Prompts`, predictions that are not whole numbers.
        Refused: weights of several sources or of other prompts, prompts without demonstrations, no such head or prompt.

    Source: Han et al. 2025, section 5.2.
    """
    if head is not None:
        weights = _of_head(weights, head)
    return view_of_votes(quoted_votes(weights, prompts, predictions), prompts=show)


def _of_head(weights: xr.Dataset, head: HeadLike) -> xr.Dataset:
    """The weights of one head; Refused if they are not over heads, or not of that one."""
    if not isinstance(weights, xr.Dataset) or not {"layer", "head"} <= set(weights.dims):
        raise Refused(
            "head= chooses from weights over layer and head: leave it out for weights of one source"
        )
    chosen = as_head(head)
    if chosen.layer not in weights["layer"] or chosen.head not in weights["head"]:
        raise Refused(
            f"wanted one of the heads of these weights, in layers {weights['layer'].values.tolist()}, heads "
            f"{weights['head'].values.tolist()}, got {chosen}"
        )
    return weights.sel(layer=chosen.layer, head=chosen.head)

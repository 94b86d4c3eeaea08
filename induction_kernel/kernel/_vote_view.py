"""`vote_view`: the vote of one head's weights on some prompts, with the texts that are voted on.

It computes the vote (`_vote_text`) and draws it (`plots._vote_view`) in one call.
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
    """Show how the demonstrations vote on some prompts: their texts, shaded by weight, above the labels' shares.

    The darker a demonstration, the larger its weight beside the prompt's largest; its colour is its label's, the
    number its share of all weights. Below the query are the shares of the labels, what the vote predicts, what the
    model predicts and what is right, where these are known.

    Args:
        weights: what `demonstration_weights`, `predict`, `sum_heads` or `kernel_regression` returned; with other
            dimensions than prompt and demonstration, choose by `head=` or `.sel`.
        prompts: the few-shot prompts that they were read on.
        predictions: the model's predicted classes, int `[prompt]`, or what `predict` returned.
        head: whose weights, where there are those of several heads.
        show: which prompts, by index; the first eight by default.

    Returns:
        A `VoteView`: the last line of a cell shows it, `.save(path)` writes a page of it.

    Raises:
        TypeError: no Dataset, no `Prompts`, predictions that are not whole numbers.
        Refused: weights of several sources or of other prompts, prompts without demonstrations, no such head or prompt.

    Source: Han et al. 2025, section 5.2.
    """
    if head is not None:
        weights = _of_head(weights, head)
    return view_of_votes(quoted_votes(weights, prompts, predictions), prompts=show)


def _of_head(weights: xr.Dataset, head: HeadLike) -> xr.Dataset:
    if not isinstance(weights, xr.Dataset) or not {"layer", "head"} <= set(weights.dims):
        raise Refused(
            "head= chooses from weights over layer and head: leave it out for weights of one source"
        )
    n_layers, n_heads = (int(weights[dim].max()) + 1 for dim in ("layer", "head"))
    chosen = as_head(head, n_layers=n_layers, n_heads=n_heads)
    if chosen.layer not in weights["layer"] or chosen.head not in weights["head"]:
        raise Refused(f"these weights have no head {chosen}")
    return weights.sel(layer=chosen.layer, head=chosen.head)

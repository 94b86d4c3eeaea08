"""The vote on each prompt together with the texts of its demonstrations and query, for display.

Weights are those of one head, a sum of heads or an explicit kernel. The vote is computed by `vote` (in
`_reconstruction`), and `vote_view` shows the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import Refused
from ..heads._names import Head
from ..prompts._conversion import few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts, decoded
from ._reconstruction import vote
from ._votes import as_ballots, as_predictions

__all__ = ["quoted_votes", "texts_of"]


def quoted_votes(weights: xr.Dataset, prompts: Prompts, predictions: Any = None) -> xr.Dataset:
    """The vote on each prompt with the texts of its demonstrations and query.

    Args:
        weights: Dataset with `weight[prompt, demonstration]`, of one source: choose it by `.sel(layer=..., head=...)`
            from that of `demonstration_weights`, `fewshot.predict`, `sum_heads` or `kernel_regression`.
        prompts: the few-shot prompts of the weights.
        predictions: the model's predicted classes, int `[prompt]`, or the Dataset of `fewshot.predict`.

    Returns:
        Dataset with `weight[prompt, demonstration]`, `vote[prompt, label]` (shares), `prediction[prompt]` of the vote
        (class, -1 if tied), and `model_prediction[prompt]` if given. Coordinates are `text[prompt, demonstration]` (up
        to the label; "" where a prompt has fewer), `query[prompt]`, `label` (words), `label_class` and `target`.

    Raises:
        TypeError: not a Dataset, not `Prompts`, predictions that are not whole numbers.
        Refused: weights of several sources or of other prompts, prompts without demonstrations.

    Source: Han et al. 2025, section 5.2.
    """
    if not isinstance(prompts, Prompts):
        raise TypeError(f"wanted the Prompts that the weights were read on, got {type(prompts).__name__}")
    prompts = few_shot_only(prompts)
    ballots = as_ballots(weights, prompts, predictions)
    if ballots.dims:
        raise Refused(
            f"wanted the weights of one source, got them over {', '.join(map(str, ballots.dims))}: choose by .sel"
        )
    voted = vote(weights, prompts, predictions)[["vote", "prediction"]]
    texts, queries = texts_of(prompts)
    out = voted.assign(weight=weights["weight"])
    if predictions is not None:
        out = out.assign(model_prediction=("prompt", as_predictions(predictions, ballots)))
    out = out.assign_coords(text=(("prompt", "demonstration"), texts), query=("prompt", queries))
    return out.assign_attrs(weights.attrs | {"method": "quoted_votes", "source": _source(weights)})


def texts_of(prompts: FewShotPrompts) -> tuple[np.ndarray, np.ndarray]:
    """Text of each demonstration up to its label, `[prompt, demonstration]`, and of the query, `[prompt]`.

    Separators between them are left out.
    """
    found = prompts.demonstrations
    texts, queries = np.full(found.mask.shape, "", object), []
    for row, ids in enumerate(prompts.tokens.tolist()):
        end = between = 0
        for slot in found.mask[row].nonzero()[:, 0].tolist():
            before, (begin, end) = end, found.spans[row, slot].tolist()
            between = begin - before if before else 0
            texts[row, slot] = decoded(
                prompts.tokenizer, ids[begin : int(found.label_positions[row, slot])]
            ).strip()
        queries.append(decoded(prompts.tokenizer, ids[end + between : int(prompts.lengths[row])]).strip())
    return texts.astype(str), np.array(queries)


def _source(weights: xr.Dataset) -> str:
    """The name of the weights' source, by the coordinates that were selected: "L5H1", a layer, a kernel, a control."""
    known = {
        key: weights[key].item() for key in ("layer", "head", "kernel", "control") if key in weights.coords
    }
    if {"layer", "head"} <= known.keys():
        return str(Head(int(known.pop("layer")), int(known.pop("head"))))
    if "layer" in known:
        return f"the heads of layer {known['layer']} together"
    return ", ".join(map(str, known.values())) or "these weights"

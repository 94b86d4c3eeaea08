"""From one head's queries and keys to its attention scores: rotation, scale, soft cap, checked against the pattern.

The pattern of the run says which of the known forms holds: log attention less the score has to be the same for every
key a query can see. It also shows which keys these are, in a layer with a sliding window too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import NotDefined
from ..heads._names import Head
from ..model._anatomy import Model, is_bridge, sizes
from ..model._self_check import loose
from ..replay._rotary import rotary_of, rotary_of_bridge
from ._qk_parts import Run

__all__ = ["Scores", "scores_of", "turned_by"]

Turn = Callable[[Tensor], Tensor]
READABLE = 1e-30
"""Attention below this is not compared: it may have been rounded, in float32."""


class Scores(NamedTuple):
    """One head's attention scores in one run.

    Attributes:
        products: `[prompt, query, key]`: q.k / scale, before any soft cap.
        visible: the keys that each query can attend to.
        scale: what q.k is divided by.
    """

    products: Tensor
    visible: Tensor
    scale: float


def turned_by(model: Model, layer: int, length: int) -> Turn:
    """The rotation of `[prompt, position, ..., d_head]` by its positions; none without rotary positions.

    Raises:
        NotDefined: rotary positions whose angles the model does not show.
    """
    if getattr(model.cfg, "positional_embedding_type", None) != "rotary":
        return lambda rows: rows
    try:
        table = (
            rotary_of_bridge(model, layer, length)
            if is_bridge(model)
            else rotary_of(model.blocks[layer].attn, length)
        )
    except AttributeError as error:
        raise NotDefined(
            "this model's rotary angles cannot be read, so what components add to a score is unknown: use a "
            "HookedTransformer, or composition, which compares the weights"
        ) from error
    table = table._replace(cos=table.cos.detach().cpu().double(), sin=table.sin.detach().cpu().double())

    def turn(rows: Tensor) -> Tensor:
        flat = rows.reshape(*rows.shape[:2], -1, rows.shape[-1])
        return table.rotated(flat, torch.arange(length)).view(rows.shape)

    return turn


def scores_of(model: Model, head: Head, run: Run, turn: Turn, lengths: Tensor, *, causal: bool) -> Scores:
    """The scores that gave the run's pattern.

    Raises:
        NotDefined: attention that is not a softmax of q.k over any known scale.
    """
    query, key = turn(run.whole).unbind(2)
    raw = torch.einsum("pqd,pkd->pqk", query, key)
    place = torch.arange(raw.shape[-1])
    allowed = (place < lengths[:, None])[:, None] & (place < lengths[:, None])[:, :, None]
    allowed = allowed & (place <= place[:, None]) if causal else allowed
    alibi = getattr(model.cfg, "positional_embedding_type", None) == "alibi"
    for scale in _scales(model, head.layer):
        visible = _seen(
            _capped(model, head.layer, raw / scale), run.pattern, allowed, loose(model), linear=alibi
        )
        if visible is not None:
            return Scores(raw / scale, visible, scale)
    raise NotDefined(
        f"the attention of {head} is not a softmax of the products of its queries and keys (other position biases, or "
        "a hook on the model), so they do not say why it looks there: path_patch tests what they cause"
    )


def _scales(model: Model, layer: int) -> Iterator[float]:
    """What q.k may be divided by: as the attention module says, or by the two conventions."""
    attention: Any = model.blocks[layer].attn
    inner: Any = getattr(attention, "original_component", None)
    given = getattr(attention, "attn_scale", None) if inner is None else None
    if given is not None:
        yield float(given)
    if inner is not None and isinstance(getattr(inner, "scaling", None), float):
        yield 1 / inner.scaling
    root = math.sqrt(sizes(model).d_head)
    yield from (root, root * (layer + 1), 1.0)


def _capped(model: Model, layer: int, scores: Tensor) -> Tensor:
    """Scores after the model's soft cap (Gemma 2), where it has one."""
    inner: Any = getattr(model.blocks[layer].attn, "original_component", None)
    given = getattr(model.cfg, "attn_scores_soft_cap", None) or getattr(inner, "attn_logit_softcapping", None)
    return given * (scores / given).tanh() if given is not None and given > 0 else scores


def _seen(
    scores: Float[Tensor, "prompt query key"],
    pattern: Float[Tensor, "prompt query key"],
    allowed: Bool[Tensor, "prompt query key"],
    within: float,
    *,
    linear: bool,
) -> Bool[Tensor, "prompt query key"] | None:
    """The keys that each query can attend to, if these are the scores behind the pattern; else None.

    Args:
        scores: up to a constant for each query.
        pattern: the run's own.
        allowed: no key of padding, or after the query.
        within: tolerance, relative to the largest score.
        linear: whether the scores may lack a slope over the keys (ALiBi).
    """
    seen = allowed & (pattern > READABLE)
    logs = torch.where(seen, pattern, 1.0).log()
    count = seen.sum(-1, keepdim=True).clamp(min=1)
    mean = ((logs - scores) * seen).sum(-1, keepdim=True) / count
    apart = (logs - scores - mean) * seen
    if linear:
        place = torch.arange(scores.shape[-1], dtype=scores.dtype).expand_as(scores)
        away = (place - (place * seen).sum(-1, keepdim=True) / count) * seen
        slope = (apart * away).sum(-1, keepdim=True) / away.square().sum(-1, keepdim=True).clamp(min=0.1)
        apart = apart - slope * away
    largest = (scores * allowed).abs().max()
    if not bool(apart.abs().max() <= within * (1 + largest)):
        return None
    return allowed & (seen | (pattern > 0) | (scores + mean < math.log(READABLE)))

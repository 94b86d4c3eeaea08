"""Label attention: the weight that each head gives every demonstration, from the last token's attention.

Han et al. 2025, section 5.2: the weight of demonstration i is the last token's attention to the tokens of [x_i, y_i],
pooled. The paper does not say whether the template's words around and between these count, and a head's vote depends on
it: `span` offers both. `kernel` computes the vote with these weights, and its controls.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..model._runs import batches, progress_bar
from ..prompts._conversion import few_shot_only
from ..prompts._demonstrations import Demonstrations
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on, sets_coordinate
from ..prompts._word_task import word_episodes
from ..replay._lane_record import Way
from ._attention_scorer import AttentionScorer
from ._pattern_entries import Entries, Reads, check_sound, cost_of, read_entries, way_to_read
from ._streaming import averaged, chosen_layers

__all__ = ["LabelAttention", "demonstration_weights", "label_attention"]

POOLINGS = ("label", "max", "sum", "mean")
SPANS = ("demonstration", "words")


def demonstration_weights(
    model: Model,
    prompts: Any = None,
    *,
    pooling: str = "max",
    span: str = "demonstration",
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The weight that every head's last-token attention gives each demonstration.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts; None for `word_episodes(model)`.
        pooling: over the tokens of [x_i, y_i]: "max" (the paper's), "sum" or "mean"; or "label", only the
            label's first token.
        span: which tokens are pooled over: "demonstration", from the template's first word to the end of the label; or
            "words", those of x_i and y_i only (including tokens that also hold letters of the template).
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `weight[prompt, layer, head, demonstration]` (probability, in [0, 1]; NaN where a prompt
        has fewer demonstrations), coordinates `label_class[prompt, demonstration]` (-1 there) and
        `target[prompt]`.

    Raises:
        Refused: an unknown pooling or span, prompts without demonstrations or, for "words", without the positions of x;
            attention that is not finite.

    Source: Han et al. 2025, section 5.2.
    """
    ready = label_attention.ready(model, prompts)
    found, wanted, size = ready.demonstrations, chosen_layers(model, layers), sizes(model)
    check_pooling(pooling)
    check_span(span, ready)
    way = way_to_read(model, ready, wanted)
    weight = _weights(model, ready, wanted, pooling, span, way, batch_size, progress)
    return xr.Dataset(
        {"weight": (("prompt", "layer", "head", "demonstration"), weight)},
        coords={
            "layer": wanted,
            "head": np.arange(size.n_heads),
            "label_class": (("prompt", "demonstration"), torch.where(found.mask, found.classes, -1).numpy()),
            "target": ("prompt", found.target.numpy()),
            **sets_coordinate(ready),
        },
        attrs={
            "method": "demonstration_weights",
            "pooling": pooling,
            "span": span,
            "unit": "probability",
            **way.attrs,
            **measured_on(model, ready),
        },
    )


def _weights(
    model: Model, ready: FewShotPrompts, layers: list[int], pooling: str, span: str, way: Way,
    batch_size: int | None, progress: bool,
) -> np.ndarray:  # fmt: skip
    """The weights `[prompt, layer, head, demonstration]`, batch by batch."""
    length, n_demonstrations = ready.tokens.shape[1], ready.demonstrations.mask.shape[1]
    weight = np.full((len(ready), len(layers), sizes(model).n_heads, n_demonstrations), np.nan)
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost_of(model, way.name, length))
    broken = set[int]()
    with progress_bar(len(ready), progress=progress, unit="prompt") as bar:
        for rows in parts:
            batch = ready[rows]

            def read(
                layer: int, values: Tensor, sound: bool, rows: slice = rows, batch: FewShotPrompts = batch
            ) -> None:
                if not sound:
                    broken.add(layer)
                of_batch = pooled(values, batch, pooling, span).transpose(1, 2)
                weight[rows, layers.index(layer)] = of_batch.numpy()
                bar.update(len(batch) / len(layers))

            read_entries(model, batch, entries_of(batch, pooling, span), layers, read, lane=way.name)
    check_sound(broken)
    return weight


def pooled(
    values: Float[Tensor, "entry head"], prompts: FewShotPrompts, pooling: str, span: str = "demonstration"
) -> Float[Tensor, "prompt demonstration head"]:
    """Weights `[prompt, demonstration, head]` of the values at `entries_of`; NaN where there is no demonstration."""
    found = prompts.demonstrations
    prompt, slot, _ = tokens_of(found, pooling, span, prompts.tokens.shape[1]).nonzero(as_tuple=True)
    out = torch.full((*found.mask.shape, values.shape[1]), torch.nan, dtype=values.dtype)
    out[found.mask] = 0.0
    flat = out.view(-1, values.shape[1])
    reduce = {"max": "amax", "mean": "mean"}.get(pooling, "sum")
    index = (prompt * found.mask.shape[1] + slot)[:, None].expand_as(values)
    flat.scatter_reduce_(0, index, values, reduce, include_self=False)
    return out


def entries_of(prompts: FewShotPrompts, pooling: str, span: str = "demonstration") -> Entries:
    """The entries that are pooled: the last token's row at the keys of `tokens_of`."""
    inside = tokens_of(prompts.demonstrations, pooling, span, prompts.tokens.shape[1])
    prompt, _, key = inside.nonzero(as_tuple=True)
    return Entries(prompt, (prompts.lengths - 1)[prompt], key)


def tokens_of(
    found: Demonstrations, pooling: str, span: str, length: int
) -> Bool[Tensor, "prompt demonstration position"]:
    """Which tokens of each demonstration are pooled."""
    position = torch.arange(length)
    begin, end = found.spans[..., :1], found.spans[..., 1:]
    if pooling == "label":
        inside = position == found.label_positions[..., None]
    elif span == "words":
        inputs = _inputs(found)
        of_x = (position >= inputs[..., :1]) & (position < inputs[..., 1:])
        inside = of_x | ((position >= found.label_positions[..., None]) & (position < end))
    else:
        inside = (position >= begin) & (position < end)
    return inside & found.mask[..., None]


def check_pooling(pooling: str) -> None:
    """Refused for an unknown pooling."""
    if pooling not in POOLINGS:
        raise Refused(f"wanted pooling in {list(POOLINGS)}, got {pooling!r}")


def check_span(span: str, prompts: FewShotPrompts | None = None) -> None:
    """Refused for an unknown span, or prompts that do not say where their words are."""
    if span not in SPANS:
        raise Refused(f"wanted span in {list(SPANS)}, got {span!r}")
    if span == "words" and prompts is not None:
        _inputs(prompts.demonstrations)


def _inputs(found: Demonstrations) -> Tensor:
    """Where the words of x are, `[prompt, demonstration, 2]`; Refused if the prompts do not say."""
    if found.inputs is None:
        raise Refused(
            'wanted prompts that say where x is, for span="words", got demonstrations whose `inputs` are None: make '
            'them with few_shot_prompts, or use span="demonstration"'
        )
    return found.inputs


@dataclass(frozen=True, repr=False)
class LabelAttention(AttentionScorer):
    """Last-token attention to demonstrations, pooled; `right` is the part on those of the query's own class."""

    pooling: str = "label"
    span: str = "demonstration"
    tested: bool = False

    def __call__(
        self, model: Model, prompts: Any = None, *, pooling: str | None = None, span: str | None = None, **options: Any
    ) -> xr.Dataset:  # fmt: skip
        """Score every head.

        Args:
            model: any TransformerLens model.
            prompts: few-shot prompts; None for `word_episodes(model)`.
            pooling: over the tokens of each demonstration: "label", only its label's first token; "max", "sum" or
                "mean" of all of them. None for the scorer's own, "label".
            span: which tokens "max", "sum" and "mean" pool: "demonstration", from the template's first word to the end
                of the label; or "words", without the template's. None for the scorer's own, "demonstration".
            options: `layers`, `batch_size` and `progress`, as of `induction`.

        Returns:
            Dataset with `score[prompt, layer, head]` in [0, 1] and `chance[prompt]`, as of `induction`. Where the right
            class is known, also `right`, the part of the score on labels of that class, and `right_control`, its mean
            when labels are permuted over the demonstrations: `score` times the share of demonstrations of that class.
            The score has no null (a random head may prefer some tokens): heads are tested on
            `summarise(..., variable="right")`.

        Raises:
            Refused: an unknown pooling or span, prompts without demonstrations; what every scorer refuses.
        """
        given = {"pooling": pooling, "span": span}
        chosen = replace(self, **{key: value for key, value in given.items() if value is not None})
        check_pooling(chosen.pooling)
        check_span(chosen.span)
        found = AttentionScorer.__call__(chosen, model, prompts, **options)
        return found.assign_attrs(pooling=chosen.pooling, span=chosen.span)

    def ready(self, model: Model, prompts: Any) -> FewShotPrompts:
        """The few-shot prompts to score on: the user's, or the scorer's own."""
        return few_shot_only(AttentionScorer.ready(self, model, prompts))

    def entries(self, prompts: Prompts, *, causal: bool = True) -> Entries:
        """Prompt, query and key index of every entry; the last token sees the whole prompt, `causal` or not."""
        return entries_of(few_shot_only(prompts), self.pooling, self.span)

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The entries read of these prompts' patterns, and the variables computed from them."""
        ready = few_shot_only(prompts)
        found = ready.demonstrations
        same = found.mask & (found.classes == found.target[:, None])
        unknown = (found.target < 0)[:, None]

        def score(values: Tensor) -> Tensor:
            return pooled(values, ready, self.pooling, self.span).nansum(1).double()

        def right(values: Tensor) -> Tensor:
            weights = pooled(values, ready, self.pooling, self.span).masked_fill(~same[..., None], 0.0)
            return weights.nansum(1).double().masked_fill(unknown, torch.nan)

        def permuted(values: Tensor) -> Tensor:
            share = (same.double().sum(1) / found.mask.sum(1))[:, None]
            return (score(values) * share).masked_fill(unknown, torch.nan)

        made = {"score": score}
        if not bool(unknown.all()):
            made |= {"right": right, "right_control": permuted}
        return Reads(self.entries(ready), made)

    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor:
        """`[prompt]`: the score of uniform attention over the prompt."""
        found = few_shot_only(prompts).demonstrations
        inside = tokens_of(found, self.pooling, self.span, prompts.tokens.shape[1])
        prompt, slot, _ = inside.nonzero(as_tuple=True)
        if self.pooling in ("max", "mean"):  # counts one entry per demonstration
            prompt, _ = torch.stack([prompt, slot]).unique(dim=1)
        weight = 1.0 / prompts.lengths.double()
        return averaged(torch.ones(len(prompt), 1), prompt, weight, len(prompts))[:, 0]


def _no_mask(tokens: Tensor, lengths: Tensor) -> Tensor:
    raise AssertionError("label attention reads entries, not a mask of tokens")


label_attention: LabelAttention = LabelAttention(
    "label_attention",
    _no_mask,
    prompts=word_episodes,
    matched=False,
    title="last-token attention to the labels of the demonstrations",
    paper="Han et al. 2025, section 5.2; Wang et al. 2023",
)
"""Label attention: the last token's attention to the demonstrations' labels. `help(label_attention)` says the rest."""

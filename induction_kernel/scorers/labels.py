"""Which heads read the labels of the demonstrations? The weights a_i of attention as kernel regression.

Han et al. 2025, section 5.2: the weight of demonstration i is pooled from the last token's attention over the
tokens of [x_i, y_i]. The vote these weights make, and its controls, are the kernel room's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..model import Model, batches, describe, progress_bar, sizes
from ..prompts import Demonstrations, Prompts, word_episodes
from .masked import AttentionScorer
from .reading import Entries, Reads, check_sound, cost_of, read_entries, way_to_read
from .streaming import averaged, chosen_layers

__all__ = ["LabelAttention", "demonstration_weights", "label_attention"]

POOLINGS = ("label", "max", "sum", "mean")


def demonstration_weights(
    model: Model,
    prompts: Any = None,
    *,
    pooling: str = "max",
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """The weight that every head's last-token attention gives each demonstration.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts; None for `word_episodes(model)`.
        pooling: over the tokens of [x_i, y_i]: "max" (the paper's), "sum" or "mean"; or "label", the label's
            first token alone.
        layers: only these.
        batch_size: prompts a forward pass; None to fit the memory.
        progress: a bar where it takes longer than two seconds.

    Returns:
        Dataset with `weight[prompt, layer, head, demonstration]` (probability, in [0, 1]; NaN where a prompt
        has fewer demonstrations), coordinates `label_class[prompt, demonstration]` (-1 there) and
        `target[prompt]`.

    Raises:
        ValueError: an unknown pooling, prompts without demonstrations, attention that is not finite.

    Source: Han et al. 2025, section 5.2.
    """
    ready = label_attention.ready(model, prompts)
    found, wanted, size = demonstrations_of(ready), chosen_layers(model, layers), sizes(model)
    _check_pooling(pooling)
    weight = np.full((len(ready), len(wanted), size.n_heads, found.mask.shape[1]), np.nan)
    length, lane = ready.tokens.shape[1], way_to_read(model, ready, wanted)
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost_of(model, lane, length))
    broken = set[int]()
    with progress_bar(len(parts) * len(wanted), progress=progress) as bar:
        for rows in parts:
            batch = ready[rows]

            def read(
                layer: int, values: Tensor, sound: bool, rows: slice = rows, batch: Prompts = batch
            ) -> None:
                if not sound:
                    broken.add(layer)
                weight[rows, wanted.index(layer)] = pooled(values, batch, pooling).transpose(1, 2).numpy()
                bar.update()

            read_entries(model, batch, entries_of(batch, pooling), wanted, read, lane=lane)
    check_sound(broken)
    return xr.Dataset(
        {"weight": (("prompt", "layer", "head", "demonstration"), weight)},
        coords={
            "layer": wanted,
            "head": np.arange(size.n_heads),
            "label_class": (("prompt", "demonstration"), torch.where(found.mask, found.classes, -1).numpy()),
            "target": ("prompt", found.target.numpy()),
        },
        attrs={
            "method": "demonstration_weights",
            "pooling": pooling,
            "unit": "probability",
            "lane": lane,
            **describe(model),
        },
    )


def demonstrations_of(prompts: Prompts) -> Demonstrations:
    """The prompts' demonstrations; ValueError where there are none."""
    if prompts.demonstrations is None:
        raise ValueError(
            "wanted prompts with demonstrations: make them with few_shot(model, ...) or word_episodes(model)"
        )
    return prompts.demonstrations


def pooled(
    values: Float[Tensor, "entry head"], prompts: Prompts, pooling: str
) -> Float[Tensor, "prompt demonstration head"]:
    """Weights `[prompt, demonstration, head]` of the values at `entries_of`; NaN where there is no demonstration."""
    found = demonstrations_of(prompts)
    prompt, slot, _ = _tokens_of(found, pooling, prompts.tokens.shape[1])
    out = torch.full((*found.mask.shape, values.shape[1]), torch.nan, dtype=values.dtype)
    out[found.mask] = 0.0
    flat = out.view(-1, values.shape[1])
    reduce = {"max": "amax", "mean": "mean"}.get(pooling, "sum")
    index = (prompt * found.mask.shape[1] + slot)[:, None].expand_as(values)
    flat.scatter_reduce_(0, index, values, reduce, include_self=False)
    return out


def entries_of(prompts: Prompts, pooling: str) -> Entries:
    """The last token's attention to what is pooled."""
    prompt, _, key = _tokens_of(demonstrations_of(prompts), pooling, prompts.tokens.shape[1])
    return Entries(prompt, (prompts.lengths - 1)[prompt], key)


def _tokens_of(found: Demonstrations, pooling: str, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt, demonstration and key index `[entry]` of the tokens that are pooled."""
    position = torch.arange(length)
    if pooling == "label":
        inside = position == found.label_positions[..., None]
    else:
        inside = (position >= found.spans[..., :1]) & (position < found.spans[..., 1:])
    prompt, slot, key = (inside & found.mask[..., None]).nonzero(as_tuple=True)
    return prompt, slot, key


def _check_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f"wanted pooling in {list(POOLINGS)}, got {pooling!r}")


@dataclass(frozen=True, repr=False)
class LabelAttention(AttentionScorer):
    """Last-token attention to demonstrations, pooled; `right` has that to those of the query's own class."""

    pooling: str = "label"
    tested: bool = False

    def __call__(
        self, model: Model, prompts: Any = None, *, pooling: str | None = None, **options: Any
    ) -> xr.Dataset:
        """Score every head; `pooling` as in `demonstration_weights`, other options as every scorer."""
        if pooling is None:
            return super().__call__(model, prompts, **options)
        _check_pooling(pooling)
        return replace(self, pooling=pooling)(model, prompts, **options)

    def entries(self, prompts: Prompts, *, causal: bool = True) -> Entries:
        """Prompt, query and key index `[entry]` of all that is read; the last token sees all, `causal` or not."""
        return entries_of(prompts, self.pooling)

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """What is read of the patterns of these prompts, and the variables made of it."""
        found = demonstrations_of(prompts)

        def score(values: Tensor) -> Tensor:
            return pooled(values, prompts, self.pooling).nansum(1).double()

        same = found.mask & (found.classes == found.target[:, None])

        unknown = (found.target < 0)[:, None]

        def right(values: Tensor) -> Tensor:
            weights = pooled(values, prompts, self.pooling).masked_fill(~same[..., None], 0.0)
            return weights.nansum(1).double().masked_fill(unknown, torch.nan)

        def permuted(values: Tensor) -> Tensor:
            share = (same.sum(1) / found.mask.sum(1))[:, None].double()
            return (score(values) * share).masked_fill(unknown, torch.nan)

        made = {"score": score}
        if not bool(unknown.all()):
            made |= {"right": right, "right_control": permuted}
        return Reads(self.entries(prompts), made)

    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor:
        """`[prompt]`: the score of uniform attention over the prompt."""
        found = demonstrations_of(prompts)
        prompt, slot, _ = _tokens_of(found, self.pooling, prompts.tokens.shape[1])
        if self.pooling in ("max", "mean"):  # one entry's worth for each demonstration
            prompt, _ = torch.stack([prompt, slot]).unique(dim=1)
        return averaged(torch.ones(len(prompt), 1), prompt, 1.0 / prompts.lengths.double(), len(prompts))[
            :, 0
        ]


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
"""Label attention: the last token's attention to the demonstrations' labels.

In [0, 1]; chance is uniform attention. `pooling="max" | "sum" | "mean"` pools each demonstration's own tokens instead.
`right` has the part on labels of the right class, and `right_control` what that is on average with the labels permuted
over the demonstrations: `score` times the share of demonstrations of that class. The mass alone has no null (a random
head may prefer some tokens), so heads are tested on `summarise(..., variable="right")`. Han et al. 2025, section 5.
"""

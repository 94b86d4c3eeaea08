"""Losses by position, and the in-context-learning score: loss late in the context minus loss early in it.

Source: Olsson et al. 2022, argument 1. Means over positions are the metrics in `_standard`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import is_whole
from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..model._outputs import check_next_token, n_outputs
from ..model._runs import batches, run
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ._metric import Metric, read_off, reading_of
from ._standard import mean_loss, repeat_loss
from ._targets import has_next, next_tokens

__all__ = ["icl_score", "loss_by_position", "loss_dataset", "losses_in", "token_losses"]


def loss_by_position(model: Model, prompts: Any = None, *, batch_size: int | None = None) -> xr.Dataset:
    """The loss of every next token, by position.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; None for repeated tokens.
        batch_size: prompts per forward pass; None to fit the memory.

    Returns:
        Dataset with `loss[prompt, position]` in nats, where position i predicts token i + 1 (NaN at the last
        token and in padding); coordinates `token[prompt, position]` (text), `start[prompt]` (where the second
        copy begins, -1 if nothing repeats).

    Raises:
        Refused: prompts that the model cannot run.
        NotDefined: a model whose outputs are not its tokens, or that attends to next tokens.

    Source: Olsson et al. 2022, argument 1.
    """
    check_next_token(model, "loss_by_position")
    ready = repeat_loss.ready(model, prompts)
    return loss_dataset(model, ready, token_losses(model, ready, batch_size=batch_size))


def loss_dataset(model: Model, ready: Prompts, losses: Tensor) -> xr.Dataset:
    """The result of `loss_by_position`, from `token_losses`."""
    strings = [row + [""] * (ready.tokens.shape[1] - len(row)) for row in ready.strings(model)]
    start = ready.starts() if ready.control is not None else torch.full((len(ready),), -1)
    return xr.Dataset(
        {"loss": (("prompt", "position"), losses.numpy())},
        coords={
            "position": np.arange(ready.tokens.shape[1]),
            "token": (("prompt", "position"), np.array(strings)),
            "start": ("prompt", start.numpy()),
        },
        attrs={"method": "loss_by_position", "unit": "nats", **measured_on(model, ready)},
    )


def token_losses(model: Model, prompts: Prompts, *, batch_size: int | None = None) -> Tensor:
    """The loss of every next token `[prompt, position]` in nats; NaN at a prompt's last token and in padding.

    Args:
        model: any TransformerLens model.
        prompts: the prompts, as Prompts.
        batch_size: prompts per forward pass; None to fit the memory.

    Raises:
        NotDefined: a model whose outputs are not its tokens, or that attends to next tokens.
    """
    check_next_token(model, "loss")
    losses = []
    for rows in batches(
        len(prompts), prompts.tokens.shape[1], batch_size=batch_size, cost=sizes(model).d_vocab
    ):
        batch = prompts[rows]
        losses.append(losses_in(model, run(model, batch.tokens, lengths=batch.lengths), batch))
    return torch.cat(losses)


def losses_in(model: Model, logits: Tensor, prompts: Prompts) -> Tensor:
    """The loss of every next token `[prompt, position]`, as in `token_losses`, from the prompts' logits."""
    wanted = reading_of(Metric("loss", "nats", mean_loss, targets=next_tokens), prompts, n_outputs(model))
    logs = read_off(logits.cpu(), wanted)[..., 0]
    return (-logs).masked_fill(~has_next(prompts), torch.nan)


def icl_score(
    model: Model,
    prompts: Any,
    *,
    early: int | None = None,
    late: int | None = None,
    width: int = 1,
    batch_size: int | None = None,
) -> xr.Dataset:
    """In-context-learning score: loss late in the context minus loss early in it; negative is better.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes, with enough tokens.
        early: position i, whose loss is that of predicting token i + 1; None for 50.
        late: likewise; None for 500, which needs 502 tokens.
        width: number of positions averaged around each; at least 20 is advised, since single positions are noisy.
        batch_size: prompts per forward pass; None to fit the memory.

    Returns:
        Dataset with `value[prompt]` in nats, and `single[prompt]`, the same at width 1.

    Raises:
        Refused: prompts that are too short (pass early and late), early not before late.
        NotDefined: a model whose outputs are not its tokens, or that attends to next tokens.

    Source: Olsson et al. 2022 ("in-context learning score"); sign as there.
    """
    check_next_token(model, "icl_score")
    ready = as_prompts(model, prompts)
    shortest = int(ready.lengths.min())
    first, last = 50 if early is None else early, 500 if late is None else late
    if not all(map(is_whole, (first, last, width))) or not 0 <= first < last or width < 1:
        raise Refused(
            f"wanted whole numbers 0 <= early < late and width >= 1, got early={early}, late={late}, width={width}"
        )
    if first - width // 2 < 0 or last - width // 2 + width > shortest - 1:
        raise Refused(
            f"the shortest prompt has {shortest} tokens: positions {first} and {last} with width {width} do not fit; "
            f"pass longer prompts, or early= and late=, such as early={shortest // 8}, late={shortest - 2 - width}"
        )
    loss = loss_by_position(model, ready, batch_size=batch_size)["loss"].values

    def band(centre: int, width: int) -> np.ndarray:
        return loss[:, centre - width // 2 : centre - width // 2 + width].mean(1)

    values = {"value": band(last, width) - band(first, width), "single": band(last, 1) - band(first, 1)}
    return xr.Dataset(
        {key: ("prompt", value) for key, value in values.items()},
        attrs={
            "method": "icl_score", "unit": "nats", "early": first, "late": last, "width": width,
            "convention": "loss[:, i] predicts token i + 1; late minus early", **measured_on(model, ready),
        },
    )  # fmt: skip

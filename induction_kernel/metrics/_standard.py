"""The metrics: loss, loss of a repeat, label accuracy, logit difference, probability of an answer, KL to a clean run.

Losses are in nats, computed in float32 or better. Convention everywhere: `loss[:, i]` is the loss of predicting token
i + 1 from tokens 0..i.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision
from ..prompts._prompts import FewShotPrompts, Prompts
from ..prompts._repeated import repeated_tokens
from ..prompts._word_task import word_episodes
from ._metric import Metric
from ._targets import (
    first_copy,
    has_next,
    label_words,
    last_token,
    next_tokens,
    right_and_wrong,
    right_answer,
    second_copy,
)

__all__ = ["kl_to", "label_accuracy", "logit_difference", "loss", "mean_loss", "probability", "repeat_loss"]


def mean_loss(found: Tensor, _: Prompts) -> Tensor:
    """`[prompt]`, of log-probabilities `found [prompt, read, 1]`."""
    return -found[..., 0].nanmean(1)


def _is_right_label(found: Tensor, prompts: Prompts) -> Tensor:
    assert isinstance(prompts, FewShotPrompts)  # `label_words` looked
    return (found[:, 0].argmax(-1) == prompts.demonstrations.target).float()


def _difference(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0] - found[:, 0, 1]


def _as_probability(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0].exp()


def _repeats(model: Model) -> Prompts:
    return repeated_tokens(model)


repeat_loss: Metric = Metric(
    "repeat_loss", "nats", mean_loss, second_copy, next_tokens, prompts=_repeats,
    without=Metric("first_copy_loss", "nats", mean_loss, first_copy, next_tokens), of="next",
)  # fmt: skip
"""Mean loss of predicting the second and later copies, but for the first token of copy two.

Nothing predicts that one.
`without` is the mean loss within the first copy. In nats, 0 or more.
"""

loss: Metric = Metric("loss", "nats", mean_loss, has_next, next_tokens, of="next")
"""Mean loss of predicting every token but a prompt's first. In nats, 0 or more."""

label_accuracy: Metric = Metric(
    "label_accuracy",
    "share",
    _is_right_label,
    last_token,
    label_words,
    normalised=False,
    prompts=word_episodes,
    of="labels",
)
"""Whether the query's label has the largest logit among the labels' first tokens: 0 or 1. Chance: 1 / labels."""

logit_difference: Metric = Metric(
    "logit_difference", "logits", _difference, last_token, right_and_wrong, normalised=False
)
"""Logit of the right answer minus that of the wrong one at the last token (Zhang & Nanda 2023); see `pairs`."""

probability: Metric = Metric(
    "probability", "probability", _as_probability, last_token, right_answer, of="labels"
)
"""Probability of the right answer (of the query's label, in few-shot prompts) at the last token: 0 to 1."""


def kl_to(clean: Tensor) -> Metric:
    """How far the next-token distribution at the last token is from that of a clean run: KL(clean || run).

    Args:
        clean: logits `[prompt, vocab]` at the last token, or `[prompt, position, vocab]` of a whole run, one
            prompt for each of the prompts measured.

    Returns:
        A metric in nats: 0 where both agree.

    Raises:
        TypeError: not a tensor. Refused: another shape, or numbers that are not finite.

    Source: Zhang & Nanda 2023, section 2 (metrics).
    """
    if not isinstance(clean, Tensor) or not clean.is_floating_point():
        raise TypeError(f"wanted the logits of a clean run, e.g. model(tokens), got {type(clean).__name__}")
    if clean.ndim not in (2, 3):
        raise Refused(f"wanted logits [prompt, vocab] or [prompt, position, vocab], got {list(clean.shape)}")
    if not bool(clean.isfinite().all()):
        raise Refused("the clean logits are not finite: look for NaN or infinite weights in the model")
    clean = clean.detach().cpu()
    measure = partial(_divergence, full_precision(clean).log_softmax(-1))
    return Metric("kl_to", "nats", measure, last_token, part=partial(_kl_to_some, clean))


def _divergence(kept: Tensor, found: Tensor, prompts: Prompts) -> Tensor:
    """KL of what is found at the last token from log-probabilities `[prompt, vocab]` or `[prompt, position, vocab]`."""
    if len(kept) != len(prompts):
        raise Refused(f"wanted one row of clean logits a prompt, got {len(kept)} for {len(prompts)} prompts")
    if kept.shape[-1] != found.shape[-1] or (kept.ndim == 3 and kept.shape[1] < int(prompts.lengths.max())):
        raise Refused(
            f"clean logits {list(kept.shape)} are not of these prompts: wanted {found.shape[-1]} words, and every "
            "prompt's last token"
        )
    given = kept if kept.ndim == 2 else kept[torch.arange(len(kept)), prompts.lengths - 1]
    logs = full_precision(found[:, 0]).log_softmax(-1)
    return (given.exp() * (given - logs)).sum(-1)


def _kl_to_some(clean: Tensor, rows: slice) -> Metric:
    return kl_to(clean[rows])

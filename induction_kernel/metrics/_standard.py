"""The metrics: loss, loss of a repeat, label accuracy, logit difference, probability of an answer, KL to a clean run.

Losses are in nats, computed in float32 or better; the loss at position i is that of predicting token i + 1 from tokens
0 to i. `Metric` itself is in `_metric`, losses by position are in `_by_position`.
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
    """Mean loss `[prompt]` of log-probabilities `found [prompt, read, 1]`."""
    return -found[..., 0].nanmean(1)


def _is_right_label(found: Tensor, prompts: Prompts) -> Tensor:
    assert isinstance(prompts, FewShotPrompts)  # checked in `label_words`
    return (found[:, 0].argmax(-1) == prompts.demonstrations.target).float()


def _difference(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0] - found[:, 0, 1]


def _as_probability(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0].exp()


def _repeats(model: Model) -> Prompts:
    return repeated_tokens(model)


repeat_loss: Metric = Metric(
    "repeat_loss", "nats", mean_loss, second_copy, next_tokens, prompts=_repeats, better="low",
    without=Metric("first_copy_loss", "nats", mean_loss, first_copy, next_tokens), of="next",
    title="Mean loss on the second and later copies of repeated tokens, in nats: 0 or more",
)  # fmt: skip
"""Mean loss on the second and later copies of repeated tokens, in nats: 0 or more.

Without the first token of copy two, which nothing predicts. `without` is the mean loss on the first copy.
"""

loss: Metric = Metric(
    "loss", "nats", mean_loss, has_next, next_tokens, better="low", of="next",
    title="Mean loss of predicting every token but a prompt's first, in nats: 0 or more",
)  # fmt: skip
"""Mean loss of predicting every token but a prompt's first, in nats: 0 or more."""

label_accuracy: Metric = Metric(
    "label_accuracy",
    "share",
    _is_right_label,
    last_token,
    label_words,
    normalised=False,
    prompts=word_episodes,
    better="high",
    of="labels",
    title="Whether the query's label has the largest logit among the labels' first tokens: 0 or 1",
)
"""Whether the query's label has the largest logit among the labels' first tokens: 0 or 1.

For few-shot prompts. Chance is 1 / number of labels.
"""

logit_difference: Metric = Metric(
    "logit_difference", "logits", _difference, last_token, right_and_wrong, normalised=False, better="high",
    title="Logit of the right answer minus that of the wrong one at the last token (Zhang & Nanda 2023)",
)  # fmt: skip
"""Logit of the right answer minus that of the wrong one at the last token (Zhang & Nanda 2023).

For prompts with answers: see `pairs` and `with_answers`.
"""

probability: Metric = Metric(
    "probability", "probability", _as_probability, last_token, right_answer, better="high", of="labels",
    title="Probability of the right answer, or of the query's label in few-shot prompts, at the last token: 0 to 1",
)  # fmt: skip
"""Probability of the right answer, or of the query's label in few-shot prompts, at the last token: 0 to 1."""


def kl_to(clean: Tensor) -> Metric:
    """A metric: KL divergence at the last token from the next-token distribution of a clean run, KL(clean || run).

    Use it as `ik.sweep(model, prompts, metric=ik.kl_to(model(prompts.tokens)))`, or call
    `ik.kl_to(clean)(model, prompts)`.

    Args:
        clean: logits `[prompt, vocab]` at the last token, or `[prompt, position, vocab]` of a whole run, for each of
            the prompts that are measured.

    Returns:
        A `Metric` in nats: 0 or more, 0 if both distributions are equal.

    Raises:
        TypeError: not a floating-point tensor.
        Refused: another shape, numbers that are not finite; when it is used, logits of other prompts.

    Source: Zhang & Nanda 2023, section 2 (metrics).
    """
    if not isinstance(clean, Tensor) or not clean.is_floating_point():
        got = clean.dtype if isinstance(clean, Tensor) else type(clean).__name__
        raise TypeError(f"wanted the logits of a clean run, e.g. model(tokens), got {got}")
    if clean.ndim not in (2, 3):
        raise Refused(f"wanted logits [prompt, vocab] or [prompt, position, vocab], got {list(clean.shape)}")
    if not bool(clean.isfinite().all()):
        raise Refused("the clean logits are not finite: look for NaN or infinite weights in the model")
    clean = clean.detach().cpu()
    measure = partial(_divergence, full_precision(clean).log_softmax(-1))
    title = "KL divergence of the next-token distribution at the last token from a clean run's, in nats: 0 or more"
    part = partial(_kl_to_some, clean)
    return Metric("kl_to", "nats", measure, last_token, part=part, better="low", title=title)


def _divergence(kept: Tensor, found: Tensor, prompts: Prompts) -> Tensor:
    """KL of the logits `found` from clean log-probabilities `[prompt, vocab]` or `[prompt, position, vocab]`."""
    if len(kept) != len(prompts):
        raise Refused(f"wanted clean logits of each prompt, got {len(kept)} for {len(prompts)} prompts")
    if kept.shape[-1] != found.shape[-1] or (kept.ndim == 3 and kept.shape[1] < int(prompts.lengths.max())):
        raise Refused(
            f"wanted clean logits of these prompts, {found.shape[-1]} tokens at every prompt's last position, got "
            f"{list(kept.shape)}"
        )
    given = kept if kept.ndim == 2 else kept[torch.arange(len(kept)), prompts.lengths - 1]
    logs = full_precision(found[:, 0]).log_softmax(-1)
    return (given.exp() * (given - logs)).sum(-1)


def _kl_to_some(clean: Tensor, rows: slice) -> Metric:
    """`kl_to` for some of the prompts."""
    return kl_to(clean[rows])

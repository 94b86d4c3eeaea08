"""Positions that metrics read, and their target tokens there: next tokens, labels, answers.

Prompts that lack them are Refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import Refused
from ..prompts._prompts import FewShotPrompts, Prompts

__all__ = [
    "first_copy",
    "has_next",
    "label_words",
    "last_token",
    "next_tokens",
    "right_and_wrong",
    "right_answer",
    "second_copy",
]


def next_tokens(prompts: Prompts) -> Tensor:
    """The next token at every position, `[prompt, position, 1]`; the last position has none and is never read."""
    return prompts.tokens.roll(-1, 1)[..., None]


def has_next(prompts: Prompts) -> Tensor:
    """True where there is a next token; bool `[prompt, position]`."""
    return torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None] - 1


def last_token(prompts: Prompts) -> Tensor:
    """True at each prompt's last token; bool `[prompt, position]`."""
    return torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1


def second_copy(prompts: Prompts) -> Tensor:
    """True where a token of the second or a later copy is predicted, except the first token of copy two."""
    _check_repeats(prompts)
    return prompts.scored & has_next(prompts)


def first_copy(prompts: Prompts) -> Tensor:
    """True where a token of the first copy is predicted."""
    _check_repeats(prompts)
    return torch.arange(prompts.tokens.shape[1]) < prompts.starts()[:, None] - 1


def _check_repeats(prompts: Prompts) -> None:
    """Raise Refused unless every prompt has a scored second copy of two tokens or more."""
    real = (prompts.scored.sum(1) >= 2) & (prompts.starts() >= 2)
    if not bool(real.all()):
        row = int((~real).int().argmax())
        raise Refused(
            f"prompt {row} has no scored second copy of two tokens or more: pass prompts of repeated_tokens(model), "
            "with a period of at least 2, or another metric, such as loss"
        )


def label_words(prompts: Prompts) -> Tensor:
    """The first token of every label, `[prompt, label]`, for few-shot prompts whose queries have labels."""
    found = prompts.demonstrations if isinstance(prompts, FewShotPrompts) else None
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "label_accuracy needs few-shot prompts whose queries carry labels: few_shot_prompts(model, .., [(x, y)])"
        )
    return found.label_ids.expand(len(prompts), -1)


def right_and_wrong(prompts: Prompts) -> Tensor:
    """The right and the wrong answer, `[prompt, 2]`."""
    if prompts.answers is None:
        raise Refused(
            "logit_difference needs prompts with answers: pairs(model, clean=..., corrupted=..., answers=...), "
            "or with_answers(model, prompts, [(right, wrong), ...])"
        )
    return prompts.answers


def right_answer(prompts: Prompts) -> Tensor:
    """The right answer, or else the first token of the query's label, `[prompt, 1]`."""
    if prompts.answers is not None:
        return prompts.answers[:, :1]
    found = prompts.demonstrations if isinstance(prompts, FewShotPrompts) else None
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "probability needs prompts with answers (with_answers(model, prompts, [(right, wrong), ...])), or "
            "few-shot prompts whose queries carry labels"
        )
    return found.label_ids[found.target][:, None]

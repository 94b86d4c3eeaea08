"""Pairs of clean and corrupted prompts of equal length, and prompts with their right and wrong answers.

Patching compares the two runs of a pair. Prompts are corrupted by other tokens rather than by noise, as Zhang & Nanda
2023 recommend. No model is run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from .._given import is_whole, plain, rows_of
from ..errors import Refused
from ..model._anatomy import Model
from ..model._outputs import n_outputs, outputs_are_tokens
from ._conversion import Readable, as_prompts
from ._prompts import Prompts
from ._text import encode

__all__ = ["Pairs", "pairs", "with_answers"]


class Pairs(NamedTuple):
    """Clean and corrupted prompts of the same lengths.

    Attributes:
        clean: with `answers [prompt, 2]` (right, wrong) where they were given.
        corrupted: likewise, with the same answers.
    """

    clean: Prompts
    corrupted: Prompts


def pairs(
    model: Model,
    *,
    clean: Readable,
    corrupted: Readable,
    answers: Sequence[tuple[str | int, str | int]] | None = None,
) -> Pairs:
    """Clean and corrupted prompts of equal length for patching, with their right and wrong answers.

    Args:
        model: gives the tokenizer.
        clean: anything `as_prompts` takes.
        corrupted: as many prompts, each as long in tokens as the clean one.
        answers: one `(right, wrong)` per prompt: token ids, or words of one token each (mind the leading space). For a
            model whose outputs are not its tokens (a classifier), the numbers of its outputs.

    Returns:
        `Pairs(clean, corrupted)`, in both of which only the last position is scored.

    Raises:
        TypeError: prompts that `as_prompts` does not take, an answer that is neither a word nor an id.
        Refused: different numbers or lengths of prompts (the message shows the tokens), an answer of several tokens.

    Source: Zhang & Nanda 2023; Heimersheim & Nanda 2024 (denoising and noising).
    """
    sides = [as_prompts(model, side) for side in (clean, corrupted)]
    if len(sides[0]) != len(sides[1]):
        raise Refused(
            f"wanted as many corrupted as clean prompts, got {len(sides[0])} clean and {len(sides[1])} corrupted"
        )
    for i, (a, b) in enumerate(zip(sides[0].lengths.tolist(), sides[1].lengths.tolist(), strict=True)):
        if a != b:
            shown = [side[i].strings(model)[0] for side in sides]
            raise Refused(
                f"pair {i} has {a} clean and {b} corrupted tokens, wanted equal numbers: replace words by words "
                f"of as many tokens, got {shown[0]} against {shown[1]}"
            )
    ids = None if answers is None else _answer_ids(model, answers, len(sides[0]))
    ready = []
    for side in sides:
        last = torch.arange(side.tokens.shape[1]) == side.lengths[:, None] - 1
        ready.append(replace(side, scored=last, answers=ids))
    return Pairs(*ready)


def with_answers(
    model: Model,
    prompts: Readable,
    answers: Sequence[tuple[str | int, str | int]],
) -> Prompts:
    """Prompts with a right and a wrong answer each, as `logit_difference` and `probability` need them.

    Args:
        model: gives the tokenizer.
        prompts: anything `as_prompts` takes.
        answers: one `(right, wrong)` per prompt: token ids, or words of one token each (mind the leading space). For a
            model whose outputs are not its tokens (a classifier), the numbers of its outputs.

    Returns:
        The prompts with `answers [prompt, 2]`, int64 ids.

    Raises:
        TypeError: prompts that `as_prompts` does not take, an answer that is neither a word nor an id.
        Refused: another number of answers than of prompts, an answer of several tokens, an id outside the vocabulary.
    """
    ready = as_prompts(model, prompts)
    return replace(ready, answers=_answer_ids(model, answers, len(ready)))


def _answer_ids(model: Model, answers: Sequence[tuple[str | int, str | int]], n: int) -> torch.Tensor:
    """Ids `[prompt, 2]` of the right and wrong answers of `n` prompts."""
    given = rows_of(answers)
    listed = [plain(each) for each in given] if isinstance(given, list) else []
    if len(listed) != n or not all(isinstance(each, list | tuple) and len(each) == 2 for each in listed):
        raise Refused(
            f"wanted a list with one (right, wrong) for each of {n} prompts, as in [(' Mary', ' John'), ...], "
            f"got {answers!r}"
        )
    ids = torch.tensor([[_one_token(model, answer) for answer in pair] for pair in listed])
    if bool((same := ids[:, 0] == ids[:, 1]).any()):
        at = int(same.nonzero()[0])
        raise Refused(f"wanted a right answer and another that is wrong, got {answers[at]!r} for prompt {at}")
    n_words = n_outputs(model)
    if int(ids.min()) < 0 or int(ids.max()) >= n_words:
        raise Refused(f"wanted answer ids from 0 to {n_words - 1}, got {ids.tolist()}")
    return ids


def _one_token(model: Model, answer: str | int) -> int:
    """The id of an answer given as a word or an id."""
    if is_whole(answer):
        return int(answer)
    if not isinstance(answer, str):
        raise TypeError(f"wanted an answer as a word or a token id, got {answer!r}")
    if not outputs_are_tokens(model):
        raise Refused(
            f"wanted answers as numbers from 0 to {n_outputs(model) - 1}, since the outputs of this model are not its "
            f"tokens (cfg.d_vocab_out), got {answer!r}"
        )
    ids = encode(model, answer)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([token]) for token in ids]
        raise Refused(
            f"answer {answer!r} is {len(ids)} tokens {pieces}, wanted one: try it with or without a leading space"
        )
    return ids[0]

"""Clean and corrupted prompts that differ in chosen tokens: what patching compares.

Tokens are replaced by tokens, prompt by prompt of equal length (Zhang & Nanda 2023: rather than noise). It runs
nothing.
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
    """Clean and corrupted prompts of the same lengths, each with `answers [prompt, 2]` (right, wrong)."""

    clean: Prompts
    corrupted: Prompts


def pairs(
    model: Model,
    *,
    clean: Readable,
    corrupted: Readable,
    answers: Sequence[tuple[str | int, str | int]] | None = None,
) -> Pairs:
    """Clean and corrupted prompts, checked to have equal lengths, with their answers.

    Args:
        model: gives the tokenizer.
        clean: anything `as_prompts` takes.
        corrupted: as many, of the same lengths.
        answers: one `(right, wrong)` a prompt: ids, or words that are one token each (mind the leading
            space); of a model whose outputs are not its tokens (a classifier), their numbers.

    Returns:
        `Pairs(clean, corrupted)`; only the last position is scored.

    Raises:
        Refused: different numbers or lengths (the message shows the tokens), an answer of several tokens.

    Source: Zhang & Nanda 2023; Heimersheim & Nanda 2024 (which run is patched into which).
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
                f"pair {i} has {a} clean and {b} corrupted tokens, wanted equal: {shown[0]} against {shown[1]}"
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
    """Prompts with what `logit_difference` and `probability` read: a right and a wrong next token (or class) for each.

    Args:
        model: gives the tokenizer.
        prompts: anything `as_prompts` takes.
        answers: one `(right, wrong)` a prompt: ids, or words that are one token each (mind the leading
            space); of a model whose outputs are not its tokens (a classifier), their numbers.

    Returns:
        The prompts with `answers [prompt, 2]`.

    Raises:
        Refused: another number of answers, an answer of several tokens, an id outside the vocabulary.
    """
    ready = as_prompts(model, prompts)
    return replace(ready, answers=_answer_ids(model, answers, len(ready)))


def _answer_ids(model: Model, answers: Sequence[tuple[str | int, str | int]], n: int) -> torch.Tensor:
    given = rows_of(answers)
    listed = [plain(each) for each in given] if isinstance(given, list) else []
    if len(listed) != n or not all(isinstance(each, list | tuple) and len(each) == 2 for each in listed):
        raise Refused(
            f"wanted a list of one (right, wrong) for each of {n} prompts, as in [(' Mary', ' John'), ...], "
            f"got {answers!r}"
        )
    ids = torch.tensor([[_one_token(model, answer) for answer in pair] for pair in listed])
    n_words = n_outputs(model)
    if int(ids.min()) < 0 or int(ids.max()) >= n_words:
        raise Refused(f"wanted answer ids from 0 to {n_words - 1}, got {ids.tolist()}")
    return ids


def _one_token(model: Model, answer: str | int) -> int:
    if is_whole(answer):
        return int(answer)
    if not isinstance(answer, str):
        raise TypeError(f"wanted an answer as a word or a token's id, got {answer!r}")
    if not outputs_are_tokens(model):
        raise Refused(
            f"wanted answers as numbers from 0 to {n_outputs(model) - 1}, the outputs of this model, which are not its "
            f"tokens (d_vocab_out), got {answer!r}"
        )
    ids = encode(model, answer)
    if len(ids) != 1:
        pieces = [model.tokenizer.decode([token]) for token in ids]
        raise Refused(
            f"answer {answer!r} is {len(ids)} tokens {pieces}, wanted one: try it with or without a leading space"
        )
    return ids[0]

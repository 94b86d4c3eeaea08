"""Random tokens said again, and the same lengths with nothing to copy: the prompts of induction scores.

`[BOS, r, r, ...]` after Olsson et al. 2022 ("prefix-matching score": random tokens without the most and least
common) with two changes that make the score honest: every prompt has its own period, so that a head attending
at one fixed lag cannot look like an induction head, and every prompt brings a matched control, in which the
later copies are fresh tokens. No text is decoded and encoded again: ids do not survive that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._given import checked_seed, is_whole, plain
from ..errors import NotDefined, Refused
from ..model._anatomy import Model, sizes
from ._prompts import Prompts, real_positions
from ._text import start_token

__all__ = ["allowed_tokens", "random_tokens", "repeated_tokens"]


def repeated_tokens(
    model: Model,
    *,
    period: int | tuple[int, int] | None = None,
    repeats: int = 2,
    prompts: int = 32,
    seed: int = 0,
    bos: bool | int | None = None,
    exclude: float = 0.04,
) -> Prompts:
    """`[BOS, r, r, ...]` with `r` distinct random tokens; the second and later copies are scored.

    Args:
        model: gives vocabulary, context and special tokens.
        period: length of `r`: an int for all prompts, a range `(low, high)`, or None for the range
            `default_periods` (up to 50 tokens at two repeats and 25 at more, within the context; 16 or more
            different ones where the context allows). Periods of a range come equally often.
        repeats: copies of `r`, at least 2.
        prompts: how many.
        seed: of the draw; a local generator.
        bos: True to put the model's BOS token first, an id for another one, False for none; None for the model's
            own rule (`cfg.default_prepend_bos`, where it has one).
        exclude: share of the vocabulary left out at each end by frequency, where the tokenizer ranks its
            tokens (byte-pair encodings: ids in order of merging); other vocabularies are used whole. In [0,
            0.5).

    Returns:
        Prompts with `control`; tokens of one prompt and its control are all distinct but for the copies.

    Raises:
        Refused: no BOS token where one is asked for, a period that does not fit context or vocabulary,
            counts below 1. NotDefined: a context or vocabulary too small for any period.

    Source: Olsson et al. 2022, "prefix-matching score"; Crosbie & Shutova 2024 for the 4% at each end.
    """
    if not is_whole(repeats) or repeats < 2:
        raise Refused(f"wanted repeats >= 2, got {repeats!r}")
    start = start_token(model, bos)
    allowed = allowed_tokens(model, exclude=exclude, bos=start)
    room = min((sizes(model).n_ctx - len(start)) // repeats, len(allowed) // repeats)
    generator = torch.Generator().manual_seed(checked_seed(seed))
    periods = _periods(period, room, repeats, prompts, generator)
    rows, controls = [], []
    for p in periods:
        drawn = allowed[torch.randperm(len(allowed), generator=generator)[: p * repeats]]
        rows.append(torch.cat([start, drawn[:p].repeat(repeats)]))
        controls.append(torch.cat([start, drawn]))
    tokens, control = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (rows, controls))
    lengths = torch.tensor([len(row) for row in rows])
    second = len(start) + torch.tensor(periods)
    scored = real_positions(tokens, lengths) & (torch.arange(tokens.shape[1]) >= second[:, None])
    tokenizer = getattr(model, "tokenizer", None)
    return Prompts(tokens, lengths, scored, control=control, bos=len(start) == 1, tokenizer=tokenizer)


def random_tokens(
    model: Model,
    *,
    length: int | None = None,
    prompts: int = 32,
    seed: int = 0,
    bos: bool | int | None = None,
    exclude: float = 0.04,
) -> Prompts:
    """`[BOS, r]` with distinct random tokens, all of them scored: for scores of position, not of copying.

    Args:
        model: gives vocabulary, context and special tokens.
        length: of `r`; None for up to 50, within context and vocabulary.
        prompts: how many.
        seed: as in `repeated_tokens`, like the other two.
        bos: likewise.
        exclude: share of the vocabulary left out at each end.

    Raises:
        Refused: as `repeated_tokens`.
    """
    start = start_token(model, bos)
    allowed = allowed_tokens(model, exclude=exclude, bos=start)
    room = min(sizes(model).n_ctx - len(start), len(allowed))
    generator = torch.Generator().manual_seed(checked_seed(seed))
    (period, *_) = _periods(length or min(50, room), room, 1, prompts, generator)
    drawn = [allowed[torch.randperm(len(allowed), generator=generator)[:period]] for _ in range(prompts)]
    tokens = torch.stack([torch.cat([start, row]) for row in drawn])
    lengths = torch.full((prompts,), tokens.shape[1])
    scored, tokenizer = real_positions(tokens, lengths), getattr(model, "tokenizer", None)
    return Prompts(tokens, lengths, scored, bos=len(start) == 1, tokenizer=tokenizer)


def default_periods(room: int, repeats: int) -> tuple[int, int]:
    """The range of default periods where at most `room` fits: up to 50 (25 beyond two repeats), 16 of them."""
    high = min(50 if repeats <= 2 else 25, room)
    return max(1, min(4, high), min(high // 2, high - 15)), high


def allowed_tokens(model: Model, *, exclude: float, bos: Tensor) -> Tensor:
    """The ids to draw from, `[id]`: no special or added token, none at the ends of the frequency ranks.

    Raises:
        Refused: `exclude` outside [0, 0.5), or nothing left.
    """
    if not isinstance(exclude, Real) or not 0 <= exclude < 0.5:
        raise Refused(
            f"wanted exclude from 0 to below 0.5 (a share of the vocabulary at each end), got {exclude!r}"
        )
    tokenizer, d_vocab = getattr(model, "tokenizer", None), sizes(model).d_vocab
    special = set(bos.tolist())
    if tokenizer is not None:
        special |= set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        d_vocab = min(d_vocab, len(tokenizer))  # embeddings are often padded beyond the tokens there are
    ids = torch.tensor([token for token in range(d_vocab) if token not in special], dtype=torch.long)
    cut = int(exclude * len(ids)) if ranked_by_frequency(tokenizer) else 0
    return ids[cut : len(ids) - cut]


def ranked_by_frequency(tokenizer: Any) -> bool:
    """Whether ids follow the order in which a byte-pair encoding merged them, common ones first."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and json.loads(backend.to_str())["model"].get("type") == "BPE"


def _periods(
    period: int | Sequence[int] | None, room: int, repeats: int, prompts: int, generator: torch.Generator
) -> list[int]:
    """One period a prompt, equally often where it is a range, in random order."""
    if not is_whole(prompts) or prompts < 1:
        raise Refused(f"wanted prompts >= 1, got {prompts!r}")
    if room < 1:
        raise NotDefined(
            f"{repeats} x 1 tokens do not fit the context and the vocabulary (each token is used once a prompt): this "
            "model is too small"
        )
    given: Any = default_periods(room, repeats) if period is None else plain(period)
    ends = (given, given) if is_whole(given) else given
    if not (isinstance(ends, Sequence) and len(ends) == 2 and all(map(is_whole, ends))):
        raise TypeError(f"wanted a period as a whole number or a range (low, high), got {period!r}")
    low, high = map(int, ends)
    if not 1 <= low <= high:
        raise Refused(f"wanted a period >= 1 or a range (low, high), got {period!r}")
    if high > room:
        raise Refused(
            f"{repeats} x {high} tokens do not fit the context and the vocabulary (each token is used once a prompt): "
            f"wanted a period of at most {room}"
        )
    rounds = -(-prompts // (high - low + 1))
    drawn = [torch.randperm(high - low + 1, generator=generator) + low for _ in range(rounds)]
    return torch.cat(drawn)[:prompts].tolist()

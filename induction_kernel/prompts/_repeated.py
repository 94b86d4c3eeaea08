"""Repeated random tokens `[BOS, r, r, ...]` with a matched control: the prompts of the induction scores.

The prompts are those of the prefix-matching score of Olsson et al. 2022 (random tokens without the most and least
common ones), with two changes. Every prompt has its own period, so that a head that attends at one fixed lag does not
look like an induction head; and every prompt has a matched control, in which the later copies are fresh tokens. Tokens
are never decoded and encoded again, as that would change them.
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
    """Prompts `[BOS, r, r, ...]` in which `r` is a sequence of distinct random tokens, with a matched control each.

    Args:
        model: gives vocabulary, context and special tokens.
        period: number of tokens in `r`: an int for all prompts, a range `(low, high)`, both included, or None for a
            default range (up to 50 tokens with two repeats and 25 with more, as far as the context allows; at least 16
            different periods where it does). The periods of a range come equally often.
        repeats: number of copies of `r`, at least 2.
        prompts: number of prompts.
        seed: of the random draw.
        bos: True to put the BOS token first, an id to put another token first, False for none; None for the model's
            own rule (`cfg.default_prepend_bos`, if it has a BOS token).
        exclude: share of the vocabulary left out at each end of the frequency ranks, in [0, 0.5). Ranks are known for
            byte-pair encodings (ids in order of merging); other vocabularies are used in full.

    Returns:
        Prompts of which the second and later copies are scored. In `control` the later copies are replaced by fresh
        tokens; the tokens of a prompt and its control are all distinct, apart from the copies.

    Raises:
        TypeError: a period that is neither a whole number nor a range.
        Refused: a BOS token asked for that the model does not have, a period that does not fit the context or the
            vocabulary, fewer than 2 repeats or 1 prompt, `exclude` out of its range.
        NotDefined: a context or vocabulary too small for any period.

    Source: Olsson et al. 2022, "prefix-matching score"; Crosbie & Shutova 2024 for the 4% at each end.
    """
    if not is_whole(repeats) or repeats < 2:
        raise Refused(f"wanted repeats >= 2, got {repeats!r}")
    start = start_token(model, bos)
    allowed = allowed_tokens(model, exclude=exclude, bos=start)
    longest = min((sizes(model).n_ctx - len(start)) // repeats, len(allowed) // repeats)
    generator = torch.Generator().manual_seed(checked_seed(seed))
    periods = _periods(period, longest, repeats, prompts, generator)
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
    """Prompts `[BOS, r]` of distinct random tokens without any repeat, for scores of position such as previous token.

    Args:
        model: gives vocabulary, context and special tokens.
        length: number of tokens in `r`; None for 50, or what the context and the vocabulary allow.
        prompts: number of prompts.
        seed: of the random draw.
        bos: as in `repeated_tokens`.
        exclude: as in `repeated_tokens`.

    Returns:
        Prompts of equal length in which every position is scored, without a control.

    Raises:
        TypeError: as in `repeated_tokens`, with `length` for the period.
        Refused: likewise.
        NotDefined: likewise.
    """
    start = start_token(model, bos)
    allowed = allowed_tokens(model, exclude=exclude, bos=start)
    longest = min(sizes(model).n_ctx - len(start), len(allowed))
    generator = torch.Generator().manual_seed(checked_seed(seed))
    (period, *_) = _periods(length or min(50, longest), longest, 1, prompts, generator)
    drawn = [allowed[torch.randperm(len(allowed), generator=generator)[:period]] for _ in range(prompts)]
    tokens = torch.stack([torch.cat([start, row]) for row in drawn])
    lengths = torch.full((prompts,), tokens.shape[1])
    scored, tokenizer = real_positions(tokens, lengths), getattr(model, "tokenizer", None)
    return Prompts(tokens, lengths, scored, bos=len(start) == 1, tokenizer=tokenizer)


def default_periods(longest: int, repeats: int) -> tuple[int, int]:
    """The default range of periods, both ends included, none above `longest`.

    It ends at 50 tokens with two repeats and 25 with more, and holds at least 16 periods where `longest` allows.
    """
    high = min(50 if repeats <= 2 else 25, longest)
    return max(1, min(4, high), min(high // 2, high - 15)), high


def allowed_tokens(model: Model, *, exclude: float, bos: Tensor) -> Tensor:
    """The token ids to draw from, `[id]`: without special and added tokens, and without the ends of frequency ranks.

    Raises:
        Refused: `exclude` outside [0, 0.5).
    """
    if not isinstance(exclude, Real) or not 0 <= exclude < 0.5:
        raise Refused(
            f"wanted exclude from 0 to below 0.5 (a share of the vocabulary at each end), got {exclude!r}"
        )
    tokenizer, d_vocab = getattr(model, "tokenizer", None), sizes(model).d_vocab
    special = set(bos.tolist())
    if tokenizer is not None:
        special |= set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        d_vocab = min(d_vocab, len(tokenizer))  # embeddings often have more rows than there are tokens
    ids = torch.tensor([token for token in range(d_vocab) if token not in special], dtype=torch.long)
    cut = int(exclude * len(ids)) if ranked_by_frequency(tokenizer) else 0
    return ids[cut : len(ids) - cut]


def ranked_by_frequency(tokenizer: Any) -> bool:
    """Whether ids are in the order of a byte-pair encoding's merges, common tokens first."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and json.loads(backend.to_str())["model"].get("type") == "BPE"


def _periods(
    period: int | Sequence[int] | None, longest: int, repeats: int, prompts: int, generator: torch.Generator
) -> list[int]:
    """The period of each prompt, at most `longest`; those of a range equally often, in random order."""
    if not is_whole(prompts) or prompts < 1:
        raise Refused(f"wanted prompts >= 1, got {prompts!r}")
    if longest < 1:
        raise NotDefined(
            f"{repeats} x 1 tokens do not fit the context and the vocabulary (no token is drawn twice for a prompt): "
            "this model is too small"
        )
    given: Any = default_periods(longest, repeats) if period is None else plain(period)
    ends = (given, given) if is_whole(given) else given
    if not (isinstance(ends, Sequence) and len(ends) == 2 and all(map(is_whole, ends))):
        raise TypeError(f"wanted a period as a whole number or a range (low, high), got {period!r}")
    low, high = map(int, ends)
    if not 1 <= low <= high:
        raise Refused(f"wanted a period >= 1 or a range (low, high), got {period!r}")
    if high > longest:
        raise Refused(
            f"{repeats} x {high} tokens do not fit the context and the vocabulary (no token is drawn twice for a "
            f"prompt): wanted a period of at most {longest}"
        )
    rounds = -(-prompts // (high - low + 1))
    drawn = [torch.randperm(high - low + 1, generator=generator) + low for _ in range(rounds)]
    return torch.cat(drawn)[:prompts].tolist()

"""Padding at the ends of token tensors: found by an attention mask or by the tokenizer's padding token, and removed.

The token alone does not always show it: GPT-2's tokenizer pads with its end-of-text token, which may also end a text,
and which is its BOS token too. An ambiguous case is refused, never guessed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import Refused

__all__ = ["Ends", "by_lengths", "by_mask", "by_token", "right_padded"]

AMBIGUOUS = (
    "{where} the tokenizer's padding token {token!r}, which is also its {also} token, so nothing says whether it is "
    "text: pass the texts themselves, the tokenizer's output with its attention_mask, or (for right-padded tokens) "
    "lengths=[...], one per prompt"
)


class Ends(NamedTuple):
    """Where each prompt lies in its row of tokens.

    Attributes:
        begin: `[prompt]`, position of the first token.
        end: `[prompt]`, one past the last token.
    """

    begin: Tensor
    end: Tensor


def by_mask(mask: Tensor, shape: torch.Size) -> Ends:
    """Where prompts begin and end by an attention mask `[prompt, position]`, 1 (True) for tokens, 0 for padding.

    Raises:
        Refused: a mask of another shape or with other values, a prompt of padding alone, padding between tokens.
    """
    if mask.shape != shape or not bool(((mask == 0) | (mask == 1)).all()):
        raise Refused(
            f"wanted an attention mask of 0 and 1 as large as the tokens {list(shape)}, got {list(mask.shape)} with "
            f"values {mask.unique().tolist()[:5]}"
        )
    kept = mask.bool()
    ends = Ends(_run(~kept), mask.shape[1] - _run(~kept.flip(1)))
    _check_some(ends)
    if bool((kept.sum(1) != ends.end - ends.begin).any()):
        row = int((kept.sum(1) != ends.end - ends.begin).int().argmax())
        raise Refused(
            f"the attention mask of prompt {row} hides tokens between others: wanted padding at the ends only"
        )
    return ends


def by_token(tokens: Tensor, tokenizer: Any) -> Ends:
    """Where prompts `[prompt, position]` begin and end if runs of the padding token at the ends are padding.

    Raises:
        Refused: a prompt of padding alone; tokens that may be padding or text.
    """
    n, width = tokens.shape
    whole = Ends(torch.zeros(n, dtype=torch.long), torch.full((n,), width))
    token = getattr(tokenizer, "pad_token_id", None)
    if token is None or width == 1:
        return whole
    padding = tokens == token
    before, after = _run(padding), _run(padding.flip(1))
    first, last = (getattr(tokenizer, f"{which}_token_id", None) == token for which in ("bos", "eos"))
    if first and last:
        return _of_one_token(before, after, whole, tokenizer)
    if last and bool((after > 0).all()):
        where = "every prompt ends in"
        raise Refused(AMBIGUOUS.format(where=where, token=tokenizer.pad_token, also="end-of-text"))
    if first and bool((before > 0).all()):
        before = before - 1  # the last token of the run is the beginning-of-sequence token
    ends = Ends(before, whole.end - after)
    _check_some(ends)
    return ends


def by_lengths(tokens: Tensor, lengths: Tensor, tokenizer: Any) -> Ends:
    """Where prompts `[prompt, position]` end if each begins its row and has the given length.

    Raises:
        Refused: a row that begins with padding, whose last tokens would be cut off.
    """
    token = getattr(tokenizer, "pad_token_id", None)
    if token is not None:
        before, cut_off = _run(tokens == token), torch.arange(tokens.shape[1]) >= lengths[:, None]
        last = tokens.gather(1, lengths[:, None] - 1)  # what `right_padded` fills with
        left = (before > 0) & (cut_off & (tokens != token) & (tokens != last)).any(1)
        if getattr(tokenizer, "bos_token_id", None) == token and bool((before > 0).all()):
            left &= before > 1  # one in each row is the beginning-of-sequence token
        if bool(left.any()):
            row = int(left.int().argmax())
            raise Refused(
                f"prompt {row} looks padded on the left: it begins with the padding token {tokenizer.pad_token!r}, and "
                f"lengths= would cut off its last {int(cut_off[row].sum())} tokens. lengths= is for padding on the "
                "right: leave it out, so that padding is searched for at both ends, or pass a tokenizer's output, "
                '{"input_ids": ..., "attention_mask": ...}'
            )
    return Ends(torch.zeros_like(lengths), lengths)


def _of_one_token(before: Tensor, after: Tensor, whole: Ends, tokenizer: Any) -> Ends:
    """The whole rows, if one token is BOS, end and padding and stands only where it must be BOS; else Refused."""
    ends, starts = after > 0, (before > 1) | (before != before[0])
    if bool((ends | starts).any()):
        row = int((ends | starts).int().argmax())
        where = f"prompt {row} {'ends in' if bool(ends[row]) else 'begins with'}"
        also = "beginning-of-sequence and end-of-text"
        raise Refused(AMBIGUOUS.format(where=where, token=tokenizer.pad_token, also=also))
    return whole


def right_padded(tokens: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """The prompts moved to the left, `[prompt, position]`, padded with their last token; and lengths `[prompt]`."""
    lengths = ends.end - ends.begin
    place = ends.begin[:, None] + torch.arange(int(lengths.max()))
    return tokens.gather(1, place.minimum(ends.end[:, None] - 1)), lengths


def _run(padding: Tensor) -> Tensor:
    """How many positions at the beginning are padding, `[prompt]`, of bool `[prompt, position]`."""
    return padding.long().cumprod(1).sum(1)


def _check_some(ends: Ends) -> None:
    """Refused if a prompt has no token."""
    if bool((ends.end <= ends.begin).any()):
        row = int((ends.end <= ends.begin).int().argmax())
        raise Refused(f"prompt {row} is padding alone: wanted at least one token in each prompt")

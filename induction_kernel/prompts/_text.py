"""One text as token ids, the characters of each token, the BOS token in front, and checks for unknown words.

Text is tokenised as by the model's own `to_tokens`, with one difference: text that begins with the
beginning-of-sequence token gets no second one. Batches are made in `_conversion`, few-shot prompts in `_few_shot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from .._given import is_whole, plain
from ..errors import NotDefined, Refused
from ..model._anatomy import Model, bos_id, sizes

__all__ = [
    "check_text",
    "default_bos",
    "encode",
    "encode_whole",
    "knows",
    "n_unknown",
    "refuse_unknown",
    "start_token",
    "starts_with_bos",
    "tokenised",
]

IDS_INSTEAD = "use words of its vocabulary, or pass token ids, which are taken as they are"
NAMED = 3  # unknown words named in a message, and known words suggested for each


def default_bos(model: Model) -> bool:
    """Whether the model puts the BOS token before text, `cfg.default_prepend_bos`; False if it has no BOS token."""
    return bos_id(model) is not None and bool(getattr(model.cfg, "default_prepend_bos", True))


def start_token(model: Model, bos: bool | int | None) -> Tensor:
    """The token to put before text: its id as `[1]`, or an empty `[0]` for none.

    Args:
        model: gives the BOS token and the vocabulary.
        bos: True for the BOS token, an id for another token, False for none; None for the model's own rule.

    Raises:
        Refused: a BOS token asked for that the model does not have; an id outside the vocabulary.
    """
    asked = default_bos(model) if bos is None else plain(bos)
    if asked is False:
        return torch.zeros(0, dtype=torch.long)
    token = bos_id(model) if asked is True else asked
    if token is None:
        raise Refused("this model has no BOS token: pass bos=False, or bos=<id> for the token to put first")
    d_vocab = sizes(model).d_vocab
    if not is_whole(token) or not 0 <= token < d_vocab:
        got = (
            f"{token!r}, the tokenizer's BOS token: set the tokenizer of this model"
            if asked is True
            else repr(bos)
        )
        raise Refused(f"wanted bos as True, False or an id from 0 to {d_vocab - 1}, got {got}")
    return torch.tensor([int(token)])


def starts_with_bos(model: Model, tokens: Tensor) -> bool:
    """Whether every prompt of `tokens [prompt, position]` begins with the BOS token."""
    first = bos_id(model)
    return first is not None and bool((tokens[:, 0] == first).all())


def encode(model: Model, text: str) -> list[int]:
    """The token ids of a piece of text, without the special tokens that the tokenizer adds.

    Raises:
        NotDefined: no tokenizer.
        Refused: a word that it does not know, or half a character.
    """
    tokenizer = _tokenizer(model)
    check_text(text)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    refuse_unknown(tokenizer, text, ids)
    return ids


def encode_whole(model: Model, text: str, start: Sequence[int]) -> list[int]:
    """The token ids of a whole prompt: `start` (one token or none) first, but no second BOS token.

    Other special tokens that the tokenizer adds are kept: [CLS] and [SEP], or an end token, unless a Bridge leaves that
    out (`cfg.tokenizer_appends_eos`).
    """
    tokenizer, ids = _tokenizer(model), encode(model, text)
    before, after = _added(list(tokenizer(text)["input_ids"]), ids)
    before = [] if before == [bos_id(model)] else before
    after = [] if getattr(model.cfg, "tokenizer_appends_eos", False) else after
    whole = [*before, *ids, *after]
    twice = list(start) == whole[:1] == [bos_id(model)]
    return whole if twice else [*start, *whole]


def _added(whole: list[int], ids: list[int]) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after the ids of a text."""
    n = len(ids)
    for at in range(len(whole) - n, -1, -1):  # from the right: a text may begin with the token put before it
        if whole[at : at + n] == ids:
            return whole[:at], whole[at + n :]
    return [], []


def tokenised(model: Model, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The token ids of a text, and for each the characters it stands for, as (first, one past the last).

    Raises:
        NotDefined: a slow tokenizer, which has no character offsets.
        Refused: a word that it does not know, or half a character.
    """
    if not getattr(model.tokenizer, "is_fast", False):
        raise NotDefined(
            "wanted a fast tokenizer, whose character offsets say where labels lie: load it with use_fast=True"
        )
    check_text(text)
    found = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = found["input_ids"], found["offset_mapping"]
    refuse_unknown(model.tokenizer, text, ids, "use words of its vocabulary in texts, labels and template")
    return ids, offsets


def check_text(text: str) -> None:
    """Refused if a text holds half a character (a lone surrogate, from text that was cut or decoded wrongly)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.start + 1]
        raise Refused(
            f"character {error.start} of a text, the last of {near!r}, is half a character (a lone surrogate): the "
            "text was cut or decoded wrongly; text.encode(errors='replace').decode() puts a '?' in its place"
        ) from None


def knows(model: Model, text: str) -> bool:
    """Whether the tokenizer knows every word of the text."""
    tokenizer = _tokenizer(model)
    return not n_unknown(tokenizer, text, tokenizer(text, add_special_tokens=False)["input_ids"])


def refuse_unknown(tokenizer: Any, text: str, ids: Sequence[int], advice: str = IDS_INSTEAD) -> None:
    """Refused if a word of the text became the unknown token; the message names it, and known words like it."""
    if not n_unknown(tokenizer, text, ids):
        return
    words = list(dict.fromkeys(_unknown_words(tokenizer, text)))
    shown = ", ".join(repr(word) + _near(tokenizer, word) for word in words[:NAMED])
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    raise Refused(f"the tokenizer does not know {shown}{more}: {advice}")


def n_unknown(tokenizer: Any, text: str, ids: Sequence[int]) -> int:
    """How many of the ids are the unknown token, without those that the text itself writes out."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return 0
    # GPT-2's unknown token is its end-of-text token, which a text may contain.
    return max(0, list(ids).count(unknown) - text.count(tokenizer.unk_token))


def _unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words of the text that the tokenizer does not know; the whole text if no single word shows it."""
    unknown = tokenizer.unk_token_id
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
        words = [text[begin:end].strip() for token, (begin, end) in pairs if token == unknown]
    else:
        words = [w for w in text.split() if unknown in tokenizer(w, add_special_tokens=False)["input_ids"]]
    return [word for word in words if word != tokenizer.unk_token] or [text]


def _near(tokenizer: Any, word: str) -> str:
    """Known words like this one, as the part of a message that follows it."""
    special = set(tokenizer.all_special_tokens)
    known = {token.lstrip("Ġ▁#") for token in tokenizer.get_vocab() if token not in special}
    near = get_close_matches(word.lower(), known, n=NAMED)
    return f" (near: {', '.join(map(repr, near))})" if near else ""


def _tokenizer(model: Model) -> Any:
    """The model's tokenizer; NotDefined if it has none."""
    if model.tokenizer is None:
        raise NotDefined(
            "this model has no tokenizer: pass token ids instead of text, or call model.set_tokenizer first"
        )
    return model.tokenizer

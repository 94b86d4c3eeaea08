"""The ordinary text of a census: the user's, cut into windows where it is one long text, or English passages.

A model whose tokenizer does not read English gets random tokens, and the result says so.
"""

from __future__ import annotations

from typing import Any

from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..prompts._conversion import as_prompts
from ..prompts._passages import english_passages
from ..prompts._prompts import Prompts, pad
from ..prompts._repeated import random_tokens
from ..prompts._text import encode_whole, start_token

__all__ = ["text_prompts"]

WINDOW = 64  # tokens of a prompt that is cut from a text
CHARACTERS = 8 * WINDOW  # of the text that are tokenised for it


def text_prompts(model: Model, text: Any, *, n_prompts: int, seed: int) -> tuple[Prompts, str]:
    """Prompts of ordinary text, and what the text is.

    Args:
        model: the model.
        text: anything `as_prompts` takes; one string longer than a window becomes `n_prompts` windows of it, spread
            evenly over the text, without overlap. None for English passages, or random tokens.
        n_prompts: how many windows at most, and how many prompts of random tokens.
        seed: of the random tokens.

    Raises:
        As `as_prompts`.
    """
    if isinstance(text, str) and len(text) > CHARACTERS:
        return _windows(model, text, n_prompts), "windows of the text given"
    if text is not None:
        return as_prompts(model, text), "the prompts given"
    passages = english_passages(model)
    if passages is not None:
        return passages, "English passages"
    return random_tokens(model, prompts=n_prompts, seed=seed), "random tokens"


def _windows(model: Model, text: str, n_prompts: int) -> Prompts:
    n = max(1, min(n_prompts, len(text) // CHARACTERS))
    length = min(WINDOW, sizes(model).n_ctx)
    start = start_token(model, None).tolist()
    ends = [round(i * len(text) / n) for i in range(n + 1)]
    pieces = [text[begin : min(begin + CHARACTERS, end)] for begin, end in zip(ends, ends[1:], strict=False)]
    rows = [encode_whole(model, _whole_words(piece), start)[:length] for piece in pieces if piece.strip()]
    if not rows:
        raise Refused("wanted a text with words, got spaces alone")
    tokens, lengths = pad(rows)
    return as_prompts(model, tokens, lengths=lengths)


def _whole_words(piece: str) -> str:
    """The piece without the part of a word at each end."""
    words = piece.split(" ")
    return " ".join(words[1:-1]) if len(words) > 2 else piece.strip()

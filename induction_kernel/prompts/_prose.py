"""Prompts of ordinary text: windows of the prose that ships with the package, of its stories, or of a text given.

The prose, English of the public domain, is in `assets/prose.txt`, whose first lines say where it is from. The stories,
in the language of the embedded model, are in `assets/stories.txt`. No model is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ..model._anatomy import Model, check_model, sizes
from ._conversion import as_prompts
from ._prompts import Prompts
from ._repeated import random_tokens
from ._text import check_text, n_unknown, refuse_unknown, start_token

__all__ = ["PROSE", "encoded", "ordinary_text", "shipped", "what_is_read"]

ASSETS = Path(__file__).parent.parent / "assets"
PROSE, STORIES, RANDOM = "shipped prose", "shipped stories", "random tokens"
SHIPPED = {"prose.txt": PROSE, "stories.txt": STORIES}
"""File -> what results say was read; the first that the model's tokenizer reads is taken."""
LETTERS = (2, 8)  # fewest and most characters per token, on average, of a tokenizer that reads a text
LENGTH = 64


def ordinary_text(
    model: Model,
    text: str | Iterable[str] | None = None,
    *,
    prompts: int = 32,
    length: int | None = None,
    seed: int = 0,
    bos: bool | int | None = None,
) -> Prompts:
    """Prompts of ordinary text: windows of equal length that do not overlap, drawn from a text.

    For scores of how heads behave on text as it is, such as `first_token`, `current_token` and `head_sizes`. Windows
    begin anywhere in a sentence, as training windows do.

    Args:
        model: gives the tokenizer, the context and the BOS token.
        text: one text or several; windows do not run from one into the next. None for the first of these that the
            model's tokenizer reads: the prose that ships with the package (six chapters of Jane Austen, 10,000 words,
            which large models may have seen in training), stories in the embedded model's language, else random tokens
            (`random_tokens`), as for a model without a tokenizer.
        prompts: how many.
        length: tokens of text in each, without BOS; None for 64, or what the context allows.
        seed: of the draw.
        bos: True to put the BOS token first, an id to put another token first, False for none; None for the model's
            own rule (`cfg.default_prepend_bos`, if it has a BOS token).

    Returns:
        Prompts of which every position is scored, without a control, in random order.

    Raises:
        TypeError: a text that is no string, an option that is no whole number.
        Refused: an option out of its range, more prompts than the text has windows, a word that the tokenizer does not
            know.
        NotDefined: a text for a model without a tokenizer.
    """
    check_model(model)
    start = start_token(model, bos)
    room = sizes(model).n_ctx - len(start)
    _check(prompts, length, room)
    source, rows = _rows(model, text)
    if rows is None:
        return random_tokens(model, length=length, prompts=prompts, seed=seed, bos=bos)
    length = min(LENGTH, room) if length is None else length
    windows = [row[at : at + length] for row in rows for at in range(0, len(row) - length + 1, length)]
    if len(windows) < prompts:
        raise Refused(
            f"{source.removeprefix('the ')} has {len(windows)} windows of {length} tokens, wanted {prompts}: ask for "
            "fewer or shorter prompts, or pass a longer text"
        )
    generator = torch.Generator().manual_seed(checked_seed(seed))
    order = torch.randperm(len(windows), generator=generator)[:prompts]
    tokens = torch.cat([start.repeat(prompts, 1), torch.tensor(windows)[order]], 1)
    lengths = torch.full((prompts,), tokens.shape[1])
    scored, tokenizer = torch.ones_like(tokens, dtype=torch.bool), getattr(model, "tokenizer", None)
    made = Prompts(tokens, lengths, scored, bos=len(start) == 1, tokenizer=tokenizer)
    return as_prompts(model, made)


def what_is_read(model: Model) -> str:
    """What `ordinary_text` reads by default: "shipped prose", "shipped stories" or "random tokens"."""
    return _rows(model, None)[0]


def _check(prompts: Any, length: Any, room: int) -> None:
    """Raise TypeError unless these are whole numbers, Refused if one is out of its range."""
    if not is_whole(prompts) or not (length is None or is_whole(length)):
        raise TypeError(f"wanted prompts and length as whole numbers, got {prompts!r} and {length!r}")
    if prompts < 1:
        raise Refused(f"wanted prompts >= 1, got {prompts}")
    if length is not None and not 1 <= length <= room:
        raise Refused(f"wanted length from 1 to {room} tokens, which the context allows, got {length}")


def _rows(model: Model, text: Any) -> tuple[str, list[list[int]] | None]:
    """What is read, and its token ids, a row for each part; None for random tokens."""
    tokenizer = getattr(model, "tokenizer", None)
    if text is not None:
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(each, str) for each in texts):
            raise TypeError(f"wanted one text or several, got {text!r:.60}")
        if tokenizer is None:
            raise NotDefined("this model has no tokenizer: call model.set_tokenizer first, or pass no text")
        return "the text given", [encoded(tokenizer, each, known=True) for each in texts]
    for name, source in SHIPPED.items():
        if tokenizer is not None and (rows := _read(model, shipped(name))) is not None:
            return source, rows
    return RANDOM, None


def _read(model: Model, texts: Sequence[str]) -> list[list[int]] | None:
    """The token ids of texts; None if the model's tokenizer does not read them."""
    rows = []
    for text in texts:
        ids = encoded(model.tokenizer, text)
        few, many = (len(ids) * letters for letters in LETTERS)
        if n_unknown(model.tokenizer, text, ids) or not few <= len(text) <= many:
            return None
        if max(ids) >= sizes(model).d_vocab:
            return None
        rows.append(ids)
    return rows


def encoded(tokenizer: Any, text: str, *, known: bool = False) -> list[int]:
    """The token ids of a text of any length, without special tokens; `known` refuses words that are not known."""
    check_text(text)
    ids = list(
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    )  # it may exceed the context
    if known:
        refuse_unknown(tokenizer, text, ids)
    return ids


@cache
def shipped(name: str) -> tuple[str, ...]:
    """The texts of a file that ships with the package; paragraphs are separated by empty lines."""
    lines = (ASSETS / name).read_text("utf-8").splitlines()
    parts: list[list[str]] = []
    for line in lines:
        if line.startswith("= "):
            parts.append([])
        elif line and not line.startswith("#"):
            parts[-1].append(line)
    return tuple("\n\n".join(part) for part in parts)

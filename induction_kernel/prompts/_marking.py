"""`mark`: texts as prompts with named spans, found by a part of the text or by its characters.

A span holds every token that stands for any of its characters; `_spans` checks spans, and `_needles` marks its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from .._given import is_whole, plain
from ..errors import Refused
from ..model._anatomy import Model
from ._conversion import as_prompts
from ._prompts import Prompts
from ._text import tokenised

__all__ = ["Characters", "mark", "token_spans"]

Characters = tuple[int, int]
"""First character of a part of a text, and one past its last."""


def mark(
    model: Model, texts: str | Sequence[str], *, spans: Mapping[str, Any], bos: bool | int | None = None
) -> Prompts:
    """Texts as prompts in which parts are marked by name, for scores that read spans.

    Args:
        model: gives the tokenizer (a fast one: tokens are found by character offsets).
        texts: one text, or a list of them.
        spans: name -> what is marked: a string that stands once in each text, or a list with one item per text: a
            string that stands once in it, its characters `(first, one past the last)`, or None for nothing.
        bos: as in `as_prompts`.

    Returns:
        The prompts that `as_prompts` makes of the texts, with `spans[name]`, int64 `[prompt, 2]`: the first token that
        stands for any of the characters, and one past the last; (-1, -1) for None.

    Raises:
        TypeError: texts that are no strings, spans in another form.
        Refused: a string that does not stand in its text, or stands in it more than once; characters beyond the text;
            what `as_prompts` refuses.
        NotDefined: no tokenizer, or a slow one.
    """
    listed = [texts] if isinstance(texts, str) else plain(texts)
    if not isinstance(listed, Sequence) or not all(isinstance(text, str) for text in listed):
        raise TypeError(f"wanted a text or a list of texts, got {type(texts).__name__}")
    if not isinstance(spans, Mapping):
        raise TypeError(f"wanted spans as a mapping from names to parts of the texts, got {spans!r}")
    ready = as_prompts(model, listed, bos=bos)
    places = [_places(text, i, len(listed), spans) for i, text in enumerate(listed)]
    rows = zip(listed, ready.tokens.tolist(), ready.lengths.tolist(), places, strict=True)
    found = [token_spans(model, text, row[:length], place) for text, row, length, place in rows]
    marked = {name: torch.tensor([each[name] for each in found], dtype=torch.int64) for name in spans}
    return replace(ready, spans=marked)


def token_spans(
    model: Model, text: str, row: list[int], places: Mapping[str, Characters | None]
) -> dict[str, tuple[int, int]]:
    """The tokens of a prompt `row` of this text that stand for the characters `places[name]`, by name.

    Raises:
        Refused: characters for which there is no token.
        NotDefined: a slow tokenizer.
    """
    ids, offsets = tokenised(model, text)
    starts = (at for at in range(len(row) - len(ids), -1, -1) if row[at : at + len(ids)] == ids)
    shift = next(starts)  # the tokens before it were put there by the model's or the tokenizer's rule
    found = {}
    for name, place in places.items():
        if place is None:
            found[name] = (-1, -1)
            continue
        begin, stop = place
        held = [i for i, (low, high) in enumerate(offsets) if low < stop and high > begin and high > low]
        if not held:
            raise Refused(f"the tokenizer has no token for {text[begin:stop]!r}, the span {name!r}")
        found[name] = (shift + held[0], shift + held[-1] + 1)
    return found


def _places(text: str, number: int, n: int, spans: Mapping[str, Any]) -> dict[str, Characters | None]:
    """The characters of each span in text `number` of n."""
    out: dict[str, Characters | None] = {}
    for name, given in spans.items():
        if not isinstance(given, str):
            given = plain(given)
            if not isinstance(given, list | tuple) or len(given) != n:
                raise TypeError(
                    f"wanted the span {name!r} as a string or a list with one item for each of {n} texts, got {given!r}"
                )
            given = given[number]
        out[name] = None if given is None else _characters(text, number, name, given)
    return out


def _characters(text: str, number: int, name: str, given: Any) -> Characters:
    """The characters of a span given as a string or as (first, one past the last)."""
    if isinstance(given, str):
        times = text.count(given) if given else 0
        if times != 1:
            raise Refused(
                f"wanted {given!r}, the span {name!r}, once in text {number}, where it stands {times} times: give its "
                "characters, (first, one past the last)"
            )
        return text.index(given), text.index(given) + len(given)
    if not (isinstance(given, list | tuple) and len(given) == 2 and all(map(is_whole, given))):
        raise TypeError(
            f"wanted the span {name!r} of text {number} as a string, two characters' numbers or None, got {given!r}"
        )
    begin, stop = map(int, given)
    if not 0 <= begin < stop <= len(text):
        raise Refused(
            f"wanted the span {name!r} within the {len(text)} characters of text {number}, got {given!r}"
        )
    return begin, stop

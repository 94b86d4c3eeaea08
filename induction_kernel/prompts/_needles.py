"""`needles`: a fact hidden in a haystack of text, and a question about it at the end (Kamradt 2023; Wu et al. 2024).

A prompt is a window of text with two sentences put into it, the needle and a decoy about another key, and a question
about the needle's key. Depths and lengths differ from prompt to prompt, so that a head that attends at one fixed lag
finds nothing. `_random_needles` does the same with random tokens. No model is run; `scorers` scores heads on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .._given import checked_seed
from ..errors import Refused
from ..model._anatomy import Model, sizes
from ._marking import token_spans
from ._needle_words import Facts, checked_depths, facts_of, lengths_of
from ._prompts import Prompts, pad
from ._prose import PROSE, shipped, what_is_read
from ._random_needles import random_needles
from ._spans import inside
from ._text import encode, encode_whole, start_token, starts_with_bos

__all__ = ["needles"]

Spans = dict[str, tuple[int, int]]
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ROOM = 32  # positions of the context left for the answer
WORDS = 40  # a piece of the haystack is a sentence, or this many words of one
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’]))(?<!\bMr\.)(?<!\bMrs\.)\s+")
TRIES = 100  # values drawn for the control until one has as many tokens, all of them others


def needles(
    model: Model,
    text: str | None = None,
    *,
    prompts: int = 32,
    length: int | tuple[int, int] | None = None,
    depths: Sequence[float] = DEPTHS,
    needle: str | None = None,
    question: str | None = None,
    keys: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    decoy: bool = True,
    seed: int = 0,
) -> Prompts:
    """Needle-in-a-haystack prompts: text with a made-up fact in it, and a question about the fact.

    Sentences of the text, from a random one on, are filled up with the needle, a decoy (a needle about another key with
    another value, at another place) and the question. A model without a tokenizer, or one whose tokenizer does not read
    English if no text is given, gets random tokens: two of a key and four of its value, and the key again at the end.

    Args:
        model: gives the tokenizer (a fast one) and the context.
        text: the haystack, at least as long as one prompt; read in a circle. None for the prose of the package.
        prompts: number of prompts.
        length: tokens of a prompt with its question, at most: an int, or a range `(low, high)` whose lengths come
            equally often. None for half of to all of 256 tokens, or of what the context holds.
        depths: how far down the haystack the needle is put, from 0 (before the text) to 1 (right before the question),
            at the nearest end of a sentence; each equally often.
        needle: the fact, with `{key}` and once `{value}`.
        question: what follows the haystack, with `{key}`; the answer is to follow it at once.
        keys: at least two.
        values: at least three, some of equal numbers of tokens, as the control puts another into the same place.
        decoy: whether a decoy is put in; small models often answer with the decoy's value.
        seed: of the random draw.

    Returns:
        Prompts with `spans`: "needle" (the whole sentence), "answer" (its value), "decoy" (if there is one),
        "question" (all that follows the haystack; its positions are scored) and "query" (what asks: the question's line
        with the key, without a label such as "Question:" before it). In `control` the value is another one of as many
        tokens, different at each place where the draws have one (at least at half of them); the question and all
        positions are the same.

    Raises:
        TypeError: options of another type.
        Refused: a text shorter than a prompt, a length without room for a sentence of text, depths outside [0, 1], a
            needle without `{key}` and `{value}`, too few keys or values.
        NotDefined: a slow tokenizer; without text, a context or vocabulary too small for random tokens.

    Source: Kamradt 2023, Needle In A Haystack; Wu et al. 2024, arXiv 2404.15574 (the needle is put at the end of a
    sentence; the score counts the answer's part of it).
    """
    given = any(each is not None for each in (text, needle, question, keys, values))
    checked_depths(depths)
    if not given and what_is_read(model) != PROSE:
        return random_needles(model, prompts=prompts, length=length, depths=depths, decoy=decoy, seed=seed)
    facts = facts_of(needle=needle, question=question, keys=keys, values=values)
    generator = torch.Generator().manual_seed(checked_seed(seed))
    most = sizes(model).n_ctx - ROOM
    wanted, places = lengths_of(length, fits=(1, most), depths=depths, prompts=prompts, generator=generator)
    hay = _Haystack(model, " ".join(shipped("prose.txt")) if text is None else text)
    start = start_token(model, None).tolist()
    rows = [
        _row(model, hay, facts, tokens - len(start), depth, start, decoy, generator)
        for tokens, depth in zip(wanted, places, strict=True)
    ]
    tokens, lengths = pad([row.ids for row in rows])
    control, _ = pad([row.control for row in rows])
    spans = {name: torch.tensor([row.spans[name] for row in rows]) for name in rows[0].spans}
    scored = inside(spans["question"], tokens.shape[1])
    bos = bool(start) or starts_with_bos(model, tokens)
    return Prompts(tokens, lengths, scored, control=control, bos=bos, tokenizer=model.tokenizer, spans=spans)


class _Row(NamedTuple):
    """One prompt and its control as token ids, and its spans."""

    ids: list[int]
    control: list[int]
    spans: Spans


class _Haystack:
    """The pieces of a text, sentences of at most `WORDS` words, and how many tokens each has."""

    def __init__(self, model: Model, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"wanted the haystack's text as a string, got {type(text).__name__}")
        sentences = [sentence.split() for sentence in SENTENCE_END.split(text)]
        cut = [words[i : i + WORDS] for words in sentences for i in range(0, len(words), WORDS)]
        self.model, self.pieces = model, [" ".join(words) for words in cut]
        self.counts: dict[int, int] = {}
        if not self.pieces:
            raise Refused("the text has no words: wanted a haystack")

    def window(self, first: int, budget: int) -> list[str]:
        """Pieces from number `first` on, with at most `budget` tokens together.

        Raises:
            Refused: no piece fits, or the whole text does not fill the budget.
        """
        taken, used = [], 0
        for at in range(first, first + len(self.pieces)):
            at %= len(self.pieces)
            if at not in self.counts:
                self.counts[at] = len(encode(self.model, " " + self.pieces[at]))
            if used + self.counts[at] > budget:
                break
            taken.append(self.pieces[at])
            used += self.counts[at]
        if not taken:
            raise Refused(
                f"a sentence of the text does not fit the {max(0, budget)} tokens that needle, decoy and question "
                "leave: wanted a greater length"
            )
        if len(taken) == len(self.pieces):
            raise Refused(
                f"the text has {used} tokens, wanted more than the {budget} of a prompt's haystack: give a longer text "
                "or a smaller length"
            )
        return taken


def _row(
    model: Model, hay: _Haystack, facts: Facts, budget: int, depth: float, start: list[int],
    decoy: bool, generator: torch.Generator,
) -> _Row:  # fmt: skip
    """One prompt of about `budget` tokens after `start`, with the needle at `depth`."""
    fact = facts.draw(generator)
    added = len(encode(model, f" {fact.needle} {fact.decoy}{fact.question}"))
    pieces = hay.window(int(torch.randint(len(hay.pieces), (1,), generator=generator)), budget - added)
    at, away = _boundaries([len(piece) for piece in pieces], depth, generator)

    def located(needle: str) -> tuple[list[int], Spans]:
        second = {away: ("decoy", fact.decoy)} if decoy else {}
        text, places = _written(pieces, {at: ("needle", needle), **second}, fact.question)
        places["query"] = (places["question"][0] + fact.query[0], places["question"][0] + fact.query[1])
        value = places["needle"][0] + facts.value_at(fact.key)
        places["answer"] = (value, value + len(needle) - facts.around(fact.key))
        ids = encode_whole(model, text, start)
        return ids, token_spans(model, text, ids, places)

    ids, spans = located(fact.needle)
    a, b = spans["answer"]
    control, same = None, b - a
    for _ in range(TRIES):
        other, others = located(facts.another(fact, generator))
        alike = sum(ids[i] == other[i] for i in range(a, b))
        if others == spans and alike < same:
            control, same = other, alike
        if not same:
            break
    if control is None or 2 * same > b - a:
        raise Refused(
            f"wanted another value of as many tokens as {fact.value!r} ({b - a}), half of them or more different at "
            f"the same place, for the control, got none in {TRIES} draws: give values of equal numbers of tokens"
        )
    return _Row(ids, control, spans)


def _written(pieces: list[str], sentences: dict[int, tuple[str, str]], question: str) -> tuple[str, Spans]:
    """The text of a prompt, and the characters of each named sentence and of the question.

    Args:
        pieces: of the haystack.
        sentences: number of the piece before which it is put -> name, sentence.
        question: put at the end.
    """
    text, spans = "", {}
    for place, piece in enumerate([*pieces, ""]):
        if place in sentences:
            name, sentence = sentences[place]
            spans[name] = (len(text), len(text) + len(sentence))
            text += f"{sentence} "
        text += f"{piece} " if piece else ""
    text = text.rstrip(" ")
    spans["question"] = (len(text), len(text) + len(question))
    return text + question, spans


def _boundaries(sizes_of: list[int], depth: float, generator: torch.Generator) -> tuple[int, int]:
    """Before which pieces the needle and the decoy are put: the boundary nearest to `depth`, and any other one."""
    ends = torch.tensor([0, *sizes_of]).cumsum(0).double()
    at = int((ends / ends[-1] - depth).abs().argmin())
    other = int(torch.randint(len(sizes_of), (1,), generator=generator))
    return at, other + (other >= at)

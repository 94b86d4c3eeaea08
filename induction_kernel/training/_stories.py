"""Stories of the synthetic language: sentences about a few persons and objects, with new names in every story."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._vocabulary import (
    ADJECTIVES,
    DEEDS,
    EMPTY,
    FIRST_NAMES,
    ID,
    LAST_NAMES,
    NOUNS,
    STATES,
    TOPICS,
    Tokens,
    check_range,
    check_size,
    distinct,
    ids,
    packed,
)

_SENTENCES = (
    "FIRST LAST DEED that the ADJECTIVE NOUN STATE .",
    "the ADJECTIVE NOUN STATE near the WORD .",
    "FIRST LAST and FIRST_2 LAST_2 DEED_2 the WORD .",
    "then FIRST LAST DEED the ADJECTIVE NOUN to FIRST_2 LAST_2 .",
    "FIRST LAST DEED a WORD , a WORD and the ADJECTIVE NOUN .",
    "the ADJECTIVE NOUN STATE very ANY .",
    "but FIRST LAST DEED that the ADJECTIVE NOUN STATE for FIRST_2 LAST_2 .",
    "the WORD and the WORD was by the ADJECTIVE NOUN .",
    "FIRST LAST DEED a WORD with the ADJECTIVE NOUN .",
    "WORD , WORD and WORD .",
    "the ADJECTIVE NOUN of FIRST LAST DEED the ADJECTIVE_2 NOUN_2 .",
    "then FIRST LAST DEED FIRST_2 LAST_2 .",
)
_SLOTS = (
    *("FIRST", "LAST", "DEED", "FIRST_2", "LAST_2", "DEED_2"),
    *("ADJECTIVE", "NOUN", "STATE", "ADJECTIVE_2", "NOUN_2", "WORD", "ANY"),
)
_SHORTEST_SENTENCE = min(len(sentence.split()) for sentence in _SENTENCES)


def stories(rng: np.random.Generator, n: int, length: int, *, persons: int = 5, objects: int = 5) -> Tokens:
    """Draws stories: sentences about a few persons and objects of two topics, cut at `length`.

    Within a story a first name has one last name and a noun one adjective; across stories any pairs occur. A verb after
    a name or a noun agrees with the first name or the adjective, the same way in every story.

    Args:
        rng: source of all randomness.
        n: number of stories.
        length: tokens in a story, with `<bos>`.
        persons: number of persons in a story, 2 to 24.
        objects: number of objects in a story, 2 to 12.

    Returns:
        int64 [story, position].
    """
    check_size(n, length)
    check_range("persons", persons, 2, len(FIRST_NAMES))
    check_range("objects", objects, 2, len(TOPICS["animal"]))
    sentences = -(-length // _SHORTEST_SENTENCE)
    tokens = _TEMPLATES[rng.integers(len(_TEMPLATES), size=(n, sentences))]
    for slot, words in _story_words(rng, tokens.shape, persons, objects).items():
        tokens = np.where(tokens == _slot(slot), words, tokens)
    return packed(tokens, length)


def _slot(name: str) -> int:
    """The negative number that stands for a slot until it is filled; -1 stays free for an empty place."""
    return -2 - _SLOTS.index(name)


def _templates() -> Tokens:
    """int64 [sentence, place]: token ids, slots and, after a sentence's end, empty places."""
    sentences = [[_slot(w) if w in _SLOTS else ID[w] for w in sentence.split()] for sentence in _SENTENCES]
    longest = max(map(len, sentences))
    return np.array([row + [EMPTY] * (longest - len(row)) for row in sentences], dtype=np.int64)


_TEMPLATES = _templates()


def _story_words(
    rng: np.random.Generator, shape: tuple[int, ...], persons: int, objects: int
) -> dict[str, Tokens]:
    """The words of every slot, each broadcastable to [story, sentence, place]."""
    n, sentences, _ = shape
    first = distinct(rng, n, ids(FIRST_NAMES), persons)
    last = distinct(rng, n, ids(LAST_NAMES), persons)
    adjective = distinct(rng, n, ids(ADJECTIVES), objects)
    topics = distinct(rng, n, np.arange(len(TOPICS)), 2)
    row = np.arange(n)[:, None]
    noun = NOUNS[
        topics[row, rng.integers(2, size=(n, objects))],
        distinct(rng, n, np.arange(NOUNS.shape[1]), objects),
    ]
    person = rng.integers(persons, size=(n, sentences))
    other = (person + rng.integers(1, persons, size=person.shape)) % persons
    thing = rng.integers(objects, size=(n, sentences))
    second = (thing + rng.integers(1, objects, size=thing.shape)) % objects
    # Some words of a topic are more frequent than others, as in real text (Zipf's law, flattened).
    frequency = np.arange(1, NOUNS.shape[1] + 1) ** -0.7
    word = NOUNS[
        topics[row[:, :, None], rng.integers(2, size=shape)],
        rng.choice(NOUNS.shape[1], size=shape, p=frequency / frequency.sum()),
    ]
    filled = {
        "FIRST": first[row, person],
        "LAST": last[row, person],
        "DEED": _agreeing(first[row, person], DEEDS),
        "FIRST_2": first[row, other],
        "LAST_2": last[row, other],
        "DEED_2": _agreeing(first[row, other], DEEDS),
        "ADJECTIVE": adjective[row, thing],
        "NOUN": noun[row, thing],
        "STATE": _agreeing(adjective[row, thing], STATES),
        "ADJECTIVE_2": adjective[row, second],
        "NOUN_2": noun[row, second],
    }
    return {name: words[:, :, None] for name, words in filled.items()} | {
        "WORD": word,
        "ANY": rng.choice(ids(ADJECTIVES), shape),
    }


def _agreeing(words: Tokens, verbs: Sequence[str]) -> Tokens:
    """The verbs that agree with these names or adjectives: always the same verb for the same word."""
    return ids(verbs)[words % len(verbs)]

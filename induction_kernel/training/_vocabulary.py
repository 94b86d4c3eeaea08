"""The vocabulary of the synthetic language: its words by kind, their token ids, and a tokenizer that reads them.

There is one token per word. Topics of episodes and nouns of stories are the same words; two topics are held out of
training episodes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Refused
from ..stores import write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = NDArray[np.int64]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SPECIALS = ("<bos>", "<unk>", "<pad>", ";", ".", ",")
BOS, UNKNOWN, PADDING, SEPARATOR = SPECIALS[:4]
FUNCTION_WORDS = _words("the a and of to was near with then that but very for at by")
DEEDS = _words("saw met gave found took kept lost made")
STATES = _words("ran fell slept shone turned rang stood grew")
ADJECTIVES = _words(
    "red blue old new tiny huge broken shiny heavy quiet strange pretty rusty golden wooden dirty"
)
FIRST_NAMES = _words(
    "Alice Bob Clara David Emma Frank Grace Henry Irene Jack Kate Leo Maria Noah Olga Peter Quinn Rosa Sam "
    "Tina Uma Victor Wendy Yusuf"
)
LAST_NAMES = _words(
    "Adams Brown Clark Davis Evans Fisher Green Harris Irwin Jones Klein Lewis Moore Nolan Owens Parker "
    "Quick Reed Stone Turner Upton Vance White Young"
)
LABELS = _words("dax wug blick fep toma zup kiki bouba lorp quib")
TOPICS = {
    "animal": _words("fox wolf bear horse sheep goat tiger lion rabbit mouse camel deer"),
    "fruit": _words("apple pear plum grape mango lemon peach cherry melon fig banana lime"),
    "tool": _words("hammer clamp drill wrench chisel pliers ladder shovel axe rake nail screw"),
    "weather": _words("rain snow wind storm fog hail sun cloud thunder frost mist breeze"),
    "body": _words("arm leg hand foot knee elbow neck shoulder ear nose mouth chin"),
    "clothes": _words("shirt coat hat scarf glove boot belt dress skirt sock jacket shoe"),
    "music": _words("drum flute violin piano guitar harp trumpet cello song choir tune organ"),
    "vehicle": _words("car truck bus train boat ship bicycle plane tram van wagon canoe"),
    "furniture": _words("table chair sofa desk bed shelf lamp stool bench cabinet mirror drawer"),
    "drink": _words("tea coffee milk juice water wine beer cider cocoa soda lemonade punch"),
    "space": _words("moon star planet comet galaxy orbit rocket meteor nebula eclipse crater satellite"),
    "school": _words("teacher pupil lesson exam book pencil chalk grade class essay library ruler"),
}
HELD_OUT_TOPICS = ("space", "school")
"""Topics that occur in stories and repeats, but never in a training episode."""
TRAINING_TOPICS = tuple(topic for topic in TOPICS if topic not in HELD_OUT_TOPICS)
VOCABULARY = (
    SPECIALS
    + FUNCTION_WORDS
    + DEEDS
    + STATES
    + ADJECTIVES
    + FIRST_NAMES
    + LAST_NAMES
    + LABELS
    + tuple(word for words in TOPICS.values() for word in words)
)

ID = {word: number for number, word in enumerate(VOCABULARY)}


def ids(words: Sequence[str]) -> Tokens:
    return np.array([ID[word] for word in words], dtype=np.int64)


CONTENT = np.concatenate(
    [ids([w for ws in TOPICS.values() for w in ws]), ids(FIRST_NAMES + LAST_NAMES + ADJECTIVES)]
)
ORDINARY = ids(VOCABULARY[3:])
OTHERS = ids(SPECIALS[3:] + FUNCTION_WORDS + DEEDS + STATES)
NOUNS = np.stack([ids(words) for words in TOPICS.values()])
EMPTY = -1
"""An empty place of a sentence or a demonstration."""


def ordinary_tokens() -> Tokens:
    """Returns the token ids of all words and punctuation marks: all except `<bos>`, `<unk>` and `<pad>`."""
    return ORDINARY.copy()


def write_tokenizer(folder: str | Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, one token per word, readable by `AutoTokenizer`.

    Words outside the language become `<unk>`. `<bos>` also ends a text; padding has its own token.

    Args:
        folder: an existing folder; files of these names are replaced.
    """
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": BOS,
        "unk_token": UNKNOWN,
        "pad_token": PADDING,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    for name, content in (("tokenizer.json", _tokenizer()), ("tokenizer_config.json", settings)):
        write_whole(Path(folder) / name, json.dumps(content, indent=1) + "\n")


def read_tokenizer() -> PreTrainedTokenizerBase:
    """Returns the language's tokenizer, as `write_tokenizer` writes it."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _tokenizer() -> dict[str, Any]:
    """The content of `tokenizer.json`, written as data: the same under every version of the library."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ID[word], "content": word} | flags for word in (BOS, UNKNOWN, PADDING)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ID, "unk_token": UNKNOWN},
    }


def distinct(rng: np.random.Generator, n: int, values: Tokens, count: int) -> Tokens:
    """int64 [n, count]: `count` distinct elements of `values` in every row."""
    return values[np.argsort(rng.random((n, len(values))), axis=1)[:, :count]].astype(np.int64)


def packed(
    tokens: Tokens, length: int, *, first: int | None = None, empty: NDArray[np.bool_] | None = None
) -> Tokens:
    """Drops empty places, puts `<bos>` (or `first`) in front and cuts: [n, sentence, place] -> [n, length]."""
    n, places = tokens.shape[0], tokens.shape[1] * tokens.shape[2]
    blank = (tokens == EMPTY if empty is None else empty).reshape(n, places)
    kept = np.argsort(blank, axis=1, kind="stable")[:, : length - 1]
    start = np.full((n, 1), ID[BOS] if first is None else first)
    return np.concatenate([start, np.take_along_axis(tokens.reshape(n, places), kept, 1)], axis=1)


def check_size(n: int, length: int) -> None:
    if n < 0 or length < 2:
        raise Refused(f"wanted n >= 0 rows of length >= 2 tokens, got n={n}, length={length}")


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise Refused(f"{name} must be a probability from 0 to 1, got {value}")


def check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Refused(f"{name} must be from {low} to {high}, got {value}")

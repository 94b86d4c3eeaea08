"""What does the embedded model read? A synthetic language of readable words in which context matters.

Three kinds of lines, each beginning with `<bos>`, whose later tokens can only be predicted from earlier ones:

- stories: names, adjectives and nouns are paired anew in every story, so a pair met once is worth copying.
  `<bos> the golden frost slept near the bear . Noah Young gave a bear with the golden frost . then Noah`
- episodes: few-shot classification. Each class is a topic, each topic gets an arbitrary label for this
  episode alone; some words are replaced by noise. The label follows the words directly.
  `<bos> apple quib ; wrench toma ; plum quib ; red toma ; hammer toma ; fig quib ;`
- repeats: a random segment of any words, said again and again.
  `<bos> fox Emma dax golden by pear fox Emma dax golden by pear fox Emma dax`

In stories a verb agrees with the word before the last: what a person does with the first name, what a thing
does with its adjective (Noah always gave, what is golden always slept). This alone makes looking at the
previous token worth learning, and so previous-token heads come early, and induction after them; without it
some seeds took two to three times as long. Repeats draw from the labels too, so that heads which copy words
learn to copy labels.

The kinds of task follow Olsson et al. 2022 (arXiv 2209.11895; literal copying, pattern matching) and Han et
al. 2025 (arXiv 2305.12766v3; demonstrations with labels). It is not natural language and contains none, and
repeats are in the training distribution here, unlike in Olsson et al.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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
MAX_CLASSES = 4

_ID = {word: number for number, word in enumerate(VOCABULARY)}
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
_EMPTY = -1
_SHORTEST_SENTENCE = min(len(sentence.split()) for sentence in _SENTENCES)


@dataclass(frozen=True)
class Mix:
    """What a training batch is made of, and how hard its episodes are.

    Attributes:
        stories: expected share of stories.
        episodes: expected share of few-shot episodes.
        repeats: expected share of repeated segments. The three add up to 1.
        noise: probability that a word of an episode is replaced by a random content word.
    """

    stories: float = 0.35
    episodes: float = 0.40
    repeats: float = 0.25
    noise: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.stories, self.episodes, self.repeats)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise Refused(f"the shares of a Mix must be at least 0 and add up to 1; got {shares}")
        _check_share("noise", self.noise)


@dataclass(frozen=True)
class Episodes:
    """Few-shot episodes and what is true of them.

    Attributes:
        tokens: int64 [episode, position], beginning with `<bos>`.
        labels: int64 [episode, class], the token id that stands for each class in this episode.
        topics: int64 [episode, class], the topic behind each class, an index into `tuple(TOPICS)`.
        classes: int64 [episode, position], the class at a label's position, -1 everywhere else.
    """

    tokens: Tokens
    labels: Tokens
    topics: Tokens
    classes: Tokens


def batch(rng: np.random.Generator, n: int, length: int, *, mix: Mix | None = None) -> Tokens:
    """Draws a training batch; how many rows each kind gets is drawn too, with the shares of `mix`.

    Args:
        rng: source of all randomness.
        n: number of rows.
        length: tokens in a row, with `<bos>`.
        mix: the shares; `Mix()` by default.

    Returns:
        int64 [row, position]: stories first, then episodes, then repeats.
    """
    mix = mix or Mix()
    counts = rng.multinomial(n, [mix.stories, mix.episodes, mix.repeats])
    return np.concatenate(
        [
            stories(rng, int(counts[0]), length),
            episodes(rng, int(counts[1]), length, noise=mix.noise).tokens,
            repeats(rng, int(counts[2]), length),
        ]
    )


def stories(rng: np.random.Generator, n: int, length: int, *, persons: int = 5, objects: int = 5) -> Tokens:
    """Draws stories: sentences about a few persons and objects of two topics, cut at `length`.

    Within a story a first name has one last name and a noun one adjective; across stories they have any. A
    verb after a name or a noun agrees with the first name or the adjective, the same way in every story.

    Args:
        rng: source of all randomness.
        n: number of stories.
        length: tokens in a story, with `<bos>`.
        persons: persons in a story, 2 to 24.
        objects: objects in a story, 2 to 12.

    Returns:
        int64 [story, position].
    """
    _check_size(n, length)
    _check_range("persons", persons, 2, len(FIRST_NAMES))
    _check_range("objects", objects, 2, len(TOPICS["animal"]))
    sentences = -(-length // _SHORTEST_SENTENCE)
    tokens = _TEMPLATES[rng.integers(len(_TEMPLATES), size=(n, sentences))]
    for slot, words in _story_words(rng, tokens.shape, persons, objects).items():
        tokens = np.where(tokens == _slot(slot), words, tokens)
    return _packed(tokens, length)


def episodes(
    rng: np.random.Generator,
    n: int,
    length: int,
    *,
    classes: int | None = None,
    noise: float = 0.1,
    words: Sequence[float] = (0.5, 0.3, 0.2),
    topics: Sequence[str] = TRAINING_TOPICS,
) -> Episodes:
    """Draws few-shot episodes: words of a class's topic, the class's label, `;`, and again, cut at `length`.

    Args:
        rng: source of all randomness.
        n: number of episodes.
        length: tokens in an episode, with `<bos>`.
        classes: classes in every episode, 2 to 4; None draws 2, 3 or 4 for each.
        noise: probability that a word is replaced by a random content word.
        words: probabilities that every demonstration of an episode has 1, 2, ... words.
        topics: topics to draw the classes from.

    Returns:
        The episodes with their labels, topics and classes. Columns of `labels` and `topics` from the number
        of an episode's own classes on are drawn but unused; with `classes` given there are none.

    Raises:
        Refused: if there are fewer topics than classes, a topic is unknown, or a share is no probability.
    """
    _check_size(n, length)
    _check_share("noise", noise)
    if min(words, default=-1) < 0 or abs(sum(words) - 1) > 1e-6:
        raise Refused(f"words must be probabilities that add up to 1; got {tuple(words)}")
    width = MAX_CLASSES if classes is None else classes
    _check_range("classes", width, 2, MAX_CLASSES)
    if len(topics) < width or not set(topics) <= set(TOPICS):
        raise Refused(f"topics must name at least {width} of {', '.join(TOPICS)}; got {tuple(topics)}")
    numbers = np.array([list(TOPICS).index(topic) for topic in topics])
    topic_of_class = _distinct(rng, n, numbers, width)
    label_of_class = _distinct(rng, n, _ids(LABELS), width)
    used = rng.integers(2, MAX_CLASSES + 1, size=(n, 1)) if classes is None else np.full((n, 1), classes)
    demonstrations = -(-length // 3)
    drawn = np.floor(rng.random((n, demonstrations)) * used).astype(np.int64)
    shown = _demonstration_words(rng, np.take_along_axis(topic_of_class, drawn, 1), noise, words)
    label = np.take_along_axis(label_of_class, drawn, 1)[:, :, None]
    tokens = np.concatenate([shown, label, np.full_like(label, _ID[SEPARATOR])], axis=2)
    marks = np.full_like(tokens, -1)
    marks[:, :, -2] = drawn
    return Episodes(
        tokens=_packed(tokens, length),
        labels=label_of_class,
        topics=topic_of_class,
        classes=_packed(marks, length, first=-1, empty=tokens == _EMPTY),
    )


def repeats(
    rng: np.random.Generator,
    n: int,
    length: int,
    *,
    periods: tuple[int, int] | None = None,
    labels: float = 0.25,
    others: float = 0.05,
) -> Tokens:
    """Draws rows that say one random segment of words again and again, cut at `length`.

    Args:
        rng: source of all randomness.
        n: number of rows.
        length: tokens in a row, with `<bos>`.
        periods: shortest and longest segment, one drawn per row; None is (6, length // 2 - 1).
        labels: probability that a token is a label.
        others: probability that it is a function word, a verb or a mark; all others are content words.

    Returns:
        int64 [row, position]; position 0 is `<bos>`, the token at i >= 1 + period equals that at i - period.

    Raises:
        Refused: if `periods` is empty or below 1.
    """
    _check_size(n, length)
    _check_share("labels", labels)
    _check_share("others", others)
    shortest, longest = (6, max(6, length // 2 - 1)) if periods is None else periods
    if not 1 <= shortest <= longest:
        raise Refused(f"periods must be (shortest, longest) with 1 <= shortest <= longest; got {periods}")
    size = (n, length - 1)
    kind = rng.random(size)
    words = np.where(kind < labels, rng.choice(_ids(LABELS), size), rng.choice(_CONTENT, size))
    words = np.where(kind > 1 - others, rng.choice(_OTHERS, size), words)
    period = rng.integers(shortest, longest + 1, size=(n, 1))
    again = np.take_along_axis(words, np.arange(length - 1)[None] % period, 1)
    return np.concatenate([np.full((n, 1), _ID[BOS]), again], axis=1)


def ordinary_tokens() -> Tokens:
    """Returns the token ids of all words and marks: all but `<bos>`, `<unk>` and `<pad>`."""
    return _ORDINARY.copy()


def write_tokenizer(folder: str | Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, one token per word, readable by `AutoTokenizer`.

    Words the language does not have become `<unk>`. `<bos>` also ends a text; padding has its own token.

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
        "added_tokens": [{"id": _ID[word], "content": word} | flags for word in (BOS, UNKNOWN, PADDING)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": _ID, "unk_token": UNKNOWN},
    }


def _ids(words: Sequence[str]) -> Tokens:
    return np.array([_ID[word] for word in words], dtype=np.int64)


_CONTENT = np.concatenate(
    [_ids([w for ws in TOPICS.values() for w in ws]), _ids(FIRST_NAMES + LAST_NAMES + ADJECTIVES)]
)
_ORDINARY = _ids(VOCABULARY[3:])
_OTHERS = _ids(SPECIALS[3:] + FUNCTION_WORDS + DEEDS + STATES)
_NOUNS = np.stack([_ids(words) for words in TOPICS.values()])


def _slot(name: str) -> int:
    """The negative number that stands for a slot until it is filled; -1 stays free for an empty place."""
    return -2 - _SLOTS.index(name)


def _templates() -> Tokens:
    """int64 [sentence, place]: token ids, slots and, after a sentence's end, empty places."""
    sentences = [[_slot(w) if w in _SLOTS else _ID[w] for w in sentence.split()] for sentence in _SENTENCES]
    longest = max(map(len, sentences))
    return np.array([row + [_EMPTY] * (longest - len(row)) for row in sentences], dtype=np.int64)


_TEMPLATES = _templates()


def _story_words(
    rng: np.random.Generator, shape: tuple[int, ...], persons: int, objects: int
) -> dict[str, Tokens]:
    """The words of every slot, each broadcastable to [story, sentence, place]."""
    n, sentences, _ = shape
    first = _distinct(rng, n, _ids(FIRST_NAMES), persons)
    last = _distinct(rng, n, _ids(LAST_NAMES), persons)
    adjective = _distinct(rng, n, _ids(ADJECTIVES), objects)
    topics = _distinct(rng, n, np.arange(len(TOPICS)), 2)
    row = np.arange(n)[:, None]
    noun = _NOUNS[
        topics[row, rng.integers(2, size=(n, objects))],
        _distinct(rng, n, np.arange(_NOUNS.shape[1]), objects),
    ]
    person = rng.integers(persons, size=(n, sentences))
    other = (person + rng.integers(1, persons, size=person.shape)) % persons
    thing = rng.integers(objects, size=(n, sentences))
    second = (thing + rng.integers(1, objects, size=thing.shape)) % objects
    # Some words of a topic are commoner than others, as in a text (Zipf's law, flattened).
    frequency = np.arange(1, _NOUNS.shape[1] + 1) ** -0.7
    word = _NOUNS[
        topics[row[:, :, None], rng.integers(2, size=shape)],
        rng.choice(_NOUNS.shape[1], size=shape, p=frequency / frequency.sum()),
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
        "ANY": rng.choice(_ids(ADJECTIVES), shape),
    }


def _agreeing(words: Tokens, verbs: Sequence[str]) -> Tokens:
    """The verbs that agree with these names or adjectives: always the same verb for the same word."""
    return _ids(verbs)[words % len(verbs)]


def _demonstration_words(
    rng: np.random.Generator, topic: Tokens, noise: float, words: Sequence[float]
) -> Tokens:
    """int64 [episode, demonstration, word]: words of the topics, some replaced; the other places empty."""
    n, demonstrations = topic.shape
    shape = (n, demonstrations, len(words))
    shown = _NOUNS[topic[:, :, None], rng.integers(_NOUNS.shape[1], size=shape)]
    shown = np.where(rng.random(shape) < noise, rng.choice(_CONTENT, shape), shown)
    # One number of words for an episode: without an arrow, the model must be able to infer where labels come.
    count = 1 + rng.choice(len(words), size=(n, 1, 1), p=words)
    return np.where(np.arange(len(words)) < count, shown, _EMPTY)


def _distinct(rng: np.random.Generator, n: int, values: Tokens, count: int) -> Tokens:
    """int64 [n, count]: in every row `count` distinct ones of `values`."""
    return values[np.argsort(rng.random((n, len(values))), axis=1)[:, :count]].astype(np.int64)


def _packed(
    tokens: Tokens, length: int, *, first: int | None = None, empty: NDArray[np.bool_] | None = None
) -> Tokens:
    """Drops empty places, puts `<bos>` (or `first`) in front, cuts: [n, sentence, place] -> [n, length]."""
    n, places = tokens.shape[0], tokens.shape[1] * tokens.shape[2]
    blank = (tokens == _EMPTY if empty is None else empty).reshape(n, places)
    kept = np.argsort(blank, axis=1, kind="stable")[:, : length - 1]
    start = np.full((n, 1), _ID[BOS] if first is None else first)
    return np.concatenate([start, np.take_along_axis(tokens.reshape(n, places), kept, 1)], axis=1)


def _check_size(n: int, length: int) -> None:
    if n < 0 or length < 2:
        raise Refused(f"wanted n >= 0 rows of length >= 2 tokens; got n={n}, length={length}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise Refused(f"{name} is a probability between 0 and 1; got {value}")


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Refused(f"{name} must be between {low} and {high}; got {value}")

"""The synthetic language that the embedded model reads, in which context matters.

There are three kinds of lines, each beginning with `<bos>`, whose later tokens can only be predicted from earlier ones:

- stories: names, adjectives and nouns are newly paired in every story, so a pair seen once is worth copying.
  `<bos> the golden frost slept near the bear . Noah Young gave a bear with the golden frost . then Noah`
- episodes: few-shot classification. Each class is a topic, and each topic gets an arbitrary label in each episode; some
  words are replaced by noise. The label follows the words directly. `<bos> apple quib ; wrench toma ; plum quib ; red
  toma ; hammer toma ; fig quib ;`
- repeats: a random segment of any words, repeated to the end. `<bos> fox Emma dax golden by pear fox Emma dax golden by
  pear fox Emma dax`

In stories a verb agrees with the last word but one: a person's verb with the first name, a thing's verb with its
adjective (Noah always "gave", golden things always "slept"). This makes attention to the previous token worth learning,
so previous-token heads form early and induction heads after them; without it some seeds took two to three times as
long. Repeats contain labels too, so that heads which copy words learn to copy labels.

The kinds of task follow Olsson et al. 2022 (arXiv 2209.11895; literal copying, pattern matching) and Han et
al. 2025 (arXiv 2305.12766v3; demonstrations with labels). It contains no natural language, and unlike in Olsson et al.,
repeats are in the training distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import Refused
from ._stories import stories
from ._vocabulary import (
    BOS,
    CONTENT,
    EMPTY,
    ID,
    LABELS,
    NOUNS,
    OTHERS,
    SEPARATOR,
    TOPICS,
    TRAINING_TOPICS,
    Tokens,
    check_range,
    check_share,
    check_size,
    distinct,
    ids,
    packed,
)

MAX_CLASSES = 4


@dataclass(frozen=True)
class Mix:
    """The composition of a training batch, and the noise in its episodes.

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
            raise Refused(f"wanted the shares of a Mix at least 0, with sum 1, got {shares}")
        check_share("noise", self.noise)


@dataclass(frozen=True)
class Episodes:
    """Few-shot episodes with their labels, topics and classes.

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
    """Draws a training batch; the number of rows of each kind is random, with the expected shares of `mix`.

    Args:
        rng: source of all randomness.
        n: number of rows.
        length: tokens in a row, with `<bos>`.
        mix: the expected shares; `Mix()` by default.

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
    """Draws few-shot episodes: words of a class's topic, the class's label, `;`, repeated and cut at `length`.

    Args:
        rng: source of all randomness.
        n: number of episodes.
        length: tokens in an episode, with `<bos>`.
        classes: classes in every episode, 2 to 4; None draws 2, 3 or 4 for each.
        noise: probability that a word is replaced by a random content word.
        words: probabilities of 1, 2, ... words in the demonstrations of an episode.
        topics: topics to draw the classes from.

    Returns:
        The episodes with their labels, topics and classes. Columns of `labels` and `topics` beyond an episode's number
        of classes are drawn but not used; with `classes` given there are none.

    Raises:
        Refused: fewer topics than classes, an unknown topic, or a share that is not a probability.
    """
    check_size(n, length)
    check_share("noise", noise)
    if min(words, default=-1) < 0 or abs(sum(words) - 1) > 1e-6:
        raise Refused(f"wanted words as probabilities with sum 1, got {tuple(words)}")
    width = MAX_CLASSES if classes is None else classes
    check_range("classes", width, 2, MAX_CLASSES)
    if len(topics) < width or not set(topics) <= set(TOPICS):
        raise Refused(f"wanted at least {width} topics of {', '.join(TOPICS)}, got {tuple(topics)}")
    numbers = np.array([list(TOPICS).index(topic) for topic in topics])
    topic_of_class = distinct(rng, n, numbers, width)
    label_of_class = distinct(rng, n, ids(LABELS), width)
    used = rng.integers(2, MAX_CLASSES + 1, size=(n, 1)) if classes is None else np.full((n, 1), classes)
    demonstrations = -(-length // 3)
    drawn = np.floor(rng.random((n, demonstrations)) * used).astype(np.int64)
    shown = _demonstration_words(rng, np.take_along_axis(topic_of_class, drawn, 1), noise, words)
    label = np.take_along_axis(label_of_class, drawn, 1)[:, :, None]
    tokens = np.concatenate([shown, label, np.full_like(label, ID[SEPARATOR])], axis=2)
    marks = np.full_like(tokens, -1)
    marks[:, :, -2] = drawn
    return Episodes(
        tokens=packed(tokens, length),
        labels=label_of_class,
        topics=topic_of_class,
        classes=packed(marks, length, first=-1, empty=tokens == EMPTY),
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
    """Draws rows that repeat one random segment of words, cut at `length`.

    Args:
        rng: source of all randomness.
        n: number of rows.
        length: tokens in a row, with `<bos>`.
        periods: shortest and longest segment, one length drawn per row; None is (6, length // 2 - 1).
        labels: probability that a token is a label.
        others: probability that it is a function word, a verb or a mark; all others are content words.

    Returns:
        int64 [row, position]; position 0 is `<bos>`, the token at i >= 1 + period equals that at i - period.

    Raises:
        Refused: `periods` out of order or below 1.
    """
    check_size(n, length)
    check_share("labels", labels)
    check_share("others", others)
    shortest, longest = (6, max(6, length // 2 - 1)) if periods is None else periods
    if not 1 <= shortest <= longest:
        raise Refused(f"wanted periods as (shortest, longest) with 1 <= shortest <= longest, got {periods}")
    size = (n, length - 1)
    kind = rng.random(size)
    words = np.where(kind < labels, rng.choice(ids(LABELS), size), rng.choice(CONTENT, size))
    words = np.where(kind > 1 - others, rng.choice(OTHERS, size), words)
    period = rng.integers(shortest, longest + 1, size=(n, 1))
    again = np.take_along_axis(words, np.arange(length - 1)[None] % period, 1)
    return np.concatenate([np.full((n, 1), ID[BOS]), again], axis=1)


def _demonstration_words(
    rng: np.random.Generator, topic: Tokens, noise: float, words: Sequence[float]
) -> Tokens:
    """int64 [episode, demonstration, word]: words of the topics, some replaced; the other places empty."""
    n, demonstrations = topic.shape
    shape = (n, demonstrations, len(words))
    shown = NOUNS[topic[:, :, None], rng.integers(NOUNS.shape[1], size=shape)]
    shown = np.where(rng.random(shape) < noise, rng.choice(CONTENT, shape), shown)
    # The same number of words in a whole episode: nothing marks a label, so the model must infer where it comes.
    count = 1 + rng.choice(len(words), size=(n, 1, 1), p=words)
    return np.where(np.arange(len(words)) < count, shown, EMPTY)

"""The facts that `needles` hides: keys, values and sentences that hold them; lengths and depths of the prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch

from .._given import is_whole, plain
from ..errors import Refused

__all__ = ["Fact", "Facts", "checked_depths", "facts_of", "lengths_of"]

LONGEST = 256  # default length in tokens, where the context allows it
NEEDLE = "Visitors to {key} always {value}."
QUESTION = "\n\nQuestion: What do visitors to {key} do?\nAnswer: They always"
KEYS = tuple(
    "Oslo Cairo Lima Rome Delhi Boston Paris Dublin Berlin Tokyo Madrid Vienna Athens Prague Moscow".split()
)
WORDS = (
    "paint carry bury polish borrow count trade weigh photograph repair".split(),
    "seven nine twelve twenty thirty eleven forty sixty".split(),
    "wooden silver broken purple heavy frozen golden rusty".split(),
    "bells ladders spoons drums wheels candles buckets statues carpets hammers".split(),
)
"""The words that a value is drawn from, one of each, so that no two values need share a token at the same place."""


class Fact(NamedTuple):
    """What one prompt says and asks: the sentences of needle and decoy, the question, the needle's key and value.

    `query` are the characters of the question that ask: the line with the key, without a label such as "Question:".
    """

    needle: str
    decoy: str
    question: str
    query: tuple[int, int]
    key: str
    value: str


@dataclass(frozen=True)
class Facts:
    """What facts are drawn from.

    Attributes:
        needle: the sentence, with `{key}` and once `{value}`.
        question: with `{key}`.
        keys: at least two.
        values: at least three; None to draw each word of a value from `WORDS`.
    """

    needle: str
    question: str
    keys: tuple[str, ...]
    values: tuple[str, ...] | None

    def draw(self, generator: torch.Generator) -> Fact:
        """A fact, and a decoy with another key and another value."""
        key, other = (self.keys[i] for i in torch.randperm(len(self.keys), generator=generator)[:2].tolist())
        value = self._value(generator)
        decoy = self._unlike(value, generator)
        return Fact(
            self._sentence(key, value),
            self._sentence(other, decoy),
            self.question.replace("{key}", key),
            _query_in(self.question, key),
            key,
            value,
        )

    def another(self, fact: Fact, generator: torch.Generator) -> str:
        """The needle's sentence with another value."""
        return self._sentence(fact.key, self._unlike(fact.value, generator))

    def value_at(self, key: str) -> int:
        """How many characters stand before the value in the sentence about this key."""
        return len(self.needle[: self.needle.index("{value}")].replace("{key}", key))

    def around(self, key: str) -> int:
        """How many characters of the sentence are not the value's."""
        return len(self._sentence(key, ""))

    def _sentence(self, key: str, value: str) -> str:
        return self.needle.replace("{key}", key).replace("{value}", value)

    def _value(self, generator: torch.Generator) -> str:
        if self.values is not None:
            return _one_of(self.values, generator)
        return " ".join(_one_of(words, generator) for words in WORDS)

    def _unlike(self, value: str, generator: torch.Generator) -> str:
        """Another value than this one."""
        while (drawn := self._value(generator)) == value:
            pass
        return drawn


def _query_in(question: str, key: str) -> tuple[int, int]:
    """The characters of the line with the key, from after a label such as "Question:", where the key is filled in."""
    at = question.index("{key}")
    begin = question.rfind("\n", 0, at) + 1
    label = re.match(r"\s*(\w+:)?\s*", question[begin:])
    assert label is not None  # it matches nothing, too
    line = question[begin + label.end() :].split("\n", 1)[0].rstrip()
    first = len(question[: begin + label.end()].replace("{key}", key))
    return first, first + len(line.replace("{key}", key))


def _one_of(items: Sequence[str], generator: torch.Generator) -> str:
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def facts_of(*, needle: Any, question: Any, keys: Any, values: Any) -> Facts:
    """What is drawn from, with the package's own where nothing is given.

    Raises:
        TypeError: no strings.
        Refused: no place for key or value, too few different keys or values.
    """
    needle, question = NEEDLE if needle is None else needle, QUESTION if question is None else question
    for what, given, names in (("needle", needle, ("key", "value")), ("question", question, ("key",))):
        if not isinstance(given, str):
            raise TypeError(f"wanted the {what} as a string, got {type(given).__name__}")
        if missing := [f"{{{name}}}" for name in names if f"{{{name}}}" not in given]:
            raise Refused(f"wanted the {what} with {' and '.join(missing)}, got {given!r}")
    if needle.count("{value}") != 1 or "{value}" in question:
        raise Refused(f"wanted {{value}} once, in the needle, got {needle!r} and {question!r}")
    return Facts(
        needle,
        question,
        KEYS if keys is None else _different(keys, "keys", 2),
        None if values is None else _different(values, "values", 3),
    )


def _different(given: Any, what: str, least: int) -> tuple[str, ...]:
    """At least so many different strings."""
    listed = plain(given)
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise TypeError(f"wanted {what} as a list of strings, got {given!r}")
    found = tuple(dict.fromkeys(listed))
    if len(found) < least or not all(each.strip() for each in found):
        raise Refused(f"wanted at least {least} different {what}, none empty, got {list(listed)}")
    return found


def checked_depths(depths: Any) -> list[float]:
    """The depths as numbers; TypeError or Refused unless there is at least one and all lie in [0, 1]."""
    listed = plain(depths)
    if not isinstance(listed, list | tuple) or not all(isinstance(each, Real) for each in listed):
        raise TypeError(f"wanted depths as a list of numbers, got {depths!r}")
    if not listed or not all(0 <= each <= 1 for each in listed):
        raise Refused(f"wanted at least one depth, from 0 to 1, got {listed}")
    return [float(each) for each in listed]


def lengths_of(
    length: Any, *, fits: tuple[int, int], depths: Any, prompts: int, generator: torch.Generator
) -> tuple[list[int], list[float]]:
    """The length and the depth of each prompt: each range evenly, in random order and independent of the other.

    Args:
        length: an int, a range (low, high), or None for half of `LONGEST`, or of what fits, to all of it.
        fits: the shortest and the longest that can be made.
        depths: as in `checked_depths`.
        prompts: how many.
        generator: of the random order.

    Raises:
        TypeError: lengths that are no whole numbers.
        Refused: fewer than one prompt, or a length that does not fit.
    """
    if not is_whole(prompts) or prompts < 1:
        raise Refused(f"wanted prompts >= 1, got {prompts!r}")
    given = plain(length)
    least, most = fits
    default = min(LONGEST, most)
    ends = (
        (max(least, default // 2), default) if given is None else (given, given) if is_whole(given) else given
    )
    if not (isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_whole, ends))):
        raise TypeError(f"wanted a length as a whole number or a range (low, high), got {length!r}")
    low, high = map(int, ends)
    if not least <= low <= high <= most:
        raise Refused(
            f"wanted a length from {least} to {most}, which leaves room for the answer, or a range (low, high), got "
            f"{length!r}"
        )
    spread = torch.linspace(low, high, prompts, dtype=torch.float64).round().long()
    listed = checked_depths(depths)
    places = torch.arange(prompts) % len(listed)
    orders = [torch.randperm(prompts, generator=generator) for _ in range(2)]
    return spread[orders[0]].tolist(), [listed[i] for i in places[orders[1]].tolist()]

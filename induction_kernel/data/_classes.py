"""Classes of a labelled data set: which spellings are the same class, their order, and the label word of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Refused
from ..prompts._examples import label_words
from ._registry import Known

__all__ = ["as_class", "words_of"]

WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(?:\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def as_class(written: Any) -> str:
    """A class as a string: 1, 1.0, "1.0" and "+1" become "1"; "01" and "3.10" stay as they are, as names."""
    found = WHOLE.fullmatch(str(written).strip())
    if found is None:
        return str(written).strip()
    return f"-{found[2]}" if found[1] == "-" and found[2] != "0" else found[2]


def words_of(
    values: Sequence[str],
    order: list[str] | None,
    labels: Sequence[str] | Mapping[Any, str] | None,
    known: Known | None,
    name: str,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The label word of each class, and all words in the order of the classes.

    Args:
        values: the class of every text, as a string.
        order: the order of the classes, if the source has one; None for numbers by size, then names by alphabet.
        labels: label words in that order or by class, as in `load_classification`; None for those of the known data
            set, else the classes themselves.
        known: the known data set that this is, if any.
        name: the source, for error messages.

    Raises:
        Refused: a single class, classes that differ only in upper and lower case, words that do not fit the classes.
    """
    found = order or sorted(set(values), key=_size)
    if len(found) < 2:
        raise Refused(
            f"wanted at least two classes, got only {found} in {name}: choose another column, or give more rows"
        )
    if isinstance(labels, Mapping):
        given = list(labels.values())
        words = label_words([word for i, word in enumerate(given) if word not in given[:i]])
        return _by_class(labels), words
    if order is None and len({value.casefold() for value in found}) < len(found):
        raise Refused(
            f"the classes {found} of {name} differ only in upper and lower case: give label words by class, as in "
            'labels={"Good": "good", "good": "good", ...}'
        )
    words = _words(found, labels, known, name)
    return words, tuple(words.values())


def _words(found: list[str], labels: Sequence[str] | None, known: Known | None, name: str) -> dict[str, str]:
    """The word of each class, in order: as given, of the known data set, or the class itself."""
    if labels is not None:
        words = label_words(labels)
        if len(words) != len(found):
            raise Refused(
                f"wanted a word for each of the {len(found)} classes {found} of {name}, got {list(words)}: give words "
                "in this order, or by class as in labels={'1': 'world', ...}"
            )
        return dict(zip(found, words, strict=True))
    if known is None:
        return dict(zip(found, found, strict=True))
    for written in known.values:
        if set(written) == set(found):
            return dict(zip(written, known.words, strict=True))
    raise Refused(
        f"wanted classes {' or '.join(str(list(each)) for each in known.values)} in {name}, got {found}: "
        "give label words by class, as in labels={'1': 'world', ...}"
    )


def _by_class(labels: Mapping[Any, str]) -> dict[str, str]:
    """The word of each class, by the class as a string; Refused if 1 and "1" have different words."""
    words: dict[str, str] = {}
    for key, word in labels.items():
        if words.setdefault(as_class(key), word) != word:
            raise Refused(f"wanted one word for the class {as_class(key)!r}, got {labels!r}")
    return words


def _size(value: str) -> tuple[bool, float, str]:
    """Sort key of a class: numbers by size, then names by alphabet."""
    return (False, float(value), value) if NUMBER.fullmatch(value) else (True, 0.0, value)

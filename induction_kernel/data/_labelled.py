"""`load_classification` and `LabelledTexts`: a labelled data set from a file, a DataFrame or the Hugging Face hub.

The data sets of Han et al. 2025 (section 5, table 2) and two with more classes are known by name: `_registry.KNOWN`
has their columns, label words and templates. Only data sets given by name use the network. Demonstrations are chosen in
`_episodes`; that label words differ in their first token is checked by `few_shot_prompts`, which has the tokenizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._given import checked_seed
from ..errors import Refused
from ..prompts._examples import label_words
from ..prompts._template import Template
from ._classes import words_of
from ._readers import Rows, Source, called, find_known, read_rows
from ._registry import PLAIN

__all__ = ["LabelledTexts", "load_classification"]

MISSING = ("refuse", "drop")


@dataclass(frozen=True, eq=False, repr=False)
class LabelledTexts:
    """A labelled data set: texts, the class of each, and a label word for every class.

    `load_classification` makes it from a file, a DataFrame or a name; it can also be made of lists. `len(data)` is the
    number of texts, and `data[index]` some of them.

    Attributes:
        texts: the inputs x.
        classes: int64 `[text]`, index of each text's class in `labels`.
        labels: the label words, one per class; at least two.
        name: the data set's name, for display.
        template: how an example is written, as in `few_shot_prompts`.

    Raises:
        TypeError: texts that are not strings, classes that are not whole numbers (1.0 counts as one).
        Refused: no texts, an empty one, a class without a label, fewer than two labels, a template without
            `{x}` and `{y}`.
    """

    texts: tuple[str, ...]
    classes: np.ndarray
    labels: tuple[str, ...]
    name: str = ""
    template: str = PLAIN

    def __post_init__(self) -> None:
        texts, labels, classes = _strings(self.texts), label_words(self.labels), _whole(self.classes)
        if not texts or not all(text.strip() for text in texts):
            raise Refused(f"wanted texts that are not empty, got {_blank(texts)}")
        if classes.shape != (len(texts),):
            raise Refused(f"wanted one class per text [{len(texts)}], got {list(classes.shape)}")
        if classes.min() < 0 or classes.max() >= len(labels):
            raise Refused(
                f"wanted classes from 0 to {len(labels) - 1} for labels {list(labels)}, "
                f"got {classes.min()} to {classes.max()}"
            )
        Template.parse(self.template, "")
        for key, value in (("texts", texts), ("labels", labels), ("classes", classes)):
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> LabelledTexts:
        """Some of the texts: a slice, indices or a bool mask."""
        places, at = np.arange(len(self)), index if isinstance(index, slice) else np.asarray(index)
        chosen = np.atleast_1d(places[at]) if isinstance(at, slice) or at.size else places[:0]
        if not len(chosen):
            raise Refused(f"wanted at least one of the {len(self)} texts, got none")
        return replace(self, texts=tuple(self.texts[i] for i in chosen), classes=self.classes[chosen])

    def __repr__(self) -> str:
        counts = np.bincount(self.classes, minlength=len(self.labels))
        each = ", ".join(f"{count} {label!r}" for label, count in zip(self.labels, counts, strict=True))
        first = " ".join(self.texts[0].split())
        shown = f"{first[:60]} ..." if len(first) > 60 else first
        return f"LabelledTexts({self.name or 'unnamed'}: {len(self)} texts, {each}; first: {shown!r})"

    def split(self, n: int, *, seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
        """Two data sets: `n` texts drawn at random, and the rest, both in random order.

        Args:
            n: number of texts in the first.
            seed: of the random draw.

        Raises:
            Refused: n below 1, or not below the number of texts.
        """
        if not 1 <= n < len(self):
            raise Refused(f"wanted n from 1 to {len(self) - 1}, one less than the number of texts, got {n}")
        order = np.random.default_rng(checked_seed(seed)).permutation(len(self))
        return self[order[:n]], self[order[n:]]

    def relabelled(self, labels: Sequence[str]) -> LabelledTexts:
        """The same data set with other label words, in the order of the classes.

        Raises:
            TypeError: not a list of words.
            Refused: another number of words than of classes, or one that occurs twice.
        """
        if not isinstance(labels, str) and len(labels) != len(self.labels):
            raise Refused(f"wanted {len(self.labels)} label words, one per class, got {list(labels)}")
        return replace(self, labels=label_words(labels))


def load_classification(
    source: Source,
    *,
    text: str | int | None = None,
    label: str | int | None = None,
    labels: Sequence[str] | Mapping[Any, str] | None = None,
    template: str | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
    missing: str | None = None,
) -> LabelledTexts:
    """Load a labelled data set from a file, a folder, a DataFrame, or by name from the Hugging Face hub.

    The source is one of:

    - A file: `.tsv` (without quoting, as in GLUE), `.csv`, `.jsonl`, Parquet, or `.txt` with lines `CLASS:fine text` or
      `CLASS text` (TREC); files with other endings by their content; any of them gzipped.
    - A pair of files: texts and classes, line by line.
    - A folder with `<split>_text.txt` and `<split>_labels.txt` (TweetEval).
    - A DataFrame.
    - A name: "sst2", "rotten_tomatoes", "tweet_eval/hate", "tweet_eval/irony", "tweet_eval/offensive", "mnli", "trec",
      "ag_news", or any "owner/name" on the hub, with `text`, `label` and `split`. Names need the package `datasets`,
      and only they use the network.

    A file or folder whose name begins with that of a known data set, such as `sst2.dev.tsv`, gets its columns, label
    words and template if none are given.

    Args:
        source: as above.
        text: the column of the inputs, or several in braces, as in "{Title}: {Review Text}" (write {{ and }} for
            braces). A number counts columns from 0, and means that a `.csv` or `.tsv` file has no header.
        label: the column of the classes, likewise. Whole numbers are the same class in any form: 1, 1.0, "1.0".
        labels: label words, either in the order of the classes (numbers by size, names by alphabet, an ordered
            categorical by its own order), or by class as in `{1: "world", ...}`, where classes may share a word.
        template: how an example is written, as in `few_shot_prompts`; None for that of the known data set, else the
            lines "Input: {x}" and "Output: {y}".
        split: which split of a folder or a named data set; None for the held-out split with public labels.
        encoding: of files; a byte-order mark overrides it.
        missing: what to do with rows whose text or class is null, NaN or blank: "refuse", or "drop" with a warning that
            lists them. None drops them from known data sets, which were published with them, and refuses others.

    Returns:
        `LabelledTexts`, in the order of the source.

    Raises:
        TypeError: another kind of source or column.
        Refused: no such file or name, unknown columns, another encoding, missing values, a single class, words that do
            not fit the classes.
        ImportError: a name without the package `datasets`, or Parquet without an engine.
        ConnectionError: a name without a network.

    Warns:
        UserWarning: rows that were left out.

    Source: Han et al. 2025, section 5, table 2 (all names but "trec" and "ag_news").
    """
    if missing is not None and missing not in MISSING:
        raise Refused(f"wanted missing in {list(MISSING)}, got {missing!r}")
    known, name = find_known(source), called(source)
    rows = read_rows(source, text, label, split, encoding, known)
    there, left_out = _complete(rows, name, missing or ("drop" if known else "refuse"))
    if left_out:
        warnings.warn(left_out, UserWarning, stacklevel=2)
    texts, values = zip(*there, strict=True)
    by_class, words = words_of(values, rows.order, labels, known, name)
    if unknown := sorted(set(values) - set(by_class)):
        raise Refused(f"wanted a word for every class of {name}, got none for {unknown} in labels={labels!r}")
    classes = np.array([words.index(by_class[value]) for value in values], dtype=np.int64)
    shown = template if template is not None else known.template if known else PLAIN
    return LabelledTexts(texts, classes, words, name, shown)


def _complete(rows: Rows, name: str, missing: str) -> tuple[list[tuple[str, str]], str]:
    """The rows that have both a text and a class, and a warning about the others ("" if there are none)."""
    pairs = list(zip(rows.texts, rows.values, strict=True))
    there = [(text, value) for text, value in pairs if text is not None and value is not None]
    lacking = {
        what: [i for i, pair in enumerate(pairs) if pair[at] is None]
        for at, what in enumerate(("text", "class"))
    }
    if missing == "refuse":
        for what, at in lacking.items():
            if at:
                raise Refused(
                    f"wanted a {what} in every row of {name}, got none in {_numbered(at)}: fill it in, or pass "
                    'missing="drop"'
                )
    if not there:
        raise Refused(f"wanted at least one labelled text in {name}, got none")
    gone = sorted({*lacking["text"], *lacking["class"]})
    said = f"{len(gone)} of {len(pairs)} rows of {name} have no text or no class and are left out: {_numbered(gone)}"
    return there, said if gone else ""


def _numbered(rows: list[int]) -> str:
    """Numbers of rows for a message, the first ten of them."""
    first = ", ".join(map(str, rows[:10]))
    return f"row{'s' if len(rows) > 1 else ''} {first}{', ...' if len(rows) > 10 else ''} (counted from 0)"


def _strings(texts: Any) -> tuple[str, ...]:
    """Texts as a tuple, from any sequence of strings; TypeError otherwise."""
    if isinstance(texts, str | Mapping) or hasattr(texts, "columns"):
        raise TypeError(f"wanted texts as a sequence of strings, got {type(texts).__name__}")
    found = tuple(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"wanted texts as a sequence of strings, got {text!r} at {i}")
    return tuple(map(str, found))


def _whole(classes: Any) -> np.ndarray:
    """Classes as int64, even if pandas made them float; TypeError if they are not whole numbers."""
    given = np.asarray(classes)
    if given.dtype.kind in "iu":
        return given.astype(np.int64)
    if given.dtype.kind != "f" or not np.isfinite(given).all() or not np.array_equal(given, np.floor(given)):
        raise TypeError(f"wanted classes as whole numbers, got {given.dtype}")
    return given.astype(np.int64)


def _blank(texts: tuple[str, ...]) -> str:
    """What is wrong with texts, for a message: none at all, or the place of an empty one."""
    if not texts:
        return "none"
    return f"an empty one at {[bool(text.strip()) for text in texts].index(False)}"

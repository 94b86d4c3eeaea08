"""How does a labelled data set come in? One shape, `LabelledTexts`, out of TSV, CSV, JSONL, text files or the hub.

The data sets of Han et al. 2025 (section 5, table 2) and two with more classes are known by name: their columns, label
words and templates are the table `known.KNOWN`. Nothing but such a name asks the network. Which texts stand in which
prompt says `episodes`; that label words differ in their first token is checked with the model's tokenizer, by
`few_shot`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..prompts.fewshot import Template, label_words
from .known import PLAIN, Known
from .rows import Rows, Source, called, find_known, read_rows

__all__ = ["LabelledTexts", "classification"]


@dataclass(frozen=True, eq=False, repr=False)
class LabelledTexts:
    """A labelled data set: texts, the class of each, and a word for every class.

    Attributes:
        texts: the inputs x.
        classes: int64 `[text]`, index into `labels`.
        labels: label words, one a class; at least two.
        name: of the data set, for people.
        template: how an example is written, as `few_shot` has it.

    Raises:
        TypeError: texts that are no strings, classes that are no whole numbers. ValueError: no texts, an empty one, a
            class without a label, fewer than two labels, a template without `{x}` and `{y}`.
    """

    texts: tuple[str, ...]
    classes: np.ndarray
    labels: tuple[str, ...]
    name: str = ""
    template: str = PLAIN

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not all(isinstance(text, str) for text in self.texts):
            raise TypeError("wanted texts as a sequence of strings")
        texts, labels, classes = tuple(self.texts), label_words(self.labels), np.asarray(self.classes)
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(f"wanted texts that are not empty, got {_blank(texts)}")
        if not np.issubdtype(classes.dtype, np.integer):
            raise TypeError(f"wanted classes as whole numbers, got {classes.dtype}")
        if classes.shape != (len(texts),):
            raise ValueError(f"wanted one class a text [{len(texts)}], got {list(classes.shape)}")
        if classes.min() < 0 or classes.max() >= len(labels):
            raise ValueError(
                f"wanted classes from 0 to {len(labels) - 1} for labels {list(labels)}, "
                f"got {classes.min()} to {classes.max()}"
            )
        Template.parse(self.template, "")
        for key, value in (("texts", texts), ("labels", labels), ("classes", classes.astype(np.int64))):
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> LabelledTexts:
        """Some of the texts: a slice, indices or a bool mask."""
        chosen = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        chosen = np.atleast_1d(chosen)
        return replace(self, texts=tuple(self.texts[i] for i in chosen), classes=self.classes[chosen])

    def __repr__(self) -> str:
        counts = np.bincount(self.classes, minlength=len(self.labels))
        each = ", ".join(f"{count} {label!r}" for label, count in zip(self.labels, counts, strict=True))
        first = " ".join(self.texts[0].split())
        shown = f"{first[:60]} ..." if len(first) > 60 else first
        return f"LabelledTexts({self.name or 'unnamed'}: {len(self)} texts, {each}; first: {shown!r})"

    def split(self, n: int, *, seed: int = 0) -> tuple[LabelledTexts, LabelledTexts]:
        """`n` texts drawn at random, and the rest, both in random order.

        Raises:
            ValueError: n not from 1 to one less than there are.
        """
        if not 1 <= n < len(self):
            raise ValueError(f"wanted n from 1 to {len(self) - 1}, got {n}")
        order = np.random.default_rng(seed).permutation(len(self))
        return self[order[:n]], self[order[n:]]

    def relabelled(self, labels: Sequence[str]) -> LabelledTexts:
        """The same with other label words, in the order of the classes."""
        if not isinstance(labels, str) and len(labels) != len(self.labels):
            raise ValueError(f"wanted {len(self.labels)} label words, one a class, got {list(labels)}")
        return replace(self, labels=label_words(labels))


def classification(
    source: Source,
    *,
    text: str | int | None = None,
    label: str | int | None = None,
    labels: Sequence[str] | Mapping[Any, str] | None = None,
    template: str | None = None,
    split: str | None = None,
    encoding: str = "utf-8",
) -> LabelledTexts:
    """A labelled data set from a file, a folder, or by name from the hub.

    Args:
        source: a file: `.tsv` (no quoting, as in GLUE), `.csv`, `.jsonl`, or `.txt` with lines `CLASS:fine text` or
            `CLASS text` (TREC); a pair of files, texts and classes line by line; a folder of `<split>_text.txt` and
            `<split>_labels.txt` (TweetEval); or a name: "sst2", "rotten_tomatoes", "tweet_eval/hate",
            "tweet_eval/irony", "tweet_eval/offensive", "mnli", "trec", "ag_news", or any "owner/name" on the hub with
            `text`, `label` and `split`. Names need the package `datasets`; only they ask the network.
        text: the column of the inputs; several in braces, as in "{premise} / {hypothesis}". A number counts columns
            from 0 and says that the file has no header.
        label: the column of the classes, likewise.
        labels: label words, either in the order of the classes (numbers by size, names by alphabet), or by class as it
            is written in the source: `{"1": "world", ...}`.
        template: how an example is written, as in `few_shot`.
        split: of a folder or a name; None for the one whose labels are public and that is not for training.
        encoding: of files.

    A file (or folder) whose name begins with that of a known data set, such as `sst2.dev.tsv`, gets that one's columns,
    label words and template where they are not given.

    Raises:
        ValueError: no such file or name, unknown columns, another encoding, rows without a class, one class alone,
            words that do not fit the classes. ImportError: a name without `datasets`. ConnectionError: no network.
    """
    known, name = find_known(source), called(source)
    rows = read_rows(source, text, label, split, encoding, known)
    order, words = _classes(rows, labels, known, name)
    index = {value: i for i, value in enumerate(order)}
    if unknown := sorted(set(rows.values) - set(order)):
        raise ValueError(f"{name} has the classes {unknown}, for which there is no word in labels={labels!r}")
    classes = np.array([index[value] for value in rows.values], dtype=np.int64)
    shown = template if template is not None else known.template if known else PLAIN
    return LabelledTexts(tuple(rows.texts), classes, words, name, shown)


def _classes(
    rows: Rows, labels: Sequence[str] | Mapping[Any, str] | None, known: Known | None, name: str
) -> tuple[list[str], tuple[str, ...]]:
    """The classes as they are written, in order, and a word for each."""
    found = rows.order or sorted(
        set(rows.values), key=lambda value: (not _whole(value), _number(value), value)
    )
    if len(found) < 2:
        raise ValueError(
            f"wanted at least two classes, got {found} alone in {name}: another column, or more rows?"
        )
    if isinstance(labels, Mapping):
        return [str(key) for key in labels], label_words(list(labels.values()))
    if labels is not None:
        words = label_words(labels)
        if len(words) != len(found):
            raise ValueError(
                f"wanted a word for each of the {len(found)} classes {found} of {name}, got {list(words)}: give words "
                "in this order, or by class as in labels={'1': 'world', ...}"
            )
        return found, words
    if known is None:
        return found, tuple(found)
    for written in known.values:
        if set(written) == set(found):
            return list(written), known.words
    raise ValueError(
        f"wanted classes {' or '.join(str(list(each)) for each in known.values)} in {name}, got {found}: "
        "give label words by class, as in labels={'1': 'world', ...}"
    )


def _whole(value: str) -> bool:
    return value.lstrip("-").isdecimal()


def _number(value: str) -> int:
    return int(value) if _whole(value) else 0


def _blank(texts: tuple[str, ...]) -> str:
    if not texts:
        return "none"
    return f"an empty one at {[bool(text.strip()) for text in texts].index(False)}"

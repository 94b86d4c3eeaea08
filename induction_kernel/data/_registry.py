"""Data sets known by name: where they are on the hub, their columns and classes, label words and templates.

They are those of Han et al. 2025 (table 2) and two with more classes. `_readers` reads them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KNOWN", "PLAIN", "Known"]

PLAIN = "Input: {x}\nOutput: {y}"


class Known(NamedTuple):
    """A known data set.

    Attributes:
        hub: repository and, if it has several, configuration on the hub.
        split: the default split, held out and with public labels.
        text: the column of the texts, or several in braces.
        label: the column of the classes.
        words: the label word of each class.
        values: spellings of the classes, in the order of the words, in the files and on the hub.
        template: how an example is written.
        revision: on the hub; None for the current one.
    """

    hub: tuple[str, ...]
    split: str
    text: str
    label: str
    words: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    template: str
    revision: str | None = None


REVIEW = "Review: {x}\nSentiment: {y}"
POLARITY = (("0", "1"), ("negative", "positive"), ("neg", "pos"))
KNOWN = {
    "sst2": Known(("stanfordnlp/sst2",), "validation", "sentence", "label", ("negative", "positive"), POLARITY, REVIEW),
    "rotten_tomatoes": Known(
        ("cornell-movie-review-data/rotten_tomatoes",), "validation", "text", "label", ("negative", "positive"),
        POLARITY, REVIEW,
    ),
    "tweet_eval/hate": Known(
        ("cardiffnlp/tweet_eval", "hate"), "validation", "text", "label", ("neutral", "hate"),
        (("0", "1"), ("non-hate", "hate")), "Tweet: {x}\nLabel: {y}",
    ),
    "tweet_eval/irony": Known(
        ("cardiffnlp/tweet_eval", "irony"), "validation", "text", "label", ("sincere", "ironic"),
        (("0", "1"), ("non_irony", "irony")), "Tweet: {x}\nTone: {y}",
    ),
    "tweet_eval/offensive": Known(
        ("cardiffnlp/tweet_eval", "offensive"), "validation", "text", "label", ("polite", "offensive"),
        (("0", "1"), ("non-offensive", "offensive")), "Tweet: {x}\nTone: {y}",
    ),
    "mnli": Known(
        ("nyu-mll/glue", "mnli"), "validation_matched", "{premise}\nHypothesis: {hypothesis}", "label",
        ("yes", "maybe", "no"), (("0", "1", "2"), ("entailment", "neutral", "contradiction")),
        "Premise: {x}\nEntailed: {y}",
    ),
    "trec": Known(
        ("CogComp/trec",), "test", "text", "coarse_label",
        ("abbreviation", "entity", "description", "person", "location", "number"),
        (("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"), ("0", "1", "2", "3", "4", "5")), "Question: {x}\nType: {y}",
        "refs/convert/parquet",  # the main revision is a script, which newer releases of `datasets` do not run
    ),
    "ag_news": Known(
        ("fancyzhx/ag_news",), "test", "text", "label", ("world", "sports", "business", "technology"),
        (("1", "2", "3", "4"), ("0", "1", "2", "3"), ("World", "Sports", "Business", "Sci/Tech")),
        "News: {x}\nTopic: {y}",
    ),
}  # fmt: skip
"""The known data sets, by name."""

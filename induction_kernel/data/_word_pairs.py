"""`word_pairs`: small tasks that ship as text: antonyms, capitals, plurals, past tense; and the embedded model's own.

Each is a list of common words with an answer each, written for this package. As prompts they read as in Todd et al.
2024 (appendix E): lines `Q: big` and `A: small`, demonstrations one blank line apart. Demonstrations are drawn by
`draw_episodes`; `Episodes.prompts` writes few-shot prompts, `Episodes.zero_shot` the queries alone.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ..errors import NotDefined, Refused
from ..model._anatomy import Model
from ..prompts._template import Template
from ..prompts._text import knows, tokenised
from ._labelled import LabelledTexts

__all__ = ["TASKS", "word_pairs"]

FOLDER = Path(__file__).parent.parent / "assets" / "tasks"
QUESTIONS = "Q: {x}\nA: {y}\n"
TASKS = {
    "antonyms": QUESTIONS, "capitals": QUESTIONS, "plurals": QUESTIONS, "past_tense": QUESTIONS, "topics": "{x} {y} ;",
}  # fmt: skip
"""Task -> how an example is written."""


def word_pairs(name: str, model: Model | None = None) -> LabelledTexts:
    """The words of a task as texts, and the answer to each as its label word.

    | name | | pairs |
    |---|---|---|
    | `antonyms` | big, small | 70 |
    | `capitals` | France, Paris | 70 |
    | `plurals` | box, boxes | 70 |
    | `past_tense` | go, went | 70 |
    | `topics` | fox, dax; apple, wug; arm, blick; car, fep: four topics, in the embedded model's language | 48 |

    Answers count by their first token, so two answers that begin with the same token cannot be told apart. Pass the
    model to leave out the later of two such pairs: `few_shot_prompts` would refuse them.

    Args:
        name: as above.
        model: gives the tokenizer; None for all pairs.

    Returns:
        `LabelledTexts`, one label word for each different answer.

    Raises:
        Refused: an unknown name.
        NotDefined: a tokenizer that does not know the words or tells fewer than 8 pairs apart; no tokenizer, or a
            slow one.
    """
    if name not in TASKS:
        near = get_close_matches(str(name), TASKS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise Refused(f"wanted a task out of {', '.join(TASKS)}, got {name!r}{hint}")
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [(word, answer) for word, answer in (line.split("\t") for line in lines)]
    if model is not None:
        pairs = _told_apart(model, name, pairs)
    labels = tuple(dict.fromkeys(answer for _, answer in pairs))
    classes = np.array([labels.index(answer) for _, answer in pairs], dtype=np.int64)
    return LabelledTexts(tuple(word for word, _ in pairs), classes, labels, name, TASKS[name])


def _told_apart(model: Model, name: str, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs whose words the tokenizer knows and whose answers begin with tokens of their own."""
    if getattr(model, "tokenizer", None) is None:
        raise NotDefined(
            "word pairs need a tokenizer, this model has none: call model.set_tokenizer first, or leave out model"
        )
    form = Template.parse(TASKS[name], "\n")
    first: dict[int, str] = {}
    kept = []
    for word, answer in pairs:
        if not (knows(model, form.query(word)) and knows(model, answer)):
            continue
        token = _first_token(model, form, word, answer)
        if first.setdefault(token, answer) == answer:
            kept.append((word, answer))
    if len(kept) < 8:
        raise NotDefined(
            f"the task {name!r} cannot be written for this model: its tokenizer tells {len(kept)} of {len(pairs)} "
            "pairs apart by the first tokens of their answers"
        )
    return kept


def _first_token(model: Model, form: Template, word: str, answer: str) -> int:
    """The token with which the answer begins after the query."""
    query, _ = tokenised(model, form.query(word))
    continued, _ = tokenised(model, f"{form.before}{word}{form.between}{answer}")
    return continued[min(len(query), len(continued) - 1)]

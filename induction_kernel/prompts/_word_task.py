"""`word_episodes`: few-shot prompts that classify single words by topic, with arbitrary label words.

They read `fox dax ; apple wug ; ... ; lemon`. Which label stands for which topic changes from prompt to prompt, so it
can only be learned from the demonstrations. No data set is needed, only a tokenizer that reads English words.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ..model._anatomy import Model
from ._few_shot import few_shot_prompts
from ._prompts import FewShotPrompts

__all__ = ["TOPICS", "own_task", "single_token_words", "word_episodes"]

TOPICS = tuple(
    words.split()
    for words in (
        "fox wolf bear horse sheep goat tiger lion rabbit mouse camel deer",
        "apple pear plum grape mango lemon peach cherry melon fig banana lime",
        "arm leg hand foot knee elbow neck shoulder ear nose mouth chin",
        "car truck bus train boat ship bicycle plane tram van wagon canoe",
    )
)
LABEL_WORDS = ("dax", "wug", "foo", "bar", "blick", "fep", "red", "blue", "yes", "no")


def word_episodes(
    model: Model, *, shots: int = 8, prompts: int = 32, noise: float = 0.0, classes: int = 2, seed: int = 0
) -> FewShotPrompts:
    """Few-shot prompts of a small classification task in English words: `fox dax ; apple wug ; ... ; lemon`.

    Every prompt draws which label word stands for which topic (animals and fruits; with more classes parts of the body
    and vehicles too), so the model can learn it only from the demonstrations. Classes are demonstrated equally often if
    the number of shots allows it, in random order; the query's word is not among the demonstrations.

    Args:
        model: gives the tokenizer. Labels are the first label words that are one token each.
        shots: demonstrations per prompt, from 1 to 11 per class.
        prompts: number of prompts.
        noise: probability, in [0, 1], that a demonstration's word is replaced by a word of any class: at 1 the labels
            carry no information.
        classes: number of classes, 2 to 4. With more classes, the most frequent label and the last one are less often
            right.
        seed: of the random draw.

    Returns:
        `FewShotPrompts`, as of `few_shot_prompts`, with the right class of every query in `demonstrations.target`.

    Raises:
        TypeError: an option that is not a number.
        Refused: an option out of its range.
        NotDefined: no tokenizer, one that does not tell the words apart, or a context too short for the prompts.
    """
    _check_episodes(shots, prompts, noise, classes)
    labels = single_token_words(model, classes)
    generator = torch.Generator().manual_seed(checked_seed(seed))

    def shuffled(items: list) -> list:
        return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

    demonstrations, queries = [], []
    for _ in range(prompts):
        words = [shuffled(topic) for topic in shuffled(list(TOPICS[:classes]))]
        queries.append(shuffled([(words[y].pop(), y) for y in range(classes)])[0])
        # The first of these classes get one demonstration more than the others where the shots do not divide evenly.
        kinds = shuffled(list(range(classes))) if classes > 2 else [0, 1]
        drawn = shuffled(
            [(words[kinds[i % classes]][i // classes], kinds[i % classes]) for i in range(shots)]
        )
        replaced = (torch.rand(shots, generator=generator, dtype=torch.float32) < noise).tolist()
        either = shuffled([word for kind in words for word in kind])
        demonstrations.append([(either[i] if replaced[i] else x, y) for i, (x, y) in enumerate(drawn)])
    return own_task(model, demonstrations, queries, template="{x} {y} ;", labels=labels, separator=" ")


def own_task(
    model: Model, demonstrations: Sequence[Any], queries: Sequence[Any], **form: Any
) -> FewShotPrompts:
    """`few_shot_prompts` for a task whose words this package chose: NotDefined on models that cannot read them.

    Raises:
        NotDefined: where `few_shot_prompts` raises Refused.
    """
    try:
        return few_shot_prompts(model, demonstrations, queries, **form)
    except Refused as error:
        raise NotDefined(f"this task cannot be written for the model: {error}") from error


def _check_episodes(shots: int, prompts: int, noise: float, classes: int) -> None:
    """Raise TypeError or Refused unless the options are in their ranges."""
    if classes not in (2, 3, 4):
        raise Refused(f"wanted 2, 3 or 4 classes, got {classes!r}")
    most = 11 * classes
    if not (is_whole(shots) and is_whole(prompts) and isinstance(noise, Real)):
        raise TypeError(
            f"wanted shots and prompts as whole numbers and noise as a number, got {shots!r}, {prompts!r} and {noise!r}"
        )
    if not classes <= shots <= most or prompts < 1 or not 0 <= noise <= 1:
        raise Refused(
            f"wanted shots {classes} to {most}, prompts >= 1 and noise 0 to 1, got {shots}, {prompts} and {noise}"
        )


def single_token_words(model: Model, count: int) -> list[str]:
    """The first `count` label words of one token each; the first `count` of all if there are not so many.

    Raises:
        NotDefined: no tokenizer.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise NotDefined(
            "few-shot prompts need a tokenizer, this model has none: call model.set_tokenizer first"
        )
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in LABEL_WORDS}
    found = [word for word, token in ids.items() if len(token) == 1 and token[0] != unknown]
    return found[:count] if len(found) >= count else list(LABEL_WORDS[:count])

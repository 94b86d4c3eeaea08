"""Few-shot prompts of drawn demonstrations, also where some labels occur in no demonstration (word pairs).

`few_shot_prompts` wants every label demonstrated, as a classification task has it. In a task of word pairs each word
has an answer of its own, so that the answers to the queries are never shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model._anatomy import Model
from ..prompts._few_shot import few_shot_prompts
from ..prompts._prompts import FewShotPrompts

__all__ = ["few_shot_of"]

Example = tuple[str, int]


def few_shot_of(
    model: Model,
    shots: Sequence[Sequence[Example]],
    asked: Sequence[Example],
    *,
    template: str,
    labels: Sequence[str],
    separator: str,
) -> FewShotPrompts:
    """What `few_shot_prompts` returns; labels without a demonstration are checked and kept like the others.

    Args:
        model: gives the tokenizer.
        shots: the demonstrations of each query, as text and class.
        asked: the queries, as text and class.
        template: how an example is written.
        labels: the label words, by class.
        separator: the text between demonstrations.

    Raises:
        As `few_shot_prompts`.
    """
    shown = {y for shot in shots for _, y in shot}
    missing = [y for y in range(len(labels)) if y not in shown]
    width, shortest = max(map(len, shots)), min((x for shot in shots for x, _ in shot), key=len)
    # They are written in further prompts, which are left out again.
    further = [[(shortest, y) for y in missing[at : at + width]] for at in range(0, len(missing), width)]
    every, queries = [*shots, *further], [*asked, *[asked[0]] * len(further)]
    found = few_shot_prompts(model, every, queries, template=template, labels=labels, separator=separator)
    return found if not further else found[: len(shots)].narrowed()

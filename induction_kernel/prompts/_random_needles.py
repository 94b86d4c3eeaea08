"""Needle prompts of random tokens, for models that read no text: a key and its value, and the key again at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._given import checked_seed
from ..errors import NotDefined
from ..model._anatomy import Model, sizes
from ._needle_words import lengths_of
from ._prompts import Prompts, pad
from ._repeated import allowed_tokens
from ._spans import inside
from ._text import start_token

__all__ = ["random_needles"]

KEY, VALUE = 2, 4  # tokens of a key and of a value
FACTS = 3 * KEY + 2 * VALUE  # needle, decoy and question
HAY = 4  # fewest tokens of the haystack


def random_needles(
    model: Model, *, prompts: int, length: Any, depths: Sequence[float], decoy: bool, seed: int
) -> Prompts:
    """As of `needles`, of distinct random tokens; only the key stands twice.

    Raises:
        NotDefined: a context or vocabulary too small.
    """
    start = start_token(model, None)
    allowed = allowed_tokens(model, exclude=0.04, bos=start)
    # Every token of a prompt is another one but those of the question, and the control's value has its own.
    most = min(sizes(model).n_ctx - VALUE, len(start) + len(allowed) - VALUE + KEY)
    least = len(start) + FACTS + HAY
    if most < least:
        raise NotDefined(
            f"needles of random tokens need {least} tokens, of which no two are the same but the key's, and {VALUE} "
            "for the answer: this model's context or vocabulary is too small"
        )
    generator = torch.Generator().manual_seed(checked_seed(seed))
    wanted, places = lengths_of(
        length, fits=(least, most), depths=depths, prompts=prompts, generator=generator
    )
    made = [
        _row(
            start.tolist(),
            allowed[torch.randperm(len(allowed), generator=generator)],
            tokens,
            depth,
            generator,
        )
        for tokens, depth in zip(wanted, places, strict=True)
    ]
    (ids, lengths), (control, _) = pad([row for row, _, _ in made]), pad([other for _, other, _ in made])
    spans = {name: torch.tensor([marked[name] for _, _, marked in made]) for name in made[0][2]}
    if not decoy:
        del spans["decoy"]  # of random tokens it is a part of the haystack
    scored = inside(spans["question"], ids.shape[1])
    tokenizer = getattr(model, "tokenizer", None)
    return Prompts(
        ids, lengths, scored, control=control, bos=len(start) == 1, tokenizer=tokenizer, spans=spans
    )


def _row(
    start: list[int], drawn: Tensor, length: int, depth: float, generator: torch.Generator
) -> tuple[list[int], list[int], dict[str, tuple[int, int]]]:
    """One prompt, its control and its spans, of tokens in random order."""
    hay = length - len(start) - FACTS
    counts = [hay, KEY, VALUE, KEY + VALUE, VALUE]
    text, key, value, decoy, other = (each.tolist() for each in drawn[: sum(counts)].split(counts))
    at = round(depth * hay)
    away = int(torch.randint(hay, (1,), generator=generator))
    away += away >= at
    row, control, spans = list(start), list(start), {}
    for place in range(hay + 1):
        if place == at:
            spans["needle"] = (len(row), len(row) + KEY + VALUE)
            spans["answer"] = (len(row) + KEY, len(row) + KEY + VALUE)
            row += key + value
            control += key + other
        if place == away:
            spans["decoy"] = (len(row), len(row) + KEY + VALUE)
            row += decoy
            control += decoy
        row += text[place : place + 1]
        control += text[place : place + 1]
    spans["question"] = spans["query"] = (len(row), len(row) + KEY)
    return row + key, control + key, spans

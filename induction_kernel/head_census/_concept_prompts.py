"""Prompts of token and concept copying: an entity of several tokens among shuffled ones, and its first token again.

`[BOS] random entity \\n random e_1`, where both random parts are the same tokens; in the corrupted run the first part
is fresh tokens, so that nothing can be copied (Feucht et al. 2025, section 2, and its released code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NotDefined, Refused
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts
from ..prompts._prose import PROSE, encoded, shipped, what_is_read
from ..prompts._repeated import allowed_tokens
from ..prompts._text import encode, knows, start_token

__all__ = ["EntityPrompts", "entity_prompts", "line_break", "several_tokens", "shuffled_text"]

LENGTHS = (2, 3, 4, 5)
"""Numbers of tokens of an entity, as in the paper's code."""


class EntityPrompts(NamedTuple):
    """Prompts whose entities have one number of tokens.

    Attributes:
        source: the entity stands in the first part.
        other: another entity stands there instead; everything else is as in `source`.
        into: the first part is fresh tokens.
        entities: ids of each prompt's entity, `[prompt, token]`.
    """

    source: Prompts
    other: Prompts
    into: Prompts
    entities: Tensor


def entity_prompts(
    model: Model, entities: Sequence[Sequence[int]] | None, *, prompts: int, length: int, seed: int
) -> list[EntityPrompts]:
    """Prompts for entities of two to five tokens, as many of each number as there are entities for.

    Args:
        model: gives vocabulary, tokenizer, BOS token and context.
        entities: ids of each entity; None for random tokens.
        prompts: how many in all.
        length: tokens of the first part, entity included.
        seed: of all draws; a local generator.

    Raises:
        Refused: a length that leaves no room beside an entity, or that does not fit the context.
        NotDefined: no two entities of one number of tokens.
    """
    start, between = start_token(model, None), torch.tensor(line_break(model), dtype=torch.long)
    whole = len(start) + 2 * length + len(between)
    if length <= max(LENGTHS) or whole > sizes(model).n_ctx:
        raise Refused(
            f"wanted a length above {max(LENGTHS)} such that twice as much fits the context of {sizes(model).n_ctx} "
            f"tokens, got {length}"
        )
    generator = torch.Generator().manual_seed(seed)
    pool = shuffled_text(model, start)
    made = []
    for size, rows in _by_length(entities, pool, prompts, generator).items():
        kept = [_drawn(pool, length - size, generator) for _ in rows]
        fresh = [_drawn(pool, length, generator) for _ in rows]
        parts = {"source": rows, "other": [*rows[1:], rows[0]]}
        first = {
            key: [torch.cat(pair) for pair in zip(kept, each, strict=True)] for key, each in parts.items()
        }
        ends = [torch.cat([between, random, row[:1]]) for random, row in zip(kept, rows, strict=True)]
        answers = torch.stack(
            [torch.stack([row[1], other[1]]) for row, other in zip(rows, parts["other"], strict=True)]
        )
        found = {
            key: _as_prompts(model, start, each, ends, answers)
            for key, each in (first | {"into": fresh}).items()
        }
        made.append(EntityPrompts(**found, entities=torch.stack(rows)))
    return made


def _as_prompts(
    model: Model, start: Tensor, first: list[Tensor], ends: list[Tensor], answers: Tensor
) -> Prompts:
    tokens = torch.stack([torch.cat([start, a, b]) for a, b in zip(first, ends, strict=True)])
    scored = torch.zeros_like(tokens, dtype=torch.bool)
    scored[:, -2:] = True
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return Prompts(
        tokens,
        lengths,
        scored,
        answers=answers,
        bos=len(start) == 1,
        tokenizer=getattr(model, "tokenizer", None),
    )


def _by_length(
    entities: Sequence[Sequence[int]] | None, pool: Tensor, prompts: int, generator: torch.Generator
) -> dict[int, list[Tensor]]:
    """Number of tokens -> entities, two or more of each, in all at most `prompts`, spread evenly."""
    share = {size: prompts // len(LENGTHS) + (at < prompts % len(LENGTHS)) for at, size in enumerate(LENGTHS)}
    out = {}
    for size in LENGTHS:
        if entities is None:
            rows = [_drawn(pool, size, generator) for _ in range(share[size])]
        else:
            there = [torch.tensor(each) for each in entities if len(each) == size]
            order = torch.randperm(len(there), generator=generator)[: share[size]]
            rows = [there[at] for at in order.tolist()]
        if len(rows) > 1:
            out[size] = rows
    if not out:
        raise NotDefined(
            "wanted at least two entities of one number of tokens, from 2 to 5: this tokenizer writes the words given "
            "as single tokens, or too few were asked for; token_copying takes random tokens"
        )
    return out


def _drawn(pool: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n different places of the pool, in random order."""
    return pool[torch.randperm(len(pool), generator=generator)[:n]]


def shuffled_text(model: Model, start: Tensor) -> Tensor:
    """The tokens to draw from: those of the package's prose, as often as there; else of the vocabulary.

    Line breaks between paragraphs are left out: `line_break` divides the two parts of a prompt.
    """
    if what_is_read(model) != PROSE:
        return allowed_tokens(model, exclude=0.04, bos=start)
    text = " ".join(" ".join(shipped("prose.txt")).split())
    return torch.tensor(encoded(model.tokenizer, text))


def line_break(model: Model) -> list[int]:
    """The token of a line break, as a list of one; none if the tokenizer has no such token."""
    if getattr(model, "tokenizer", None) is None or not knows(model, "\n"):
        return []
    return encode(model, "\n")[-1:]


def several_tokens(model: Model, words: Sequence[str]) -> dict[str, list[int]]:
    """The words that the tokenizer writes as two to five tokens after a space, with their ids."""
    if getattr(model, "tokenizer", None) is None:
        raise NotDefined(
            "this model has no tokenizer, so there are no words of several tokens: token_copying takes random tokens"
        )
    known = {word: encode(model, f" {word}") for word in dict.fromkeys(words) if knows(model, f" {word}")}
    return {word: ids for word, ids in known.items() if len(ids) in LENGTHS}

"""Prompts of `generality`: repeated passages, and lines of two words with the label of their category.

The tasks of Olsson et al. 2022, argument 4. Literal copying: `[BOS, passage, passage]`, with a control of the same
length in which another passage follows. Abstract pattern matching: lines such as `fox arm: dax`, where the label says
which of two kinds each of the two words is (in the paper a month or a colour, an animal or a fruit).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._given import checked_seed, is_whole
from ..errors import NotDefined, Refused
from ..model._anatomy import Model, sizes
from ..prompts._conversion import as_prompts
from ..prompts._prompts import FewShotPrompts, Prompts, real_positions
from ..prompts._repeated import repeated_tokens
from ..prompts._text import encode, knows, start_token
from ..prompts._word_task import TOPICS, own_task, single_token_words

__all__ = ["literal_prompts", "pattern_lines", "pattern_prompts", "repeated_passages"]

CATEGORIES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four categories: which kind the first word is of (animal, fruit) and the second (part of the body, vehicle)."""


def literal_prompts(model: Model, passages: Any, seed: int) -> Prompts:
    """Repeated passages, with a control: `Prompts` as given, cut from texts, or random tokens for None."""
    if passages is None:
        return repeated_tokens(model, prompts=16, seed=seed + 2)
    if not isinstance(passages, Prompts):
        return repeated_passages(model, passages)
    if passages.control is None:
        raise Refused(
            "wanted passages with a control, got Prompts without one: use repeated_tokens(model), or pass texts"
        )
    return as_prompts(model, passages)


def pattern_prompts(model: Model, pattern: Prompts | None, seed: int) -> Prompts | str:
    """The prompts of the pattern task, given or made; a string that says why where they cannot be made."""
    if pattern is None:
        try:
            return pattern_lines(model, seed=seed)
        except NotDefined as error:  # the tokenizer lacks the words, or the context is too short
            return str(error)
    if not isinstance(pattern, Prompts):
        raise TypeError(f"wanted pattern as Prompts made by few_shot_prompts, got {type(pattern).__name__}")
    found = pattern.demonstrations if isinstance(pattern, FewShotPrompts) else None
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "wanted a pattern whose queries carry labels, got one with queries that do not: give them to "
            "few_shot_prompts as [(x, y), ...]"
        )
    return as_prompts(model, pattern)


def repeated_passages(model: Model, texts: Any, *, prompts: int = 16, length: int = 100) -> Prompts:
    """`[BOS, passage, passage]`, of which the second copy is scored.

    Args:
        model: gives the tokenizer and the length of the context.
        texts: one text, from which evenly spaced passages are cut; or a list of passages, each used up to `length`.
        prompts: how many passages are cut from one text.
        length: most tokens of a passage; at most half the context, and in a list the length of the shortest passage.

    Returns:
        Prompts with `control`, in which the second copy is another of the passages.

    Raises:
        TypeError: neither a text nor a list of texts.
        Refused: fewer than two passages, a text too short for them, passages below 4 tokens.
        NotDefined: no tokenizer.
    """
    single = isinstance(texts, str)
    if not single and not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
        raise TypeError(f"wanted passages as one text or a list of texts, got {type(texts).__name__}")
    if not all(map(is_whole, (prompts, length))) or prompts < 2 or length < 4:
        raise Refused(f"wanted prompts >= 2 and length >= 4, got {prompts!r} and {length!r}")
    start = start_token(model, None)
    rows = [torch.tensor(encode(model, text)) for text in ([texts] if single else texts)]
    most = min(length, (sizes(model).n_ctx - len(start)) // 2)
    rows = _cut(rows[0], prompts, most) if single else [row[: min(most, *map(len, rows))] for row in rows]
    if len(rows) < 2 or len(rows[0]) < 4:
        got = f"{len(rows)} of {len(rows[0]) if rows else 0} tokens"
        raise Refused(
            f"wanted at least two passages of 4 tokens or more, got {got}: pass longer texts, or more"
        )
    passage = torch.stack(rows)
    first = start.expand(len(rows), -1)
    tokens = torch.cat([first, passage, passage], 1)
    control = torch.cat([first, passage, passage.roll(1, 0)], 1)
    lengths = torch.full((len(rows),), tokens.shape[1])
    second = torch.arange(tokens.shape[1]) >= len(start) + passage.shape[1]
    scored = real_positions(tokens, lengths) & second
    return Prompts(tokens, lengths, scored, control=control, bos=len(start) == 1, tokenizer=model.tokenizer)


def _cut(ids: torch.Tensor, count: int, length: int) -> list[torch.Tensor]:
    """Evenly spaced passages of the text that do not overlap."""
    if len(ids) < count * length:
        raise Refused(
            f"{count} passages of {length} tokens need a text of {count * length}, got {len(ids)}: pass a longer one"
        )
    step = len(ids) // count
    return [ids[i * step : i * step + length] for i in range(count)]


def pattern_lines(model: Model, *, lines: int = 16, prompts: int = 64, seed: int = 0) -> Prompts:
    """Lines of two words and the label of their category, then the two words of the query.

    The first word is an animal or a fruit, the second a part of the body or a vehicle: four categories, each in the
    same number of lines, with labels drawn for every prompt. No word is repeated in a prompt, so only its kind says
    which lines are like the query. A line is `fox arm: dax` where the tokenizer knows a colon, otherwise
    `fox arm dax ;`.

    Args:
        model: gives the tokenizer and the length of the context.
        lines: lines in a prompt, a multiple of 4 from 4 to 20.
        prompts: how many prompts.
        seed: of all draws.

    Returns:
        Prompts with `demonstrations`.

    Raises:
        Refused: an option out of its range.
        NotDefined: no tokenizer, or one that does not know the words; a context too short for the lines.

    Source: Olsson et al. 2022, argument 4 (abstract pattern matching).
    """
    if not is_whole(lines) or lines % 4 or not 4 <= lines <= 20 or not is_whole(prompts) or prompts < 1:
        raise Refused(
            f"wanted lines as a multiple of 4 from 4 to 20 and prompts >= 1, got {lines!r} and {prompts!r}"
        )
    labels = single_token_words(model, 4)
    generator = torch.Generator().manual_seed(checked_seed(seed))

    def shuffled(items: Sequence) -> list:
        return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]

    demonstrations, queries = [], []
    for _ in range(prompts):
        words = [shuffled(topic) for topic in TOPICS]
        classes = shuffled(range(4))  # which label each category has
        queried, *kinds = [
            CATEGORIES[i] for i in [*shuffled(range(4))[:1], *shuffled(list(range(4)) * (lines // 4))]
        ]
        shots = [(_line(words, kind), classes[CATEGORIES.index(kind)]) for kind in [queried, *kinds]]
        queries.append(shots[0])
        demonstrations.append(shots[1:])
    template, separator = ("{x}: {y}", "\n") if knows(model, ":") else ("{x} {y} ;", " ")
    return own_task(model, demonstrations, queries, template=template, labels=labels, separator=separator)


def _line(words: list[list[str]], kind: tuple[int, int]) -> str:
    return f"{words[kind[0]].pop()} {words[2 + kind[1]].pop()}"

"""What `retrieval` reads of the attention: at which keys a head's largest weight lies where a token is written.

Whether the text was written by the model or given to it is decided in `_retrieval`; here it is the span "written".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..prompts._prompts import Prompts, pad
from ..prompts._spans import inside, span_of
from ..scorers._pattern_entries import Entries, Reads

__all__ = ["Copies", "with_continuation"]


class Steps(NamedTuple):
    """The written tokens of some prompts, `[step]`, and the keys that each of them can see.

    Attributes:
        prompt: whose token it is.
        query: the position that predicts it, one before it.
        seen: `[step, key]`, keys up to the query.
        copies: `[step, key]`, keys in the needle's answer that hold the same token.
    """

    prompt: Tensor
    query: Tensor
    seen: Tensor
    copies: Tensor


@dataclass(frozen=True)
class Copies:
    """A scorer for `observed`: the share of an answer's positions on which a head's largest attention lies in time.

    Attributes:
        name: the result's `method`.
        title: one line for figures.
        paper: source of the definition.
        matched: whether the matched control is a null for it.
        tested: whether heads are tested on it.
    """

    name: str
    title: str
    paper: str
    matched: bool = True
    tested: bool = True

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """All keys of the queries that predict written tokens, and the variables made of the largest of each."""
        steps = steps_of(prompts)
        step, key = steps.seen.nonzero(as_tuple=True)
        n, width, size = len(prompts), prompts.tokens.shape[1], answer_sizes(prompts)

        def top(values: Tensor) -> Tensor:
            dense = values.new_full((*steps.seen.shape, values.shape[1]), -1.0)
            dense[step, key] = values
            return dense.argmax(1)  # [step, head], the first of equal ones

        def score(values: Tensor) -> Tensor:
            largest = top(values)
            row, head = steps.copies.gather(1, largest).nonzero(as_tuple=True)
            copied = torch.zeros(n, width, values.shape[1], dtype=torch.float64)
            copied[steps.prompt[row], largest[row, head], head] = 1.0
            return copied.sum(1) / size[:, None]

        def share(span: Tensor) -> Callable[[Tensor], Tensor]:
            there = inside(span, width)[steps.prompt]
            counts = torch.bincount(steps.prompt, minlength=n).double()[:, None]

            def made(values: Tensor) -> Tensor:
                hits = there.gather(1, top(values)).double()
                return torch.zeros(n, values.shape[1]).double().index_add_(0, steps.prompt, hits) / counts

            return made

        spans = {name: (prompts.spans or {}).get(name) for name in ("needle", "decoy")}
        made = {"score": score} | {f"in_{name}": share(at) for name, at in spans.items() if at is not None}
        return Reads(Entries(steps.prompt[step], steps.query[step], key), made)

    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor:
        """`[prompt]`: the score of a head whose largest attention is at any key up to the query, with equal chances."""
        steps = steps_of(prompts)
        missed = 1.0 - steps.copies.double() / (steps.query + 1)[:, None]
        never = torch.ones(len(prompts), prompts.tokens.shape[1], dtype=torch.float64)
        never.scatter_reduce_(0, steps.prompt[:, None].expand_as(missed), missed, "prod")
        return (1.0 - never).sum(1) / answer_sizes(prompts)


def steps_of(prompts: Prompts) -> Steps:
    """The written tokens of these prompts; copies are of the prompts' own tokens, also where their control is read."""
    tokens, width = prompts.tokens, prompts.tokens.shape[1]
    prompt, at = inside(span_of(prompts.spans, "written"), width).nonzero(as_tuple=True)
    same = tokens[prompt] == tokens[prompt, at][:, None]
    copies = same & inside(span_of(prompts.spans, "answer"), width)[prompt]
    return Steps(prompt, at - 1, torch.arange(width) < at[:, None], copies)


def answer_sizes(prompts: Prompts) -> Tensor:
    """`[prompt]`: how many tokens the needle's answer has."""
    begin, stop = span_of(prompts.spans, "answer").unbind(1)
    return (stop - begin).double()


def with_continuation(prompts: Prompts, rows: Sequence[Sequence[int]]) -> Prompts:
    """The prompts with further tokens after each, in the control too, as the span "written"."""

    def longer(tokens: Tensor) -> tuple[Tensor, Tensor]:
        own = zip(tokens.tolist(), prompts.lengths.tolist(), rows, strict=True)
        return pad([[*row[:length], *more] for row, length, more in own])

    tokens, lengths = longer(prompts.tokens)
    written = torch.stack([prompts.lengths, lengths], 1)
    return replace(
        prompts,
        tokens=tokens,
        lengths=lengths,
        scored=inside(written - 1, tokens.shape[1]),
        control=None if prompts.control is None else longer(prompts.control)[0],
        spans={**(prompts.spans or {}), "written": written},
    )

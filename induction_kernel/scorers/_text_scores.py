"""First token and current token: attention on ordinary text to position 0, and to the query's own position.

A head whose attention rests on the first token is called an attention sink (Xiao et al. 2024). The control of
`first_token` puts another token there; that of `current_token` is what the same query attends to elsewhere. Neither
says what such a head is for: `head_sizes` describes how much attention rests on position 0 whatever stands there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from .. import masks
from ..errors import NotDefined
from ..model._anatomy import Model
from ..prompts._prompts import Prompts
from ..prompts._prose import ordinary_text, what_is_read
from ..prompts._repeated import allowed_tokens
from ..replay._attention_rows import Entries
from ._attention_scorer import AttentionScorer
from ._pattern_entries import Reads, entries_together
from ._streaming import averaged

__all__ = ["GIVEN", "TextScorer", "beside_neighbours", "current_token", "first_token"]

GIVEN = "the prompts given"


def _ordinary(model: Model) -> Prompts:
    return ordinary_text(model)


@dataclass(frozen=True, repr=False)
class TextScorer(AttentionScorer):
    """A scorer whose results say what they were measured on, in the attribute `text`.

    It is "the prompts given", or what `source` says of the scorer's own prompts. The other attributes are those of
    `AttentionScorer`.

    Attributes:
        source: from the model, what the scorer's own prompts are.
    """

    prompts: Callable[[Model], Prompts] = _ordinary
    matched: bool = False
    source: Callable[[Model], str] = what_is_read

    def said(self, model: Model, prompts: Any) -> dict[str, str]:
        """The attribute `text`."""
        return {"text": self.source(model) if prompts is None else GIVEN}


@dataclass(frozen=True, repr=False)
class FirstToken(TextScorer):
    """Attention to position 0, whose control is a run in which another token stands there.

    The attributes are those of `AttentionScorer`.
    """

    def replaced(self, model: Model, prompts: Prompts) -> Tensor:
        """Tokens `[prompt, position]` of the control: the first is another ordinary token, which the prompt lacks.

        It is chosen by the prompt's own tokens, so it depends on no other prompt. Where a prompt holds every ordinary
        token of the vocabulary, it is one that stands elsewhere in the prompt.

        Raises:
            NotDefined: no other token in the vocabulary.
        """
        allowed = allowed_tokens(model, exclude=0.04, bos=torch.zeros(0, dtype=torch.long))
        tokens = prompts.tokens.clone()
        for i, length in enumerate(prompts.lengths.tolist()):
            row = prompts.tokens[i, :length]
            absent = allowed[~torch.isin(allowed, row)]
            others = absent if len(absent) else allowed[allowed != row[0]]
            if not len(others):
                raise NotDefined(
                    "this model's vocabulary has no other token to put in the place of the first"
                )
            tokens[i, 0] = others[crc32(str(row.tolist()).encode()) % len(others)]
        return tokens


@dataclass(frozen=True, repr=False)
class CurrentToken(TextScorer):
    """Attention to the query's own position, whose control is the mean over its other keys but the first.

    The attributes are those of `AttentionScorer`.
    """

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The entries (i, i) and (i, 0), and what is computed from them: `score`, and `control` from the same run."""
        own = self.entries(prompts, causal=causal)
        first = Entries(own.prompt, own.query, torch.zeros_like(own.key))
        keys = own.query + 1 if causal else prompts.lengths[own.prompt]
        weight, n = 1.0 / self._queries(prompts, own), len(own.key)

        def score(values: Tensor) -> Tensor:
            return averaged(values[:n], own.prompt, weight, len(prompts))

        def control(values: Tensor) -> Tensor:
            rest = (1.0 - values[:n].double() - values[n:].double()).clamp(
                min=0
            )  # of a row, which adds up to 1
            return averaged(rest / (keys - 2)[:, None], own.prompt, weight, len(prompts))

        return Reads(entries_together([own, first]), {"score": score, "control": control})


def _with_two_before(tokens: Tensor, lengths: Tensor) -> Tensor:
    """True at (i, i) for i > 2: two keys before stand between the first one and the query."""
    mask = masks.current_key(tokens, lengths)
    mask[:, :3] = False
    return mask


@dataclass(frozen=True, repr=False)
class Neighbours(TextScorer):
    """Attention to one lag, whose control is what attention that falls off evenly has there.

    With a0, a1, a2 the mean attention to the current token, the one before and the one before that, evenly means that
    a0 : a1 = a1 : a2, as of ALiBi's biases where nothing else counts. So the control of lag 0 is a1 a1 / a2, at most 1,
    and that of lag 1 the root of a0 a2.

    The attributes are those of `AttentionScorer`; `lag` is 0 or 1.
    """

    lag: int = 0

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The entries (i, i), (i, i - 1) and (i, i - 2) of queries from the fourth on."""
        own = self.entries(prompts, causal=causal)
        weight, n = 1.0 / self._queries(prompts, own), len(own.key)

        def means(values: Tensor) -> list[Tensor]:
            parts = (values[at * n : (at + 1) * n].double() for at in range(3))
            return [averaged(each, own.prompt, weight, len(prompts)) for each in parts]

        def control(values: Tensor) -> Tensor:
            current, previous, before = means(values)
            if self.lag:
                return (current * before).sqrt()
            return torch.where(previous == 0, 0.0, previous**2 / before).clamp(max=1)

        wanted = [Entries(own.prompt, own.query, own.key - lag) for lag in range(3)]
        return Reads(
            entries_together(wanted), {"score": lambda values: means(values)[self.lag], "control": control}
        )


def beside_neighbours(name: str, lag: int, title: str, paper: str) -> AttentionScorer:
    """Attention to the current token (`lag` 0) or the previous one (1), beside what its neighbours lead one to expect.

    For a census: an untrained model with ALiBi's biases attends most to the current token and much to the previous one,
    and is no head of either kind.
    """
    return Neighbours(
        name, _with_two_before, lag=lag, title=title, paper=f"{paper}; control: induction_kernel"
    )


first_token: AttentionScorer = FirstToken(
    "first_token",
    masks.first_key,
    title="attention to the first token",
    paper="Xiao et al. 2024, attention sinks; Gu et al. 2025",
)
"""First-token score: attention to position 0, averaged over all later queries, on ordinary text by default.

In [0, 1]; the importance of the first token in Gu et al. 2025 without its first query, which sees nothing else. The
control is the same with another ordinary token in place of the first, so a head that rests on position 0 whatever
stands there (as most attention sinks do) has a high score and no excess: `excess` says how much more it looks there
because of the token, such as BOS. Prompts that begin with no BOS token have an ordinary token in both runs.
"""

current_token: AttentionScorer = CurrentToken(
    "current_token",
    masks.current_key,
    title="attention to the current token",
    paper="McDougall, ARENA 1.2 (current-token heads); control: induction_kernel",
)
"""Current-token score: attention from a position to itself, on ordinary text by default.

In [0, 1]; averaged over queries from position 2 on. The control is what the query attends to elsewhere, a key: the mean
over its keys but the current and the first, in the same run. So a head that is uniform but for a rest on the first
token has no excess. One whose attention falls off with distance has some: the score says where a head looks, not why.
"""

"""Query-focused retrieval: how much of a question's attention lies on the needle that answers it (Zhang et al. 2025).

The score is calibrated, as in the paper, by the attention of an empty question in the same place. It says where heads
look while the question is read, whatever the model answers; `_retrieval` scores copying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from .._given import is_whole, plain
from ..errors import Refused
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts, decoded, pad
from ..prompts._spans import inside, span_of
from ..prompts._text import encode, knows
from ..scorers._pattern_entries import Entries, Reads
from ..scorers._streaming import averaged, observed
from ._retrieval import needle_coordinates, needle_prompts

__all__ = ["query_focused_retrieval"]

NULL = " N/A"


def query_focused_retrieval(
    model: Model,
    prompts: Any = None,
    *,
    null: str | Sequence[int] | None = None,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Query-focused retrieval score of every head: attention of the question's tokens to the needle, calibrated.

    The score of a prompt is the attention summed over the needle's tokens, averaged over the question's. `control` is
    the same with an empty question in place of the question: `score - control`, the excess of `summarise`, is the
    paper's calibrated score. `decoy` is the score on the decoy, a needle about another key.

    Args:
        model: any TransformerLens model.
        prompts: with spans "needle" and "question" (last in the prompt), as `prompts.needles` makes them; None for
            `needles(model)`.
        null: the empty question, as text or token ids; None for " N/A", as in the paper's code, or, where the tokenizer
            does not know that, the token that is rarest in the prompts (the attribute `null` says which).
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (prompt, layer, head) with `score`, `control` and, if the prompts have decoys, `decoy`, each in
        [0, 1]; `chance[prompt]`, the score of uniform attention over the past; coordinates `depth` and `length`.

    Raises:
        TypeError: `null` in another form.
        Refused: prompts without these spans, or in which text follows the question; attention that is not finite.

    Source: Zhang et al. 2025, arXiv 2506.09944, QRscore = 1/|q| sum over question and document tokens of attention;
    princeton-pli/QRHead, `score_docs_per_head_for_detection`, subtracts the attention of the query "N/A". That code
    also leaves out document tokens whose calibrated attention is more than two standard deviations below their mean;
    here all tokens count.
    """
    ready = needle_prompts(model, prompts)
    question = span_of(ready.spans, "question")
    if bool((question[:, 1] != ready.lengths).any()):
        row = int((question[:, 1] != ready.lengths).int().argmax())
        raise Refused(f"wanted the question at the end of each prompt, got text after it in prompt {row}")
    ids = _null_ids(model, ready, null)
    options = {"layers": layers, "batch_size": batch_size, "progress": progress}
    found = observed(model, replace(ready, control=None), [QuestionAttention()], **options).isel(scorer=0)
    empty = observed(model, _asked(ready, ids), [QuestionAttention()], **options).isel(scorer=0)
    out = found.drop_vars("period").assign_coords(needle_coordinates(ready))
    return out.assign(control=empty["score"]).assign_attrs(null=decoded(ready.tokenizer, ids))


@dataclass(frozen=True)
class QuestionAttention:
    """A scorer for `observed`: attention from the question to the needle, and to the decoy."""

    name: str = "query_focused_retrieval"
    title: str = "attention of the question's tokens to the needle"
    paper: str = "Zhang et al. 2025, arXiv 2506.09944"
    matched: bool = False  # its control has another question, and so another length
    tested: bool = True

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The entries of the question's rows at the needle and the decoy, and what is computed from them."""
        names = [name for name in ("needle", "decoy") if name in (prompts.spans or {})]
        parts = [entries_of(prompts, name) for name in names]
        counts = [len(part.key) for part in parts]
        weight = 1.0 / question_sizes(prompts)

        def of(number: int) -> Callable[[Tensor], Tensor]:
            def made(values: Tensor) -> Tensor:
                return averaged(values.split(counts)[number], parts[number].prompt, weight, len(prompts))

            return made

        made = {("score" if name == "needle" else name): of(i) for i, name in enumerate(names)}
        return Reads(Entries(*(torch.cat(indices) for indices in zip(*parts, strict=True))), made)

    def chance(self, prompts: Prompts, *, causal: bool = True) -> Tensor:
        """`[prompt]`: the score of uniform attention over the past, or over all of the prompt."""
        entries = entries_of(prompts, "needle")
        seen = entries.query + 1 if causal else prompts.lengths[entries.prompt]
        weight = 1.0 / question_sizes(prompts)
        return averaged((1.0 / seen.double())[:, None], entries.prompt, weight, len(prompts))[:, 0]


def entries_of(prompts: Prompts, name: str) -> Entries:
    """The entries of the question's rows at the keys of a span; the question is last, so all are in the past."""
    width = prompts.tokens.shape[1]
    rows = inside(span_of(prompts.spans, "question"), width)[:, :, None]
    return Entries(*(rows & inside(span_of(prompts.spans, name), width)[:, None]).nonzero(as_tuple=True))


def question_sizes(prompts: Prompts) -> Tensor:
    """`[prompt]`: how many tokens the question has."""
    begin, stop = span_of(prompts.spans, "question").unbind(1)
    return (stop - begin).double()


def _null_ids(model: Model, prompts: Prompts, null: Any) -> list[int]:
    """The tokens of the empty question."""
    if isinstance(null, str):
        return _some(encode(model, null))
    if null is not None:
        listed = plain(null)
        if not isinstance(listed, list | tuple) or not all(map(is_whole, listed)):
            raise TypeError(f"wanted null as text or a list of token ids, got {null!r}")
        ids, d_vocab = [int(each) for each in listed], sizes(model).d_vocab
        if beyond := [each for each in ids if not 0 <= each < d_vocab]:
            raise Refused(f"wanted token ids from 0 to {d_vocab - 1} in null, got {beyond[0]}")
        return _some(ids)
    if getattr(model, "tokenizer", None) is not None and knows(model, NULL):
        return _some(encode(model, NULL))
    counts = torch.bincount(prompts.tokens.flatten(), minlength=sizes(model).d_vocab)
    return [int(counts.argmin())]


def _some(ids: list[int]) -> list[int]:
    if not ids:
        raise Refused(
            "wanted null with at least one token, got none: the empty question takes the question's place"
        )
    return ids


def _asked(prompts: Prompts, ids: list[int]) -> Prompts:
    """The prompts with these tokens in place of the question, and no control."""
    begins = span_of(prompts.spans, "question")[:, 0]
    tokens, lengths = pad(
        [[*row[:begin], *ids] for row, begin in zip(prompts.tokens.tolist(), begins.tolist(), strict=True)]
    )
    question = torch.stack([begins, lengths], 1)
    spans = {name: at for name, at in (prompts.spans or {}).items() if bool((at[:, 1] <= lengths).all())}
    scored = inside(question, tokens.shape[1])
    return replace(
        prompts, tokens=tokens, lengths=lengths, scored=scored, control=None, answers=None,
        spans=spans | {"question": question},
    )  # fmt: skip

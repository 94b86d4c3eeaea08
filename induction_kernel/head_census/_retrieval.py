"""Retrieval heads: which heads copy a needle's tokens while the model answers a question about it (Wu et al. 2024).

`retrieval` reads them while the model writes freely, as published; `retrieval_forced` while the needle's answer is
given as if the model had written it, in one pass. Only a head's largest weight is read, not its effect:
`interventions` measures that. Attention of a question to a needle is scored in `_retrieval_by_question`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._given import is_whole
from ..errors import Refused
from ..model._anatomy import Model, check_model, sizes
from ..model._outputs import check_next_token
from ..prompts._conversion import as_prompts
from ..prompts._needles import needles
from ..prompts._prompts import Prompts, decoded
from ..prompts._spans import span_of
from ..scorers._streaming import observed
from ._retrieval_copies import Copies, with_continuation
from ._retrieval_writing import written

__all__ = ["needle_coordinates", "needle_prompts", "retrieval", "retrieval_forced"]

PAPER = "Wu et al. 2024, arXiv 2404.15574"
PUBLISHED = 0.1  # from this score on the paper calls a head a retrieval head
RECALLED = 0.5  # share of the answer's tokens that have to be written
INSTEAD = "query_focused_retrieval(model, prompts) reads the attention of the question alone"


def retrieval(
    model: Model,
    prompts: Any = None,
    *,
    max_new_tokens: int = 32,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Retrieval score of every head, while the model answers freely: the share of the needle's answer that it copies.

    The model writes greedily after each prompt, up to a line break, its end-of-text token or `max_new_tokens`. A head
    copies a token of the answer if, where that token is written, its largest attention lies on a copy of it inside the
    needle's answer (the first key, if several are equally large). The score is the number of the answer's positions
    copied so, over their number.

    A prompt counts only if the model recalls the needle: if it writes more than half of the answer's tokens, in any
    order (a token that stands n times counts at most n times). Else its score is NaN; `recall` says how many it wrote.

    Args:
        model: any TransformerLens model that predicts next tokens.
        prompts: with spans "needle" and "answer", as `prompts.needles` makes them; None for needles without a decoy, as
            published.
        max_new_tokens: at most so many tokens are written.
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (prompt, layer, head), for `summarise`, `head_table` and `head_map`:

        | variable | meaning |
        |---|---|
        | `score` | share of the answer copied, in [0, 1]; NaN where the needle is not recalled |
        | `control` | the same keys, read with another value in the needle: found by position, not by token |
        | `in_needle`, `in_decoy` | share of written tokens at which the largest weight is in the needle, the decoy |
        | `chance[prompt]` | the score if every key were the largest with the same probability |
        | `recall[prompt]` | share of the answer's tokens that were written |

        Coordinates by prompt: `depth` of the needle (0 to 1), `length` in tokens, `written`. The published threshold,
        a mean score of 0.1, is the attribute `published_threshold`; `passes` of `summarise` is tested against the
        control.

    Raises:
        TypeError: `max_new_tokens` that is no whole number.
        Refused: prompts without these spans; an answer that does not fit the context; attention that is not finite.
        NotDefined: a model that predicts no next tokens.

    Source: Wu et al. 2024, section 2, "retrieval score" |g and k| / |k| with g the tokens that the head copies and k
    those of the needle; nightdessert/Retrieval_Head, `retrieval_head_detection.py`: the answer's part of the needle
    ("real_needle"), the largest weight alone, and only answers with a unigram recall above one half. Unlike there, a
    position that is copied twice counts once, so that the score ends at 1, and recall is of tokens, not of stemmed
    words.
    """
    ready = needle_prompts(model, prompts, decoy=False)
    check_next_token(model, "retrieval", INSTEAD)
    if not is_whole(max_new_tokens):
        raise TypeError(f"wanted max_new_tokens as a whole number, got {max_new_tokens!r}")
    room = sizes(model).n_ctx - int(ready.lengths.max())
    if max_new_tokens < 1:
        raise Refused(f"wanted max_new_tokens >= 1, got {max_new_tokens}")
    answers = answers_of(ready)
    check_room(room, max(map(len, answers)))
    options = {"batch_size": batch_size, "progress": progress}
    rows = written(model, ready, answers, most=min(int(max_new_tokens), room), **options)
    scorer = Copies("retrieval", "share of the needle's answer copied while the model writes", PAPER)
    found = observed(model, with_continuation(ready, rows), [scorer], layers=layers, **options)
    out = _recalled(_labelled(found, ready), ready, answers, rows)
    return out.assign_attrs(max_new_tokens=int(max_new_tokens))


def retrieval_forced(
    model: Model,
    prompts: Any = None,
    *,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Retrieval score of every head with the right answer given after the prompt: one pass, whatever the model says.

    As `retrieval`, with the tokens of the needle's answer in place of what the model would write. All prompts count,
    also those whose needle the model would not find by itself; so this is not the published score.

    Args:
        model: any TransformerLens model that predicts next tokens.
        prompts: as of `retrieval`; None for `needles(model)`, with a decoy.
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset as of `retrieval`, without `recall` and `written`.

    Raises:
        Refused: as of `retrieval`.
        NotDefined: a model that predicts no next tokens.

    Source: this package's variant of Wu et al. 2024; see `retrieval`.
    """
    ready = needle_prompts(model, prompts)
    check_next_token(model, "retrieval_forced", INSTEAD)
    answers = answers_of(ready)
    check_room(sizes(model).n_ctx - int(ready.lengths.max()), max(map(len, answers)))
    scorer = Copies("retrieval_forced", "share of the needle's answer copied while it is given", PAPER)
    options = {"layers": layers, "batch_size": batch_size, "progress": progress}
    return _labelled(observed(model, with_continuation(ready, answers), [scorer], **options), ready)


def needle_prompts(model: Model, prompts: Any, *, decoy: bool = True) -> Prompts:
    """The user's prompts, which must have the spans "needle" and "answer", or needles, with a decoy or without."""
    check_model(model)
    ready = needles(model, decoy=decoy) if prompts is None else as_prompts(model, prompts)
    for name in ("needle", "answer"):
        span_of(ready.spans, name)
    return ready


def answers_of(prompts: Prompts) -> list[list[int]]:
    """The tokens of each needle's answer."""
    span = span_of(prompts.spans, "answer").tolist()
    return [row[a:b] for row, (a, b) in zip(prompts.tokens.tolist(), span, strict=True)]


def check_room(room: int, wanted: int) -> None:
    """Refused unless the context has room for `wanted` tokens after the longest prompt."""
    if room < wanted:
        raise Refused(
            f"the longest prompt leaves {room} tokens of the context, its answer has up to {wanted}: use shorter "
            "prompts"
        )


def needle_coordinates(prompts: Prompts) -> dict[str, Any]:
    """Coordinates of a result by prompt: how far down the needle begins, as a share of what precedes the question."""
    begin = span_of(prompts.spans, "needle")[:, 0] - int(prompts.bos)
    spans = prompts.spans or {}
    end = spans["question"][:, 0] if "question" in spans else prompts.lengths
    size = (span_of(prompts.spans, "needle") * end.new_tensor([-1, 1])).sum(1)
    rest = (end - int(prompts.bos) - size).clamp(min=1)
    return {
        "depth": ("prompt", (begin / rest).double().numpy()),
        "length": ("prompt", prompts.lengths.numpy()),
    }


def _labelled(found: xr.Dataset, prompts: Prompts) -> xr.Dataset:
    """One scorer's result with the coordinates of needles instead of a period."""
    one = found.isel(scorer=0).drop_vars("period").assign_coords(needle_coordinates(prompts))
    return one.assign_attrs(published_threshold=PUBLISHED)


def _recalled(
    found: xr.Dataset, prompts: Prompts, answers: list[list[int]], rows: list[list[int]]
) -> xr.Dataset:
    """The result with what was written after each prompt, and scores only where that recalls the needle."""
    recall = np.array([_recall(answer, row) for answer, row in zip(answers, rows, strict=True)])
    out = found.assign(recall=("prompt", recall))
    for name in ("score", "control"):
        if name in out:
            out[name] = out[name].where(out["recall"] > RECALLED)
    texts = np.array([decoded(prompts.tokenizer, row) for row in rows])
    return out.assign_coords(written=("prompt", texts)).assign_attrs(recalled=int((recall > RECALLED).sum()))


def _recall(answer: Sequence[int], row: Sequence[int]) -> float:
    """Share of the answer's tokens that a row holds; a token that stands n times counts at most n times."""
    return sum(min(answer.count(token), row.count(token)) for token in set(answer)) / len(answer)

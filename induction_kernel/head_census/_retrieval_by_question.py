"""Query-focused retrieval: how much of a query's attention lies on the needle that answers it (Zhang et al. 2025).

The control is another query of as many tokens in the same place, so that a head that looks at positions alone, or at
whatever stands out of the text, has no excess; beside it is the paper's calibration, an empty query. The score says
where heads look while the query is read, whatever the model answers; `_retrieval` scores copying.
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
from ..prompts._repeated import allowed_tokens
from ..prompts._spans import inside, span_of
from ..prompts._text import encode, knows, start_token
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
    """Query-focused retrieval score of every head: attention of the query's tokens to the needle, with its control.

    The score of a prompt is the attention summed over the needle's tokens, averaged over the query's. In `control` the
    query is another prompt's, of as many tokens (the nearest number, cut or repeated, if no prompt has one of just as
    many; tokens at random if no prompt asks for something else): it asks for what this needle does not answer, from
    the same distances. Text around the query, such as "Question:", stays. `score - empty` is the paper's calibrated
    score; with fewer tokens the empty query reads other distances, so a head that looks back by a fixed number of
    tokens can have one above zero.

    Args:
        model: any TransformerLens model.
        prompts: with spans "needle" and "query" after it, as `prompts.needles` makes them; None for `needles(model)`.
        null: the empty query, as text or token ids; None for " N/A", as in the paper's code, or, where the tokenizer
            does not know that, the ordinary token that is rarest in the prompts (the attribute `null` says which).
        layers: only these layers; None for all.
        batch_size: prompts per forward pass; None to fit the memory.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset over (prompt, layer, head), all in [0, 1], with coordinates `depth` and `length`:

        | variable | attention to the needle, or to the decoy |
        |---|---|
        | `score` | of the query |
        | `control` | of another query in its place |
        | `empty` | of the empty query in its place |
        | `decoy` | of the query, to a needle about another key; if the prompts have one |
        | `chance[prompt]` | of uniform attention over the past |

    Raises:
        TypeError: `null` in another form.
        Refused: prompts without these spans, or with a query before its needle; attention that is not finite.

    Source: Zhang et al. 2025, arXiv 2506.09944, QRscore = 1/|q| sum over query and document tokens of attention;
    princeton-pli/QRHead, `attn_retriever.py`, subtracts the attention of the query "N/A" in the same template. That
    code also averages over the template's tokens, and leaves out document tokens whose calibrated attention is more
    than two standard deviations below their mean; here the query's tokens alone are read, and all of the needle's
    count. The control of as many tokens is this package's.
    """
    ready = needle_prompts(model, prompts)
    queries = span_of(ready.spans, "query")
    for name in _read_spans(ready):
        late = span_of(ready.spans, name)[:, 1] > queries[:, 0]
        if bool(late.any()):
            raise Refused(
                f"wanted the query after the {name}, got it before in prompt {int(late.int().argmax())}"
            )
    ids = _null_ids(model, ready, null)
    options = {"layers": layers, "batch_size": batch_size, "progress": progress}
    found = observed(model, ready, [QueryAttention()], **options).isel(scorer=0)
    blank = _asked(ready, [ids] * len(ready))
    empty = observed(model, blank, [EmptyQueryAttention()], **options).isel(scorer=0)
    out = found.drop_vars("period").assign_coords(needle_coordinates(ready))
    return out.assign(empty=empty["score"]).assign_attrs(null=decoded(ready.tokenizer, ids))


@dataclass(frozen=True)
class EmptyQueryAttention:
    """A scorer for `observed`: attention from the query to the needle, and to the decoy, without a control."""

    name: str = "query_focused_retrieval"
    title: str = "attention of the query's tokens to the needle"
    paper: str = "Zhang et al. 2025, arXiv 2506.09944"
    matched: bool = False  # the prompts' own control has another needle
    tested: bool = True

    def reads(self, prompts: Prompts, *, causal: bool = True) -> Reads:
        """The entries of the query's rows at the needle and the decoy, and what is computed from them."""
        names = _read_spans(prompts)
        parts = [entries_of(prompts, name) for name in names]
        counts = [len(part.key) for part in parts]
        weight = 1.0 / query_sizes(prompts)

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
        weight = 1.0 / query_sizes(prompts)
        return averaged((1.0 / seen.double())[:, None], entries.prompt, weight, len(prompts))[:, 0]


class QueryAttention(EmptyQueryAttention):
    """The same with a control: another query of as many tokens."""

    def replaced(self, model: Model, prompts: Prompts) -> Tensor:
        """The prompts' tokens with another query in the place of each, `[prompt, position]`."""
        other = [token for query in _other_queries(model, prompts) for token in query]
        tokens = prompts.tokens.clone()
        tokens[inside(span_of(prompts.spans, "query"), tokens.shape[1])] = tokens.new_tensor(other)
        return tokens


def _read_spans(prompts: Prompts) -> list[str]:
    return [name for name in ("needle", "decoy") if name in (prompts.spans or {})]


def entries_of(prompts: Prompts, name: str) -> Entries:
    """The entries of the query's rows at the keys of a span; the query comes after, so all are in the past."""
    width = prompts.tokens.shape[1]
    rows = inside(span_of(prompts.spans, "query"), width)[:, :, None]
    return Entries(*(rows & inside(span_of(prompts.spans, name), width)[:, None]).nonzero(as_tuple=True))


def query_sizes(prompts: Prompts) -> Tensor:
    """`[prompt]`: how many tokens the query has."""
    begin, stop = span_of(prompts.spans, "query").unbind(1)
    return (stop - begin).double()


def _other_queries(model: Model, prompts: Prompts) -> list[list[int]]:
    """For each prompt a query of as many tokens as its own that its needle does not answer.

    Another prompt's: of those whose own words are not in the needle either, the one nearest in length and next in the
    order of their tokens, so that the order of the prompts does not matter.
    """
    found, out = _parts(prompts, "query"), []
    queries = sorted({tuple(query) for query in found})
    for i, (own, needle) in enumerate(zip(found, _parts(prompts, "needle"), strict=True)):
        at = queries.index(tuple(own))
        ring = sorted(queries[at + 1 :] + queries[:at], key=lambda other: abs(len(other) - len(own)))
        filled = (_as_many(other, len(own)) for other in ring)
        fits = (other for other in filled if (new := set(other) - set(own)) and not new & set(needle))
        out.append(next(fits, None) or _random_query(model, prompts[i], len(own)))
    return out


def _parts(prompts: Prompts, name: str) -> list[list[int]]:
    """The tokens of a span of each prompt."""
    places = span_of(prompts.spans, name).tolist()
    return [row[a:b] for row, (a, b) in zip(prompts.tokens.tolist(), places, strict=True)]


def _random_query(model: Model, prompt: Prompts, n: int) -> list[int]:
    """Ordinary tokens in random order, those first that the prompt does not have."""
    allowed = allowed_tokens(model, exclude=0.0, bos=start_token(model, None))
    order = torch.randperm(len(allowed), generator=torch.Generator().manual_seed(0))
    there = set(prompt.tokens[0, : int(prompt.lengths[0])].tolist())
    return _as_many(sorted(allowed[order].tolist(), key=there.__contains__), n)


def _as_many(ids: Sequence[int], n: int) -> list[int]:
    """The first n, from the start again where there are fewer."""
    return [ids[i % len(ids)] for i in range(n)]


def _null_ids(model: Model, prompts: Prompts, null: Any) -> list[int]:
    """The tokens of the empty query."""
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
    allowed = allowed_tokens(model, exclude=0.0, bos=start_token(model, None))
    counts = torch.bincount(prompts.tokens.flatten(), minlength=sizes(model).d_vocab)
    return [int(allowed[counts[allowed].argmin()])]


def _some(ids: list[int]) -> list[int]:
    if not ids:
        raise Refused(
            "wanted null with at least one token, got none: the empty query takes the query's place"
        )
    return ids


def _asked(prompts: Prompts, queries: Sequence[list[int]]) -> Prompts:
    """The prompts with these tokens in place of each query, and of the spans those that are read."""
    places = span_of(prompts.spans, "query").tolist()
    rows = zip(prompts.tokens.tolist(), prompts.lengths.tolist(), places, queries, strict=True)
    tokens, lengths = pad([[*row[:a], *ids, *row[b:length]] for row, length, (a, b), ids in rows])
    asked = torch.tensor([[a, a + len(ids)] for (a, _), ids in zip(places, queries, strict=True)])
    # What is read lies before the query, and so at the same place.
    spans = {name: span_of(prompts.spans, name) for name in _read_spans(prompts)}
    return replace(
        prompts, tokens=tokens, lengths=lengths, scored=inside(asked, tokens.shape[1]), control=None, answers=None,
        spans=spans | {"query": asked},
    )  # fmt: skip

"""`representations`: queries and demonstrations as vectors, for explicit kernels to compare.

Vectors of texts alone, each distinct text once: TF-IDF, any embedding function, the mean of the model's token
embeddings, or the residual stream at the text's last token (Han et al. 2025, section 5.4, use sentence embeddings).
Vectors inside the few-shot prompt, read in `_in_prompt`: the residual stream at the last token and at the labels, or a
head's query and keys. Kernels are computed in `_kernels` and `_regression`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..data._episodes import Episodes
from ..data._likeness import tfidf
from ..errors import Refused
from ..model._anatomy import Model, describe, full_precision, sizes
from ..model._runs import batches, progress_bar, stream
from ..model._weights import token_embedding
from ..prompts._conversion import as_prompts, few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts
from ..scorers._labels import check_span
from ..scorers._streaming import chosen_layers
from ._in_prompt import POOLINGS, heads_inside, stream_inside

__all__ = ["alone", "distinct", "labels_of", "representations"]

Embed = Callable[[Sequence[str]], Any]
OF_TEXTS, OF_MODELS = ("tfidf", "embedding", "residual"), ("embedding", "residual", "head")


def representations(
    model: Model | None,
    source: Episodes | Prompts,
    what: str | Embed,
    *,
    layers: Iterable[int] | None = None,
    pooling: str = "max",
    span: str = "demonstration",
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Queries and demonstrations as vectors, for `kernel_regression`, `explicit_similarity` and `fitted_bandwidth`.

    | `what` | source | vectors |
    |---|---|---|
    | "tfidf" | Episodes | TF-IDF of each text, fitted on the pool |
    | a function `texts -> [text, d]` | Episodes | what it returns for all distinct texts, in one call |
    | "embedding" | Episodes | mean of the text's token embeddings |
    | "residual" | Episodes | residual stream that enters each layer, at the last token of the text alone (after BOS) |
    | "residual" | prompts | the same at the prompt's last token, and at the demonstrations' label tokens |
    | "head" | either | every head's query at the prompt's last token, and its keys in the demonstrations |

    Queries and keys of "head" are rotated and divided by the head's scale, so that <q, k> is the attention score: the
    head's kernel is the exponential one at bandwidth 1.

    Args:
        model: any TransformerLens model; None for TF-IDF and an embedding function.
        source: `Episodes` or `FewShotPrompts`, as above.
        what: the representation, as above.
        layers: for "residual" and "head": only these; None for all.
        pooling: for "head": the key at each demonstration's "label" token, or ("max") at the token that the head
            attends to most. The kernel's weights are then those of `demonstration_weights` with the same pooling.
        span: for "head" with "max": the tokens to choose from, "demonstration" or "words", as in
            `demonstration_weights`.
        batch_size: prompts (or texts) per forward pass; None to fit the memory.
        progress: a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `queries[prompt, ..., feature]` and `demonstrations[prompt, ..., demonstration, feature]` (NaN
        where a prompt has fewer). The dots stand for `layer` with "residual", and `layer`, `head` with "head".
        Coordinates `label_class[prompt, demonstration]` (-1 where missing), `target[prompt]` and `label`.

    Raises:
        TypeError: another source, or no model where one is needed.
        Refused: an unknown representation, or one that the source does not have; options of another representation; an
            embedding that is not finite or not [text, d]; a head whose attention scores are not <q, k>.

    Source: Han et al. 2025, sections 3 and 5.4.
    """
    _check(model, source, what, layers, pooling)
    source = few_shot_only(source) if isinstance(source, Prompts) else source
    check_span(span, source if isinstance(source, FewShotPrompts) else None)
    ways: dict[str, Any] = {"layers": layers, "batch_size": batch_size, "progress": progress}
    if what == "head" or isinstance(source, FewShotPrompts):
        asked: Any = model  # not None: `_check` has refused that
        prompts = source if isinstance(source, FewShotPrompts) else source.prompts(asked)
        found = (
            heads_inside(asked, prompts, pooling, span, **ways)
            if what == "head"
            else stream_inside(asked, prompts, **ways)
        )
        more = {"pooling": pooling, "span": span} if what == "head" else {}
        return _described(found, model, what, **more).assign_coords(labels_of(prompts))
    texts, of_query, of_shown = distinct(source)
    if what == "residual":
        rows = _stream_alone(model, texts, **ways)
    else:
        rows = xr.DataArray(_embedded(model, texts, source, what), dims=("text", "feature"))
    rows = rows.transpose("text", ..., "feature")
    found = xr.Dataset(
        {
            "queries": rows.isel(text=xr.DataArray(of_query, dims="prompt")),
            "demonstrations": rows.isel(text=xr.DataArray(of_shown, dims=("prompt", "demonstration"))),
        }
    )
    found = found.transpose("prompt", *rows.dims[1:-1], "demonstration", "feature")
    return _described(found, model, what).assign_coords(labels_of(source))


def _check(model: Any, source: Any, what: Any, layers: Any, pooling: str) -> None:
    """Raise TypeError or Refused unless the arguments of `representations` fit each other."""
    if not isinstance(source, Episodes | Prompts):
        raise TypeError(f"wanted Episodes or few-shot Prompts, got {type(source).__name__}")
    known = (*OF_TEXTS, "head") if isinstance(source, Episodes) else ("residual", "head")
    if callable(what) and isinstance(source, Prompts):
        raise Refused("an embedding function is for texts: pass Episodes, of draw_episodes(...)")
    if not callable(what) and what not in known:
        raise Refused(
            f"wanted a representation of {type(source).__name__}, {list(known)}"
            f"{' or a function texts -> [text, d]' if isinstance(source, Episodes) else ''}, got {what!r}"
        )
    if model is None and what in OF_MODELS:
        raise TypeError(f"the representation {what!r} is a model's: pass the model, got None")
    if layers is not None and what not in ("residual", "head"):
        raise Refused(f"layers= is for 'residual' and 'head', got it with {what!r}")
    if pooling not in POOLINGS:
        raise Refused(f"wanted pooling in {list(POOLINGS)}, got {pooling!r}")


def _described(found: xr.Dataset, model: Model | None, what: Any, **more: str) -> xr.Dataset:
    """The Dataset with attributes that name the representation and the model."""
    name = what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)
    attrs = {"method": "representations", "representation": name, **more}
    return found.assign_attrs(attrs | (describe(model) if model is not None else {}))


def labels_of(source: Episodes | FewShotPrompts) -> dict[str, Any]:
    """The coordinates `label_class[prompt, demonstration]`, `target[prompt]` and `label` of a result."""
    if isinstance(source, Episodes):
        classes, target, labels = source.classes, source.queries.classes, source.pool.labels
    else:
        found = source.demonstrations
        classes = torch.where(found.mask, found.classes, -1).numpy()
        target, labels = found.target.numpy(), found.labels
    return {
        "label_class": (("prompt", "demonstration"), classes),
        "target": ("prompt", target),
        "label": list(labels),
    }


def distinct(episodes: Episodes) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The distinct texts, and their index for each query `[prompt]` and demonstration `[prompt, demonstration]`."""
    used = {int(i): episodes.pool.texts[i] for i in np.unique(episodes.shown)}
    place = {text: i for i, text in enumerate(dict.fromkeys([*episodes.queries.texts, *used.values()]))}
    of_query = np.array([place[text] for text in episodes.queries.texts])
    of_shown = np.vectorize(lambda i: place[used[int(i)]], otypes=[np.int64])(episodes.shown)
    return list(place), of_query, of_shown


def alone(
    model: Model, texts: Sequence[str], *, batch_size: int | None, cost: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Batches of texts of similar length: their indices `[text]`, tokens `[text, position]` and lengths `[text]`."""
    ready = as_prompts(model, texts)
    order = torch.argsort(ready.lengths, stable=True)
    for rows in batches(len(ready), ready.tokens.shape[1], batch_size=batch_size, cost=cost):
        part = ready[order[rows]]
        yield order[rows].numpy(), part.tokens[:, : int(part.lengths.max())], part.lengths


def _embedded(model: Model | None, texts: list[str], episodes: Episodes, what: str | Embed) -> np.ndarray:
    """Vectors `[text, feature]` of texts, by token embeddings, TF-IDF or an embedding function."""
    if what == "embedding":
        assert model is not None  # `_check` has refused that
        table = full_precision(token_embedding(model).detach().cpu())
        ready = as_prompts(model, texts, bos=False)
        pairs = zip(ready.tokens, ready.lengths.tolist(), strict=True)
        return torch.stack([table[row[:length]].mean(0) for row, length in pairs]).numpy()
    embed = tfidf(episodes.pool.texts) if what == "tfidf" else what
    assert callable(embed)  # `_check` has refused anything else
    rows: Any = embed(texts)
    rows = (
        rows.toarray()
        if hasattr(rows, "toarray")
        else rows.detach().cpu()
        if isinstance(rows, Tensor)
        else rows
    )
    rows = np.asarray(rows)
    if (
        rows.ndim != 2
        or len(rows) != len(texts)
        or rows.dtype.kind not in "fiu"
        or not np.isfinite(rows).all()
    ):
        raise Refused(
            f"wanted an embedding of {len(texts)} texts as finite numbers [{len(texts)}, d], got {rows.dtype} "
            f"{list(rows.shape)}"
        )
    # Columns of words that none of these texts has are left out.
    return rows[:, np.any(rows != 0, axis=0)] if what == "tfidf" else rows


def _stream_alone(
    model: Any, texts: list[str], *, layers: Iterable[int] | None, batch_size: int | None, progress: bool
) -> xr.DataArray:
    """The residual stream `[text, layer, feature]` that enters each layer at the last token of every text."""
    wanted, size = chosen_layers(model, layers), sizes(model)
    rows: list[np.ndarray] = [np.zeros(0)] * len(texts)
    parts = list(alone(model, texts, batch_size=batch_size, cost=8 * size.d_model))
    with progress_bar(len(parts), progress=progress, unit="batch") as bar:
        for index, tokens, lengths in parts:
            seen: dict[int, Tensor] = {}

            def read(
                _: str, layer: int, resid: Tensor, last: Tensor = lengths - 1, seen: dict = seen
            ) -> None:
                at = last.to(resid.device)
                seen[layer] = full_precision(resid.detach()[torch.arange(len(at)), at].cpu())

            stream(model, tokens, read, {"resid_pre": set(wanted)}, lengths=lengths)
            for i, row in zip(index, torch.stack([seen[layer] for layer in wanted], 1).numpy(), strict=True):
                rows[i] = row
            bar.update()
    return xr.DataArray(np.stack(rows), dims=("text", "layer", "feature"), coords={"layer": wanted})

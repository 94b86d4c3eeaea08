"""`as_prompts`: token ids, a tokenizer's output or text, converted to `Prompts` and checked against the model.

Padding at either end of the input is removed, or refused where it may be text (see `_padding`); the result is padded on
the right. Templates are not written here: see `_few_shot`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._given import is_whole
from ..errors import Refused
from ..model._anatomy import Model, check_model, sizes
from ._checks import check_ids
from ._padding import by_lengths, by_mask, by_token, right_padded
from ._prompts import FewShotPrompts, Prompts, pad, real_positions
from ._text import encode_whole, start_token, starts_with_bos

__all__ = ["Readable", "as_few_shot", "as_prompts", "few_shot_only"]

Readable = Prompts | Tensor | np.ndarray | str | Sequence[Any] | Mapping[str, Any]
WANTED = "wanted Prompts, tokens, a tokenizer's output, a string or a list of strings"


def as_prompts(
    model: Model, prompts: Readable, *, lengths: Any = None, bos: bool | int | None = None
) -> Prompts:
    """Token ids, a tokenizer's output or text, as `Prompts` that are checked against the model.

    - `Prompts`: returned unchanged, but for padding beyond the model's context.
    - Token ids `[prompt, position]` or `[position]` (torch, numpy, lists): as they are, without runs of the tokenizer's
      padding token at either end.
    - A tokenizer's output: its `input_ids` where its `attention_mask` is 1.
    - A string or several (a list, an array, a pandas column): each tokenised by itself, as `model.to_tokens` does, but
      text that begins with the BOS token gets no second one.

    Args:
        model: gives the tokenizer, vocabulary and context.
        prompts: as above.
        lengths: `[prompt]`, number of tokens of each prompt, for token ids padded on the right: padding is then not
            searched for. Needed where texts may begin or end with the padding token.
        bos: for text: True to put the BOS token first, an id to put another token first, False for none; None for the
            model's own rule, `model.cfg.default_prepend_bos`.

    Returns:
        Right-padded prompts with every position scored; `bos` says whether all of them begin with the BOS token.

    Raises:
        TypeError: none of these forms, or tokens that are not integers.
        Refused: no prompts, a prompt of padding alone, padding that may be text, `lengths` of rows padded on the left,
            a word that the tokenizer does not know, an id outside the vocabulary, a prompt longer than the context,
            text without a tokenizer.
    """
    check_model(model)
    if isinstance(prompts, Prompts):
        _refuse(lengths=lengths, bos=bos, what="Prompts")
        return _fits(model, prompts)
    given: Any = prompts
    if hasattr(given, "data_vars"):
        raise TypeError(
            f"{WANTED}, got a Dataset of results: results go to head_table, head_map and the like"
        )
    if hasattr(given, "corrupted"):
        raise TypeError(f"{WANTED}, got Pairs: pass its `clean` or its `corrupted`")
    if isinstance(given, Mapping):
        return _encoded(model, given, lengths, bos)
    if isinstance(given, np.ndarray) and given.dtype.kind not in "OUS":
        given = _from_numpy(given)
    if isinstance(given, Tensor):
        return _tokens(model, given, lengths, bos)
    if isinstance(given, str):
        given = [given]
    listed = given.tolist() if getattr(given, "ndim", None) == 1 and hasattr(given, "tolist") else given
    if isinstance(listed, Sequence) and not isinstance(listed, bytes):
        return _listed(model, list(listed), lengths, bos)
    hint = ": pass one of its columns" if hasattr(given, "columns") else ""
    raise TypeError(f"{WANTED}, got {type(prompts).__name__}{hint}")


def as_few_shot(model: Model, prompts: Any) -> FewShotPrompts:
    """Few-shot prompts, checked against the model as in `as_prompts`.

    Args:
        model: gives the tokenizer, vocabulary and context.
        prompts: `FewShotPrompts`, as `few_shot_prompts` and `word_episodes` make them.

    Returns:
        The prompts; their `demonstrations` say where demonstrations and labels lie.

    Raises:
        TypeError: as in `as_prompts`.
        Refused: as in `as_prompts`; prompts that do not say where their demonstrations lie.
    """
    return few_shot_only(as_prompts(model, prompts))


def few_shot_only(prompts: Any) -> FewShotPrompts:
    """The prompts, which must be `FewShotPrompts` (say where their demonstrations lie); otherwise Refused."""
    if not isinstance(prompts, FewShotPrompts):
        raise Refused(
            f"wanted prompts with demonstrations (FewShotPrompts), got {type(prompts).__name__}: make them with "
            "few_shot_prompts(model, ...) or word_episodes(model)"
        )
    return prompts


def _listed(model: Model, items: list[Any], lengths: Any, bos: bool | int | None) -> Prompts:
    """Prompts from a list of texts, of one prompt's token ids, or of several prompts' ids."""
    if not items:
        raise Refused("wanted at least one prompt, got an empty list")
    if all(isinstance(item, str) for item in items):
        _refuse(lengths=lengths, what="text")
        return _texts(model, items, bos)
    if all(map(is_whole, items)):
        items = [items]
    rows = [_one_row(item) if isinstance(item, Tensor | np.ndarray) else item for item in items]
    texts = any(isinstance(item, str) for item in items)
    for i, row in enumerate(rows):
        fits = isinstance(row, str) if texts else isinstance(row, list | tuple) and all(map(is_whole, row))
        if not fits:
            raise TypeError(f"{WANTED}, got a list whose item {i} is {_short(items[i])}")
    if not all(rows):
        raise Refused(f"prompt {[bool(row) for row in rows].index(False)} has no tokens: wanted one or more")
    tokens, found = pad(rows)
    if bool((found == found[0]).all()):
        return _tokens(model, tokens, lengths, bos)
    _refuse(lengths=lengths, bos=bos, what="a list of token ids of different lengths")
    return _ready(model, tokens, found)


def _one_row(ids: Tensor | np.ndarray) -> Any:
    """One prompt's ids as a list, from `[position]` or `[1, position]`, as `model.to_tokens` returns for a text."""
    return (ids[0] if ids.ndim == 2 and len(ids) == 1 else ids).tolist()


def _texts(model: Model, texts: list[str], bos: bool | int | None) -> Prompts:
    """Prompts from texts, each tokenised by itself."""
    start = start_token(model, bos).tolist() if getattr(model, "tokenizer", None) is not None else []
    rows = [encode_whole(model, text, start) for text in texts]
    if not all(rows):
        raise Refused(f"prompt {[bool(row) for row in rows].index(False)} has no tokens: wanted text")
    ready = _ready(model, *pad(rows))
    # The token put first counts as BOS even if it is not the tokenizer's own.
    return replace(ready, bos=True) if start else ready


def _encoded(model: Model, output: Mapping[str, Any], lengths: Any, bos: bool | int | None) -> Prompts:
    """Prompts from a tokenizer's output, with or without an attention mask."""
    if "input_ids" not in output:
        raise TypeError(f"wanted a tokenizer's output with input_ids, got one with {sorted(output)}")
    if output.get("attention_mask") is None:
        return as_prompts(model, output["input_ids"], lengths=lengths, bos=bos)
    _refuse(lengths=lengths, bos=bos, what="a tokenizer's output with its attention mask")
    tokens, mask = (_rectangle(output[key]) for key in ("input_ids", "attention_mask"))
    check_ids(tokens, dims=(1, 2))
    tokens, mask = torch.atleast_2d(tokens.detach().cpu().long()), torch.atleast_2d(mask.detach().cpu())
    return _ready(model, *right_padded(tokens, by_mask(mask, tokens.shape)))


def _rectangle(rows: Any) -> Tensor:
    """Rows of ids as a tensor; shorter rows are filled with 0."""
    if isinstance(rows, Tensor):
        return rows
    if isinstance(rows, np.ndarray):
        return _from_numpy(rows)
    if isinstance(rows, list | tuple) and not rows:
        raise Refused("wanted at least one prompt, got a tokenizer's output without any")
    if isinstance(rows, list | tuple) and all(isinstance(row, list | tuple) for row in rows):
        width = max(map(len, rows))
        rows = [[*row, *([0] * (width - len(row)))] for row in rows]
    try:
        return torch.as_tensor(rows)
    except (TypeError, ValueError):
        raise TypeError(f"wanted a tokenizer's output of whole numbers, got {_short(rows)}") from None


def _from_numpy(array: np.ndarray) -> Tensor:
    """A copy as a tensor, int64 for all integer types; a copy, as the array may be read-only."""
    return torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array.copy())


def _tokens(model: Model, tokens: Tensor, lengths: Any, bos: bool | int | None) -> Prompts:
    """Prompts from token ids, with the given lengths or without the padding found at their ends."""
    check_ids(tokens, dims=(1, 2))
    _refuse(bos=bos, what="token ids, which are taken as they are")
    tokens = torch.atleast_2d(tokens.detach().cpu().long())
    tokenizer = getattr(model, "tokenizer", None)
    if lengths is None:
        return _ready(model, *right_padded(tokens, by_token(tokens, tokenizer)))
    n, width = tokens.shape
    try:
        found = torch.as_tensor(lengths).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"wanted {n} lengths as whole numbers, one per prompt, got {lengths!r}") from None
    if (
        found.is_floating_point()
        or found.shape != (n,)
        or bool((found < 1).any())
        or bool((found > width).any())
    ):
        raise Refused(
            f"wanted {n} lengths as whole numbers between 1 and {width}, one per prompt, got {found.tolist()}"
        )
    return _ready(model, *right_padded(tokens, by_lengths(tokens, found.long(), tokenizer)))


def _ready(model: Model, tokens: Tensor, lengths: Tensor) -> Prompts:
    """Prompts of right-padded tokens, all positions scored, checked against the model."""
    tokenizer, scored = getattr(model, "tokenizer", None), real_positions(tokens, lengths)
    bos = starts_with_bos(model, tokens)
    return _fits(model, Prompts(tokens, lengths, scored, bos=bos, tokenizer=tokenizer))


def _refuse(*, what: str, lengths: Any = None, bos: bool | int | None = None) -> None:
    """Refused if `lengths` or `bos` is given with input (`what`) that it does not apply to."""
    for name, value, of in (("lengths", lengths, "right-padded token tensors"), ("bos", bos, "text")):
        if value is not None:
            raise Refused(f"{name}= is for {of}, got {what}: leave it out")


def _short(item: Any) -> str:
    """An item for an error message, cut to 40 characters."""
    shown = repr(item)
    return shown if len(shown) <= 40 else f"{shown[:40]} ..."


def _fits(model: Model, prompts: Prompts) -> Prompts:
    """The prompts without padding beyond the model's context; Refused if the model cannot read them."""
    size = sizes(model)
    longest = int(prompts.lengths.max())
    if longest > size.n_ctx:
        row = int(prompts.lengths.argmax())
        raise Refused(f"prompt {row} has {longest} tokens, the model's context is {size.n_ctx}: shorten it")
    if prompts.tokens.shape[1] > size.n_ctx:
        prompts = prompts.narrowed()
    used = [prompts.tokens] + ([] if prompts.control is None else [prompts.control])
    low, high = min(int(t.min()) for t in used), max(int(t.max()) for t in used)
    if low < 0 or high >= size.d_vocab:
        raise Refused(
            f"wanted token ids from 0 to {size.d_vocab - 1}, got {low if low < 0 else high}: "
            "make them with this model's tokenizer"
        )
    return prompts

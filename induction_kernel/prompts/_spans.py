"""Named spans of prompts: where a needle, its answer or a question lies, as first token and one past the last.

`Prompts.spans` maps each name to int64 `[prompt, 2]`; (-1, -1) stands where a prompt has no such span. They are
checked, chosen and joined here; `_marking` finds them in text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import Refused

__all__ = ["checked_spans", "chosen_spans", "inside", "joined_spans", "span_of"]

Spans = Mapping[str, Tensor]


def checked_spans(spans: Any, lengths: Tensor) -> dict[str, Tensor] | None:
    """The spans of prompts of these lengths as a dict; None for None or none.

    Raises:
        TypeError: no mapping from names to int64 tensors.
        Refused: another number of prompts, or a span that is empty or beyond the prompt.
    """
    if spans is None:
        return None
    if not isinstance(spans, Mapping):
        raise TypeError(f"wanted spans as a mapping from names to [prompt, 2], got {type(spans).__name__}")
    for name, at in spans.items():
        if not isinstance(name, str) or not isinstance(at, Tensor) or at.dtype != torch.int64:
            got = getattr(at, "dtype", type(at).__name__)
            raise TypeError(f"wanted spans as a name with an int64 tensor, got {name!r} with {got}")
        if at.shape != (len(lengths), 2):
            raise Refused(f"wanted the span {name!r} as [{len(lengths)}, 2], got {list(at.shape)}")
        begin, stop = at.unbind(1)
        fits = (begin >= 0) & (begin < stop) & (stop <= lengths) | (begin == -1) & (stop == -1)
        if not bool(fits.all()):
            row = int(fits.int().argmin())
            raise Refused(
                f"wanted the span {name!r} of prompt {row} within its {int(lengths[row])} tokens, as its first token "
                f"and one past the last, or (-1, -1) for none, got {tuple(at[row].tolist())}"
            )
    return dict(spans) or None


def chosen_spans(spans: Spans | None, index: Tensor) -> dict[str, Tensor] | None:
    """The spans of some of the prompts, by their numbers `[chosen]`."""
    return None if spans is None else {name: at[index] for name, at in spans.items()}


def joined_spans(parts: Sequence[Spans | None], counts: Sequence[int]) -> dict[str, Tensor] | None:
    """The spans of several batches of `counts` prompts one after the other; (-1, -1) where a batch has no such name."""
    names = dict.fromkeys(name for part in parts for name in part or {})
    joined = {
        name: torch.cat(
            [(part or {}).get(name, torch.full((n, 2), -1)) for part, n in zip(parts, counts, strict=True)]
        )
        for name in names
    }
    return joined or None


def span_of(spans: Spans | None, name: str) -> Tensor:
    """The span `name` of every prompt, `[prompt, 2]`.

    Raises:
        Refused: prompts without that span.
    """
    found = (spans or {}).get(name)
    if found is None:
        has = f"the spans {sorted(spans)}" if spans else "none"
        got = f"prompts with {has}"
    elif bool((found < 0).any()):
        got = f"none in prompt {int((found < 0).any(1).int().argmax())}"
    else:
        return found
    raise Refused(
        f"wanted prompts with a span {name!r} each, got {got}: make them with prompts.needles(model), or "
        "prompts.mark(model, texts, spans={...})"
    )


def inside(span: Tensor, length: int) -> Tensor:
    """Which of `length` positions lie in each prompt's span `[prompt, 2]`, bool `[prompt, position]`."""
    position = torch.arange(length)
    return (position >= span[:, :1]) & (position < span[:, 1:])

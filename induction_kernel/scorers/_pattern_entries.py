"""Entries of attention patterns, read off the model's own patterns or, in long prompts, row by row.

The model's own patterns are read inside hooks, one layer at a time: memory grows with the square of the length. From
about 300 tokens on, in a HookedTransformer of standard blocks, computing single rows (`replay/_attention_rows`) is
faster and needs memory that grows with the length. `_attention_scorer` and `_labels` choose the entries and compute
scores from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import stream
from ..model._self_check import foreign_hooks
from ..prompts._prompts import Prompts
from ..replay._attention_rows import Entries, entry_values, why_no_rows
from ..replay._lane_record import Way, not_used

__all__ = [
    "Entries", "Reads", "attends", "check_sound", "cost_of", "entries_in", "entries_together",
    "read_entries", "taken", "way_to_read",
]  # fmt: skip

LONG = 320  # from this length on, rows are faster than patterns for one prompt (for several, sooner)


@dataclass(frozen=True, eq=False)
class Reads:
    """The entries read of some prompts' patterns, and the variables computed from them.

    Attributes:
        entries: prompt, query and key indices.
        made: for each variable, the function from values `[entry, head]` to `[prompt, head]`.
    """

    entries: Entries
    made: Mapping[str, Callable[[Tensor], Tensor]]


def way_to_read(model: Model, prompts: Prompts, layers: Sequence[int]) -> Way:
    """ "entries" if the prompts are long and rows of these layers can be trusted; else "patterns", with the reason."""
    longest = prompts.tokens[int(prompts.lengths.argmax()), : int(prompts.lengths.max())]
    if len(longest) < LONG:
        why = f"the longest prompt has {len(longest)} tokens, and it is faster from {LONG} tokens on"
        return Way("patterns", not_used("entries", why))
    why = why_no_rows(model, longest, layers)
    return Way("patterns" if why else "entries", why)


def cost_of(model: Model, lane: str, length: int) -> int:
    """How many numbers per position are in memory at once, for `batches`."""
    size = sizes(model)
    return max(length * size.n_heads if lane == "patterns" else 0, 8 * size.d_model)


def read_entries(
    model: Model,
    prompts: Prompts,
    entries: Entries,
    layers: Sequence[int],
    read: Callable[[int, Tensor, bool], None],
    *,
    lane: str,
    tokens: Tensor | None = None,
) -> None:
    """One pass that calls `read(layer, values [entry, head], sound)` with the attention at these entries, by layer.

    Args:
        model: the model to run.
        prompts: a batch.
        entries: the entries of their patterns.
        layers: the layers to read; the pass ends after the last.
        read: the function that receives them; `sound` is False where a last token attends to nothing, as happens when
            weights are not finite.
        lane: "patterns" or "entries": the `name` of what `way_to_read` chose.
        tokens: tokens to run on instead of the prompts' own, such as their control.
    """
    tokens = prompts.tokens if tokens is None else tokens
    if lane == "patterns":
        edited = bool(foreign_hooks(model))

        def off(_: str, layer: int, pattern: Tensor) -> None:
            read(layer, taken(pattern, entries), attends(pattern, prompts.lengths, edited=edited))

        stream(model, tokens, off, {"pattern": set(layers)}, lengths=prompts.lengths)
        return
    n, last = len(prompts), prompts.lengths - 1
    ends = Entries(torch.arange(n), last, last)

    def given(layer: int, values: Tensor) -> None:
        read(layer, values[:-n], bool(values.isfinite().all()))

    entry_values(model, tokens, entries_together([entries, ends]), layers, given)


def taken(pattern: Tensor, entries: Entries) -> Float[Tensor, "entry head"]:
    """`[entry, head]` of a pattern `[prompt, head, query, key]`, in float32 or better, on the CPU."""
    prompt, query, key = entries
    if pattern.ndim != 4 or pattern.shape[0] <= int(prompt.max()) or pattern.shape[2] <= int(query.max()):
        raise Refused(
            f"wanted patterns [prompt, head, query, key] of these prompts, got {list(pattern.shape)}"
        )
    at = [index.to(pattern.device) for index in (prompt, query, key)]
    return full_precision(pattern.detach()[at[0], :, at[1], at[2]].cpu())


def attends(pattern: Tensor, lengths: Tensor, *, edited: bool = False) -> bool:
    """Whether the last tokens attend to anything: NaN attention arrives as NaN or, in a HookedTransformer, as 0.

    If the user's own hooks may have `edited` the pattern, 0 may be intended.
    """
    last = lengths.to(pattern.device) - 1
    mass = pattern.detach()[torch.arange(len(last), device=last.device), :, last].sum(-1)
    return bool((mass.isfinite() if edited else mass > 0).all())


def check_sound(broken: set[int]) -> None:
    """Raise Refused if the attention of any layer is not finite."""
    if broken:
        raise Refused(
            f"the attention patterns of layer {min(broken)} are not finite: "
            "look for NaN or infinite weights (or overflow in float16) in the model"
        )


def entries_in(reads: Sequence[Reads]) -> tuple[Entries, list[int]]:
    """The entries of several `Reads` together, and how many each has."""
    return entries_together([each.entries for each in reads]), [len(each.entries.key) for each in reads]


def entries_together(several: Sequence[Entries]) -> Entries:
    """The entries of all, one after the other."""
    return Entries(*(torch.cat(indices) for indices in zip(*several, strict=True)))

"""Entries of the attention patterns of long prompts, computed a few rows at a time.

Memory grows with the length, not with its square: z comes from PyTorch's `scaled_dot_product_attention`, and only the
rows of a pattern that are read are computed. One layer is in memory at a time, and the last one needs only queries and
keys. (In PyTorch only `flex_attention` returns a row's log-sum-exp, and it makes the whole pattern unless it is
compiled.) Models that `_layers` does not support, and short prompts, use the model's own patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..model._anatomy import Model, all_modules, full_precision, is_bridge, kept_as_it_was, per_query_head
from ..model._runs import stream
from ..model._self_check import foreign_hooks
from ._lane_record import refused, tried
from ._layers import Layers, looseness, supports

__all__ = ["Entries", "entry_values", "why_no_rows"]

_AT_ONCE = 2**21  # entries of patterns in memory at a time
_PIECE = 32  # tokens on which the two ways are compared


class Entries(NamedTuple):
    """Entries of attention patterns: the prompt, query and key of each, `[entry]`."""

    prompt: Tensor
    query: Tensor
    key: Tensor


def entry_values(
    model: Model, tokens: Tensor, entries: Entries, layers: Sequence[int], read: Callable[[int, Tensor], None]
) -> None:
    """One pass that calls `read(layer, values [entry, head])` with the attention at these entries.

    The values are in float32 or better, on the CPU. The pass ends after the last layer asked for.

    Args:
        model: a model for which `why_no_rows` returns "".
        tokens: `[prompt, position]`; padding is not attended to, since the model is causal.
        entries: key <= query; any number, in any order.
        layers: at least one.
        read: called in the order of the layers.
    """
    first: list[Tensor] = []
    stream(model, tokens, lambda site, layer, resid: first.append(resid), {"resid_pre": {0}}, lengths=None)
    with kept_as_it_was(model):
        _Rows(model, tokens.shape[1]).run(first.pop(), entries, layers, read)


def why_no_rows(model: Model, tokens: Tensor, layers: Sequence[int]) -> str:
    """Why `entry_values` is not used on this model; empty if it agrees with the model's own patterns.

    The two are compared on the first tokens of one prompt, by each head's absolute difference of attention, summed over
    keys and averaged over queries.

    Args:
        model: any model.
        tokens: `[position]`, of one of the prompts.
        layers: the layers in which the two must agree.
    """
    if is_bridge(model) or not supports(model):
        why = "rows are computed only for a HookedTransformer with standard decoder blocks"
    elif hooks := foreign_hooks(model):
        why = f"there are hooks on {', '.join(hooks[:3])}, which act only in whole runs"
    elif not _as_built(model):
        why = "a part of the model is neither TransformerLens' nor PyTorch's own"
    else:
        why = tried(lambda: _differ(model, tokens[None, :_PIECE], layers))
        return refused(model, "entries", why) if why else ""
    return refused(model, "entries", why, failed=False)


def _differ(model: Model, piece: Tensor, layers: Sequence[int]) -> str:
    """Where and by how much the two ways differ on these tokens; empty if they agree."""
    length = piece.shape[1]
    query, key = torch.ones(length, length).tril().nonzero(as_tuple=True)
    entries = Entries(torch.zeros_like(query), query, key)
    dense: dict[int, Tensor] = {}
    apart: dict[int, float] = {}

    def keep(_: str, layer: int, pattern: Tensor) -> None:
        dense[layer] = full_precision(pattern[0, :, query.to(pattern.device), key.to(pattern.device)].T.cpu())

    def compare(layer: int, values: Tensor) -> None:
        of_heads = (values - dense.pop(layer)).abs().sum(0) / length
        apart[layer] = float(of_heads.max())  # 16-bit rounding changes single entries by a few hundredths

    stream(model, piece, keep, {"pattern": set(layers)}, lengths=None)
    entry_values(model, piece, entries, layers, compare)
    for layer, difference in apart.items():
        if not difference <= 5 * looseness(model):
            return f"attention in layer {layer} differs by {difference:.2g} from the model's own pattern"
    return ""


def _as_built(model: Model) -> bool:
    """Whether every module is TransformerLens' or PyTorch's own: others may agree with them on short prompts only."""

    def own(part: torch.nn.Module) -> bool:
        replaced = any(callable(value) and hasattr(type(part), name) for name, value in vars(part).items())
        return type(part).__module__.startswith(("transformer_lens.", "torch.nn.")) and not replaced

    parts = all_modules(model)
    return all(own(part) and getattr(part, "attn_type", "global") == "global" for part in parts)


class _Block(NamedTuple):
    """Rows of one prompt's pattern that are computed together, and the entries that lie in them."""

    prompt: int
    rows: Tensor  # [row], the queries, ascending
    entry: Tensor  # [entry here], index into all entries
    row: Tensor  # [entry here], index into `rows`
    key: Tensor  # [entry here]


class _Rows(Layers):
    """Layers computed one after another, each dropped as soon as its entries are read."""

    def run(
        self, resid: Tensor, entries: Entries, layers: Sequence[int], read: Callable[[int, Tensor], None]
    ) -> None:
        blocks = list(_blocks(entries, max(1, _AT_ONCE // (self.cfg.n_heads * self.length))))
        for layer in range(max(layers) + 1):
            resid = resid.to(self._device(layer))
            normed = self.maps[layer].normed(resid)
            q, k = (self.maps[layer].projected(key, normed) for key in "qk")
            if self.cfg.positional_embedding_type == "rotary":
                q, k = (self._rotated(layer, each, self._queries(layer)) for each in (q, k))
            if layer in layers:
                read(layer, self._values(layer, q, k, blocks, len(entries.key)))
            if layer == max(layers):
                return
            z = self._attend(layer, q, k, self.maps[layer].projected("v", normed), self._queries(layer))
            del q, k, normed
            resid = self._rest(layer, resid, self.maps[layer].written(z))

    def _values(self, layer: int, q: Tensor, k: Tensor, blocks: Sequence[_Block], n: int) -> Tensor:
        """Attention `[entry, head]`; the entries in one row of a pattern are read together."""
        q, k = (full_precision(each) for each in (q, per_query_head(k, self.cfg.n_heads, 2)))
        q = q / self.maps[layer].scale
        keys = k.permute(0, 2, 3, 1).contiguous()  # contiguous keys make the product a third faster
        values = torch.empty(n, self.cfg.n_heads, dtype=q.dtype)
        for block in blocks:
            rows = block.rows.to(q.device)
            first, last = int(block.rows[0]), int(block.rows[-1])
            scores = q[block.prompt, rows].transpose(0, 1) @ keys[block.prompt, :, :, : last + 1]
            later = torch.arange(first + 1, last + 1, device=rows.device) > rows[:, None]
            scores[..., first + 1 :].masked_fill_(later, -torch.inf)
            pattern = scores.softmax(-1)  # [head, row, key]
            values[block.entry] = pattern[:, block.row.to(q.device), block.key.to(q.device)].T.cpu()
        return values


def _blocks(entries: Entries, rows_at_once: int) -> Iterator[_Block]:
    """The entries by prompt and row, in blocks of at most so many rows."""
    for prompt in entries.prompt.unique().tolist():
        here = (entries.prompt == prompt).nonzero()[:, 0]
        here = here[entries.query[here].argsort(stable=True)]
        rows, row = entries.query[here].unique_consecutive(return_inverse=True)
        for begin in range(0, len(rows), rows_at_once):
            cut = torch.searchsorted(row, torch.tensor([begin, begin + rows_at_once]))
            some = here[cut[0] : cut[1]]
            yield _Block(
                prompt,
                rows[begin : begin + rows_at_once],
                some,
                row[cut[0] : cut[1]] - begin,
                entries.key[some],
            )

"""Sizes of heads on text: entropy, distance and sink of attention, norm of the output, dependence on content.

They describe a head and are never tested, as there is no value that a head has by chance. Where a head looks is scored
in `_attention` and `_text_scores`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import NotDefined, Refused
from ..heads._names import names_of
from ..model._anatomy import Model, check_model, full_precision, sizes
from ..model._runs import batches, progress_bar, stream
from ..model._self_check import foreign_hooks, is_causal
from ..model._weights import check_writing, read_dimensions, value_weights
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ..prompts._prose import ordinary_text, what_is_read
from ._pattern_entries import attends, check_sound
from ._streaming import chosen_layers
from ._text_scores import GIVEN

__all__ = ["head_sizes"]

RESTING = 0.9  # a query with more attention than this on position 0 says nothing of the rest
COMPARED = 128  # first positions at which patterns of different prompts are compared
SIZES = {
    "sink": ("share", "share of attention on the first token"),
    "entropy": ("nats", "entropy of attention"),
    "entropy_share": ("share", "entropy of attention, as a share of that of uniform attention"),
    "entropy_rest": ("nats", "entropy of attention beyond the first token"),
    "distance": ("tokens", "mean distance of attention"),
    "distance_rest": ("tokens", "mean distance of attention beyond the first token"),
    "norm": ("ratio", "norm of the output, relative to that of the stream"),
    "content": ("share", "how far the pattern depends on the content of the prompt"),
}
"""Name -> unit and title."""


def head_sizes(
    model: Model,
    prompts: Any = None,
    *,
    layers: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """What each head's attention and output are like on text: sizes without a null, described and never tested.

    With A[i, j] the attention from query i to key j, for each prompt a mean over its scored queries i >= 1:

    | variable | mean over queries of | range |
    |---|---|---|
    | `sink` | A[i, 0], whatever token stands there | 0 to 1 |
    | `entropy` | -sum_j A[i, j] log A[i, j], in nats | 0 to log of the number of keys |
    | `entropy_share` | that, over the log of the number of keys that i sees (all of them, also in a window) | 0 to 1 |
    | `distance` | sum_j A[i, j] abs(i - j), in tokens | 0 to the length |
    | `entropy_rest`, `distance_rest` | the same of rows without key 0, made to add up to 1 | as above |
    | `norm` | norm of (z - b_V) W_O over that of the residual stream it is added to | 0 or more |
    | `content` | half of sum_j abs(A[i, j] - mean of A[i, j] over the other prompts), first 128 positions | 0 to 1 |

    The rests are means over queries i >= 2 with at most .9 on key 0, NaN without any.

    `content` is 0 for a head that looks at positions alone, whatever the text; 1 if no two prompts share a key. It is
    the attention variability of Vig & Belinkov times n / (n - 1): their mean over n prompts has the prompt in it. They
    leave attention to the first token out of it, and compare the first 10 positions. Prompts of equal length, all
    beginning with BOS or none, can be compared; another prompt is needed at the same positions.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes, best of equal length; None for `ordinary_text(model)`.
        layers: only these (the pass ends after the last).
        batch_size: prompts per forward pass; None to fit the memory. Prompts of several batches run twice, for
            `content`.
        progress: a bar if it takes longer than two seconds.

    Returns:
        Dataset with these variables over (prompt, layer, head). `norm` is NaN, and the attribute `norm_left_out` says
        why, where attention's output is normalised before it is added to the stream. `content` is NaN for one prompt.
        The attribute `text` says what was read. `summarise(sizes, variable="sink")` describes one of them; without
        `variable` it is the first.

    Raises:
        Refused: a prompt without a scored query from position 1 on; attention that is not finite.

    Source: Vig & Belinkov 2019, Analyzing the Structure of Attention, equations 5 to 7 (variability, distance, entropy;
    without the first token, and entropy without queries above .9 on it); Gu et al. 2025 for the share of the first
    token; Kobayashi et al. 2020 for norms of what is written, here relative to the stream (the package's own).
    """
    check_model(model)
    ready = ordinary_text(model) if prompts is None else as_prompts(model, prompts)
    said = what_is_read(model) if prompts is None else GIVEN
    wanted, size = chosen_layers(model, layers), sizes(model)
    found, length = _Sizes(model, ready, wanted), ready.tokens.shape[1]
    cost = max(2 * length * size.n_heads, 8 * size.d_model)
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost)
    again = len(parts) > 1
    with progress_bar(len(ready) * (1 + again), progress=progress, unit="run") as bar:
        for rows in parts:
            found.measure(rows, compare=not again)
            bar.update(len(ready[rows]))
        for rows in parts if again else []:
            found.compare(rows)
            bar.update(len(ready[rows]))
    check_sound(found.broken)
    return found.dataset().assign_attrs(text=said)


class _Sizes:
    """The sizes of some layers' heads on some prompts, filled in batch by batch."""

    def __init__(self, model: Model, prompts: Prompts, layers: Sequence[int]) -> None:
        self.model, self.prompts, self.layers = model, prompts, list(layers)
        self.n_heads: int = sizes(model).n_heads
        self.counted: Tensor = _queries(prompts)
        self.shared: Tensor = self.counted.sum(0)[:COMPARED]  # prompts that count a query, [position]
        self.edited: bool = bool(foreign_hooks(model))
        self.broken: set[int] = set()
        self.sums: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}  # patterns, by head
        shape = (len(prompts), len(self.layers), self.n_heads)
        self.values: dict[str, np.ndarray] = {name: np.full(shape, np.nan) for name in SIZES}
        position, causal = torch.arange(prompts.tokens.shape[1]), is_causal(model)
        self.keys: Tensor = (position + 1).expand_as(prompts.tokens) if causal else prompts.lengths[:, None]
        self.wide: int | None = COMPARED if causal else None  # keys that the first positions see
        self.left_out: str = ""
        try:
            check_writing(model, self.layers)
        except NotDefined as reason:
            self.left_out = str(reason)

    def measure(self, rows: slice, *, compare: bool) -> None:
        """One pass over some prompts; `compare` if they are all there are."""
        scale: list[Tensor] = []  # norms of the stream before this layer

        def read(site: str, layer: int, activation: Tensor) -> None:
            at, seen = self.layers.index(layer), activation.detach()
            if site == "resid_pre":
                scale[:] = [self._stream_norm(layer, full_precision(seen))]
            elif site == "z":
                self._output(rows, at, full_precision(seen), scale[0])
            else:
                self._check(rows, layer, seen)
                self._pattern(rows, at, seen)
                if compare:
                    self._content(rows, at, seen)

        of_outputs = ("resid_pre", "z") if not self.left_out else ()
        self._run(rows, read, ("pattern", *of_outputs))

    def compare(self, rows: slice) -> None:
        """One more pass, for how patterns differ from the mean over the other prompts."""

        def read(_: str, layer: int, pattern: Tensor) -> None:
            self._content(rows, self.layers.index(layer), pattern.detach())

        self._run(rows, read, ("pattern",))

    def _run(self, rows: slice, read: Any, names: Iterable[str]) -> None:
        sites = {name: set(self.layers) for name in names}
        stream(self.model, self.prompts.tokens[rows], read, sites, lengths=self.prompts.lengths[rows])

    def _check(self, rows: slice, layer: int, pattern: Tensor) -> None:
        if not attends(pattern, self.prompts.lengths[rows], edited=self.edited):
            self.broken.add(layer)

    def _put(self, name: str, rows: slice, at: int, head: int, value: Tensor, counted: Tensor) -> None:
        """The mean over queries of `value [prompt, query]`, those counted."""
        exact, counted = value.cpu().double(), counted.cpu()
        total = exact.where(counted, 0.0).sum(1)
        self.values[name][rows, at, head] = (total / counted.sum(1)).numpy()  # 0 / 0 is NaN

    def _pattern(self, rows: slice, at: int, pattern: Tensor) -> None:
        """The sizes of one layer's patterns `[prompt, head, query, key]`, and their part of the sums."""
        counted, place = self.counted[rows].to(pattern.device), torch.arange(pattern.shape[2])
        apart = (place[:, None] - place).abs().to(pattern.device)
        exact = torch.promote_types(pattern.dtype, torch.float32)
        most = self.keys[rows].to(exact).log().to(pattern.device)
        for head in range(self.n_heads):
            one = full_precision(pattern[:, head])
            entropy, distance, sink = torch.special.entr(one).sum(-1), (one * apart).sum(-1), one[..., 0]
            rest = one[..., 1:].sum(-1).clamp(min=torch.finfo(one.dtype).tiny)
            # of the row without key 0, divided by what is left of it
            entropy_rest = (entropy - torch.special.entr(sink)) / rest + rest.log()
            distance_rest = (distance - sink * apart[:, 0]) / rest
            beyond = counted & (sink <= RESTING) & (place >= 2).to(counted.device)
            whole = {"sink": sink, "entropy": entropy, "entropy_share": entropy / most, "distance": distance}
            for name, value in whole.items():
                self._put(name, rows, at, head, value, counted)
            for name, value in {"entropy_rest": entropy_rest, "distance_rest": distance_rest}.items():
                self._put(name, rows, at, head, value, beyond)
            self._add(at, head, one, counted)

    def _add(self, at: int, head: int, one: Tensor, counted: Tensor) -> None:
        """The counted queries' rows, summed over prompts, `[query, key]` of the first positions."""
        first = (one[:, :COMPARED, : self.wide] * counted[:, :COMPARED, None]).sum(0).cpu()
        sums = self.sums[self.layers[at]]
        if head < len(sums):
            sums[head] += first
        else:
            sums.append(first)

    def _content(self, rows: slice, at: int, pattern: Tensor) -> None:
        """Half the sum of differences from the mean of the other prompts."""
        exact = torch.promote_types(pattern.dtype, torch.float32)
        n = self.shared.clamp(min=2).to(exact).to(pattern.device)
        counted = (self.counted[rows, :COMPARED] & (self.shared >= 2)).to(pattern.device)
        for head in range(self.n_heads):
            one = full_precision(pattern[:, head, :COMPARED, : self.wide])
            mean = self.sums[self.layers[at]][head].to(one.device) / n[:, None]
            apart = (one - mean).abs().sum(-1) / 2 * (n / (n - 1))
            self._put("content", rows, at, head, apart, counted)

    def _stream_norm(self, layer: int, resid: Tensor) -> Tensor:
        """`[prompt, position]`: the norm of the stream, without its mean where LayerNorms read it."""
        centred = read_dimensions(self.model, layer) < resid.shape[-1]
        return (resid - resid.mean(-1, keepdim=True) if centred else resid).norm(dim=-1)

    def _output(self, rows: slice, at: int, z: Tensor, scale: Tensor) -> None:
        """Norms of what each head writes at each position, over those of the stream."""
        _, b_v, w_o = value_weights(self.model, self.layers[at])
        for head in range(self.n_heads):
            written = (z[:, :, head] - b_v[head].to(z)) @ w_o[head].to(z)
            ratio = written.norm(dim=-1) / scale.to(z)
            self._put("norm", rows, at, head, ratio, self.counted[rows])

    def dataset(self) -> xr.Dataset:
        """All sizes, labelled."""
        heads, dims = range(self.n_heads), ("prompt", "layer", "head")
        said = {"norm_left_out": self.left_out} if self.left_out else {}
        return xr.Dataset(
            {
                name: (dims, self.values[name], {"unit": unit, "title": title})
                for name, (unit, title) in SIZES.items()
            },
            coords={
                "prompt": np.arange(len(self.prompts)),
                "layer": self.layers,
                "head": list(heads),
                "name": (("layer", "head"), names_of(self.layers, heads)),
            },
            attrs={
                "method": "head_sizes",
                "title": "sizes of heads: described, not tested",
                "paper": "Vig & Belinkov 2019; Gu et al. 2025; Kobayashi et al. 2020",
                "described": ", ".join(SIZES),
                "resting": RESTING,
                "compared": COMPARED,
                **said,
                **measured_on(self.model, self.prompts),
            },
        )


def _queries(prompts: Prompts) -> Tensor:
    """Scored queries that see another key, bool `[prompt, position]`; Refused where a prompt has none."""
    place = torch.arange(prompts.tokens.shape[1])
    counted = prompts.scored & (place >= 1) & (place < prompts.lengths[:, None])
    if without := (~counted.any(1)).nonzero()[:, 0].tolist():
        raise Refused(
            f"prompt {without[0]} has no scored query from position 1 on ({len(without)} of {len(prompts)} prompts): "
            "wanted prompts of at least two tokens"
        )
    return counted

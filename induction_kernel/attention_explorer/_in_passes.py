"""Few-shot prompts whose attention is read in passes that are made anyway, for `few_shot_study`.

Nothing is computed again afterwards: all heads' patterns are kept in 16 bits, on as many of the first prompts as fit in
256 MB, which may be none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from torch import Tensor

from ..model._anatomy import Model, sizes
from ..prompts._prompts import FewShotPrompts
from ..scorers._raw_patterns import value_norms
from ._model_prompts import few_shot_of, pieces, special
from ._packing import thumbnails
from ._shown import OneHead, Pair, Shown, strongest_of

__all__ = ["PromptsInPasses"]

PROMPTS = 4  # prompts that are shown, at most
KEPT = 2**28  # bytes of patterns that are kept, at most
SHORT = 60  # characters of a query in the name of its prompt


class PromptsInPasses:
    """The first prompts, as the explorer shows them; `answered` in `fewshot` reads them batch by batch."""

    def __init__(self, model: Model, prompts: FewShotPrompts) -> None:
        """Prepare for as many of these prompts as are shown."""
        size = sizes(model)
        layers, lengths = set(range(size.n_layers)), prompts.lengths[:PROMPTS].numpy()
        taken = size.n_layers * size.n_heads * lengths * (lengths + 1)  # two bytes for each pair of tokens
        self.model, self.prompts, self.sites = model, prompts, {"pattern": layers, "v": layers}
        self.n_prompts = int((taken.cumsum() <= KEPT).sum())
        self._layers: dict[tuple[int, ...], dict[int, _Layer]] = defaultdict(dict)

    def reader(self, batch: FewShotPrompts) -> Callable[[str, int, Tensor], None]:
        """A function that takes every layer's values and patterns in a batch, in any order."""
        waiting: dict[int, dict[str, Tensor]] = defaultdict(dict)
        rows = [tuple(row[:n]) for row, n in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)]

        def read(site: str, layer: int, activation: Tensor) -> None:
            waiting[layer][site] = activation.detach()
            if len(waiting[layer]) < len(self.sites):
                return
            both = waiting.pop(layer)
            norms = value_norms(self.model, layer, both["v"])
            for ids, pattern, norm in zip(rows, both["pattern"], norms, strict=True):
                self._layers[ids][layer] = _kept(ids, pattern, norm)

        return read

    def shown(self, answers: xr.Dataset, queries: Sequence[str]) -> tuple[Shown, ...]:
        """The prompts, named by their queries, with the weights and predictions that `answered` returned."""
        weights = answers["weight"].sel(pooling="max").transpose("prompt", "layer", "head", "demonstration")
        classes = answers["prediction"].values
        found = []
        for i in range(self.n_prompts):
            prompt = self.prompts[i : i + 1].narrowed()
            ids = prompt.tokens[0].tolist()
            layers = [of_layer for _, of_layer in sorted(self._layers[tuple(ids)].items())]
            of_heads = weights.values[i].reshape(-1, weights.shape[-1])
            one = Shown(
                name=f"{i}. {_short(queries[i])}",
                tokens=pieces(getattr(self.model, "tokenizer", None), ids),
                special=special(self.model, ids),
                thumbnails=np.concatenate([each.thumbnails for each in layers]),
                strongest=[pairs for each in layers for pairs in each.strongest],
                patterns=_Patterns(layers),
                norms=True,
                few_shot=few_shot_of(prompt, of_heads, int(classes[i])),
            )
            found.append(one)
        return tuple(found)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer's heads on one prompt.

    Attributes:
        thumbnails: `[head, side, side]`.
        strongest: strongest pairs of each head.
        norms: `[head, key]`.
        entries: float16 `[head, entry]`, the lower triangles of the patterns.
    """

    thumbnails: np.ndarray
    strongest: list[list[Pair]]
    norms: np.ndarray
    entries: np.ndarray


@dataclass(frozen=True, eq=False)
class _Patterns:
    """The patterns that were kept, by index of the head."""

    layers: list[_Layer]

    def __call__(self, indices: Sequence[int]) -> Iterator[OneHead]:
        for index in sorted(indices):
            layer, head = divmod(index, len(self.layers[0].entries))
            norms = self.layers[layer].norms[head]
            pattern = np.zeros((len(norms), len(norms)), dtype=np.float32)
            pattern[np.tri(len(norms), dtype=bool)] = self.layers[layer].entries[head]
            yield index, pattern, norms


def _kept(ids: tuple[int, ...], pattern: Tensor, norms: np.ndarray) -> _Layer:
    """What is kept of the patterns `[head, query, key]` and norms `[head, key]` of one prompt, which may be padded."""
    n, strings = len(ids), tuple(map(str, ids))
    seen = pattern[:, :n, :n].float().cpu().numpy()
    seen = np.nan_to_num(seen).clip(0, 1)  # `answered` refuses unsound attention once the pass is over
    norms = norms[:, :n]
    strongest = [strongest_of(one, norm, strings) for one, norm in zip(seen, norms, strict=True)]
    lower = seen[:, np.tri(n, dtype=bool)].astype(np.float16)
    return _Layer(thumbnails(seen), strongest, norms, lower)


def _short(query: str) -> str:
    """A query on one line, as long as a menu takes."""
    line = " ".join(query.split())
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"

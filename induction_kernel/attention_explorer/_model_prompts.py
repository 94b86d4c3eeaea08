"""Prompts as a model reads them: one run each, from which thumbnails and strongest pairs are kept, no pattern.

A pattern is computed again when it is asked for (`replay/_patterns_again`) and compared with its thumbnail. If it
differs the model is run again up to the layer; if it differs still, the model has changed since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._runs import progress_bar, stream
from ..model._self_check import foreign_hooks, is_causal, self_check
from ..prompts._prompts import FewShotPrompts, Prompts, decoded
from ..replay._layers import looseness
from ..replay._patterns_again import PatternsAgain, pattern_of, read_layers, runs_by_heads
from ..scorers._labels import entries_of, pooled
from ..scorers._pattern_entries import attends, check_sound, taken
from ..scorers._raw_patterns import value_norms
from ._packing import STEPS, largest_in_cells, thumbnails
from ._shown import FewShot, OneHead, Pair, Shown, strongest_of

__all__ = ["few_shot_of", "pieces", "read_prompts", "special"]

KEPT = 2**31  # bytes of streams that are kept in memory, at most
LONG = 320  # tokens from which patterns are computed a few heads at a time


def read_prompts(model: Model, prompts: Prompts, *, before: str, progress: bool) -> list[Shown]:
    """Every prompt as the model reads it.

    Args:
        model: any TransformerLens model.
        prompts: the prompts.
        before: what comes before the number of a prompt in its name.
        progress: show a progress bar if it takes longer than two seconds.

    Raises:
        Refused: attention that is not finite.
    """
    size = sizes(model)
    self_check(model)
    each = int(prompts.lengths.sum()) * size.d_model * size.n_layers * model.W_U.element_size()
    found: list[Shown] = []
    with progress_bar(len(prompts) * size.n_layers, progress=progress, what="explore") as bar:
        for i, one in enumerate(prompts):
            run = _Run(model, one.narrowed(), each <= KEPT, bar.update)
            found.append(run.shown(f"{before}prompt {i + 1}"))
    return found


@dataclass(eq=False)
class _Run:
    """One run of a model on one prompt, and what is kept of it, by layer."""

    model: Model
    prompt: Prompts
    store: bool
    advance: Callable[[float], Any]
    norms: dict[int, np.ndarray] = field(default_factory=dict)
    thumbnails: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[int, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    strongest: dict[int, list[list[Pair]]] = field(default_factory=lambda: defaultdict(list))
    broken: set[int] = field(default_factory=set)

    def shown(self, name: str) -> Shown:
        """Run the model; the prompt with what was kept of it."""
        model, tokens = self.model, self.prompt.tokens[0]
        self.tokens = pieces(getattr(model, "tokenizer", None), tokens.tolist())
        by_heads = len(tokens) >= LONG and runs_by_heads(model, tokens)
        streams = self._by_heads(tokens) if by_heads else self._whole(tokens)
        again = PatternsAgain(model, tokens, streams) if self.store else None
        check_sound(self.broken)
        kept = np.concatenate(_in_order(self.thumbnails))

        def patterns(indices: Sequence[int]) -> Iterator[OneHead]:
            return _patterns(model, tokens, again, kept, self.norms, indices)

        return Shown(
            name=name,
            tokens=self.tokens,
            special=special(model, tokens.tolist()),
            thumbnails=kept,
            strongest=_in_order(self.strongest),
            patterns=patterns,
            ahead=not is_causal(model),
            norms=True,
            few_shot=self._few_shot(),
            n_bytes=sum(each.nbytes for each in streams.values()),
        )

    def _by_heads(self, tokens: Tensor) -> dict[int, Tensor]:
        return read_layers(self.model, tokens, self._read_values, self._keep, store=self.store)

    def _whole(self, tokens: Tensor) -> dict[int, Tensor]:
        """One pass of the model; no more than the pattern and the stream of a layer are in memory, unless stored."""
        layers = set(range(sizes(self.model).n_layers))
        store = self.store and runs_by_heads(self.model, tokens)
        streams, waiting = dict[int, Tensor](), dict[int, Tensor]()

        def read(site: str, layer: int, activation: Tensor) -> None:
            if site == "resid_pre":
                streams[layer] = activation[0].detach()
            elif site == "v":
                self._read_values(layer, activation)
            else:
                waiting[layer] = full_precision(activation[0].detach())
            if layer in self.norms and layer in waiting:  # their order depends on the model's class
                pattern = waiting.pop(layer)
                self._keep(layer, range(len(pattern)), pattern)

        sites = {"v": layers, "pattern": layers} | ({"resid_pre": layers} if store else {})
        stream(self.model, tokens[None], read, sites, lengths=None)
        return streams

    def _read_values(self, layer: int, v: Tensor) -> None:
        self.norms[layer] = value_norms(self.model, layer, v)[0]

    def _keep(self, layer: int, heads: Sequence[int], pattern: Tensor) -> None:
        """Keep what is shown of the patterns `[head, query, key]` of some heads."""
        of_heads = pattern.float().cpu().numpy()
        small, edited = largest_in_cells(of_heads), bool(foreign_hooks(self.model))
        if not (np.isfinite(small).all() and attends(pattern[None], self.prompt.lengths, edited=edited)):
            self.broken.add(layer)
            return
        if isinstance(self.prompt, FewShotPrompts):
            values = taken(pattern[None], entries_of(self.prompt, "max", "demonstration"))
            self.weights[layer].append(pooled(values, self.prompt, "max")[0].T.numpy())
        self.thumbnails[layer].append(thumbnails(small))
        for head, one in zip(heads, of_heads, strict=True):
            self.strongest[layer].append(strongest_of(one, self.norms[layer][head], self.tokens))
        self.advance(len(heads) / sizes(self.model).n_heads)

    def _few_shot(self) -> FewShot | None:
        if not isinstance(self.prompt, FewShotPrompts):
            return None
        return few_shot_of(self.prompt, np.concatenate(_in_order(self.weights)))


def few_shot_of(prompt: FewShotPrompts, weights: np.ndarray, answer: int = -1) -> FewShot:
    """The demonstrations of one prompt.

    Args:
        prompt: the prompt.
        weights: `[head, demonstration]`, anything where a demonstration is absent.
        answer: the class that the model answers, -1 where it is not known.
    """
    found = prompt.demonstrations
    there = found.mask[0]
    columns = [found.spans[0], found.label_positions[0, :, None], found.classes[0, :, None]]
    demonstrations, target = torch.cat(columns, 1)[there].numpy(), int(found.target[0])
    return FewShot(demonstrations, found.labels, target, weights[:, there.numpy()], answer)


def _in_order(of_layers: Mapping[int, list[Any]]) -> list[Any]:
    """What was kept of all layers, in their order."""
    return [each for layer in sorted(of_layers) for each in of_layers[layer]]


def pieces(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """The tokens as strings that make the text when they are joined: with the space that a tokenizer puts between."""
    alone = [decoded(tokenizer, [token]) for token in ids]
    pieces = alone[:1]
    for pair, before, own in zip(pairwise(ids), alone, alone[1:], strict=False):
        both = decoded(tokenizer, list(pair))
        pieces.append(both.removeprefix(before) if both.startswith(before) and both.endswith(own) else own)
    return tuple(pieces)


def special(model: Model, ids: list[int]) -> tuple[int, ...]:
    """Positions of special tokens, such as BOS."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    return tuple(at for at, token in enumerate(ids) if token in special)


def _patterns(
    model: Model,
    tokens: Tensor,
    again: PatternsAgain | None,
    kept: np.ndarray,
    norms: dict[int, np.ndarray],
    indices: Sequence[int],
) -> Iterator[OneHead]:
    n_heads = sizes(model).n_heads
    for layer, group in groupby(sorted(indices), key=lambda index: index // n_heads):
        heads = [index % n_heads for index in group]
        wanted = kept[[layer * n_heads + head for head in heads]]
        found = _checked(model, tokens, again, wanted, layer, heads)
        for head, pattern in zip(heads, found, strict=True):
            yield layer * n_heads + head, pattern, norms[layer][head]


def _checked(
    model: Model,
    tokens: Tensor,
    again: PatternsAgain | None,
    wanted: np.ndarray,
    layer: int,
    heads: list[int],
) -> np.ndarray:
    """Patterns `[head, query, key]` that agree with their thumbnails."""
    allowed = 1 + STEPS * 5 * looseness(model)
    ways = [again] if again is not None else []
    for way in (*ways, lambda layer, heads: pattern_of(model, tokens, layer, heads)):
        found = way(layer, heads).float().numpy()
        if np.abs(thumbnails(found).astype(int) - wanted).max() <= allowed:
            return found
    raise Refused(
        f"the attention of layer {layer} is not what explore(...) saw: the model has changed since, call explore again"
    )

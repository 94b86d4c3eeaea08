"""How long the parts of the page about a model take, from the time of a pass or two and the number of passes of each.

The speed is that of the way the page runs the model: patterns read layer by layer, losses, and edited runs in the lane
that the engine chooses. `_schedule` chooses the sizes of the parts by these costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NotDefined
from ..heads._names import Head
from ..interventions._ablation import groups_removed
from ..metrics._by_position import token_losses
from ..model._anatomy import Model, sizes
from ..model._runs import stream
from ..model._weights import check_writing
from ..prompts._prompts import Prompts
from ..prompts._word_task import word_episodes
from ..scorers._ov import draws_of, rotations

__all__ = ["Amounts", "Speed", "Work", "clock", "speeds", "work_of"]

clock = time.perf_counter
PROBED = 6  # edited runs that are timed


@dataclass(frozen=True)
class Amounts:
    """How much there is of each part of the page; 0 of a part that is left out.

    Attributes:
        prompts: prompts of the scores: half of them to choose heads on, half to report on.
        some: prompts of the ablations of the heads shown, alone, together and beside random ones.
        draws: random sets for each number of heads, at most.
        curve: whether other numbers of heads are removed together too.
        every: prompts of the map of every head removed in turn.
        direct: prompts of direct effects and losses.
        weights: whether there are copying and OV eigenvalues.
        episodes: few-shot prompts.
    """

    prompts: int
    some: int
    draws: int
    curve: bool
    every: int
    direct: int
    weights: bool
    episodes: int


@dataclass(frozen=True)
class Speed:
    """Seconds that a token takes.

    Attributes:
        layers: through all layers.
        losses: through all layers and the unembedding.
        head: in a run with one head edited, on average over the layers.
        heads: in a run with heads edited in any layers.
    """

    layers: float
    losses: float
    head: float
    heads: float


@dataclass(frozen=True)
class Work:
    """What the costs depend on besides the speed.

    Attributes:
        cells: heads of the model.
        shown: heads of the table, at most.
        length: tokens of a prompt, with padding.
        episode: tokens of a few-shot prompt; 0 where the model has none.
        writes: whether direct effects are defined.
        circuits: seconds for OV eigenvalues; 0 where they are not defined.
    """

    cells: int
    shown: int
    length: float
    episode: float
    writes: bool
    circuits: float

    def seconds(self, amounts: Amounts, speed: Speed) -> dict[str, float]:
        """Part of the page -> the seconds that it takes."""
        token = speed.losses - speed.layers  # unembedded
        ks = (self.cells // 2).bit_length() + 1 if amounts.curve else 1
        groups = self.shown + ks * (1 + amounts.draws)
        untouched = speed.layers + speed.losses  # the prompts' own run and that of their control
        copying = 16 * 25 * speed.layers  # it reads 16 prompts of 25 tokens
        return {
            "scores": 2 * amounts.prompts * self.length * speed.layers,
            "ablations": amounts.some * self.length * (untouched + groups * speed.heads),
            "map": amounts.every * self.length * (untouched + self.cells * speed.head),
            "direct": amounts.direct * self.length * (speed.losses + self.writes * 1.5 * speed.layers),
            "weights": amounts.weights * (self.circuits + self.writes * copying),
            "few-shot": amounts.episodes * (self.episode * speed.layers + bool(self.episode) * token),
        }


def work_of(model: Model, prompts: Prompts, shown: int) -> Work:
    """What the costs of this model's page depend on; it runs no model."""
    size = sizes(model)
    try:
        check_writing(model, range(size.n_layers))
        writes = True
    except NotDefined:
        writes = False
    try:
        episode = float(word_episodes(model, prompts=4).lengths.double().mean())
    except NotDefined:
        episode = 0.0
    circuits = _circuits(model) if writes else 0.0
    return Work(size.n_layers * size.n_heads, shown, prompts.tokens.shape[1], episode, writes, circuits)


def _circuits(model: Model) -> float:
    """Seconds for OV eigenvalues, from the time of one layer's random draw and of a part of the vocabulary."""
    size, part = sizes(model), 512
    draws = draws_of(size.n_layers * size.n_heads)
    generator = torch.Generator().manual_seed(0)
    circuit = torch.randn(size.n_heads, size.d_head, size.d_head, dtype=torch.float64, generator=generator)
    torch.linalg.eigvals(rotations(circuit))  # the first call is slower
    begun = clock()
    torch.linalg.eigvals(circuit @ rotations(circuit))
    of_draw, begun = clock() - begun, clock()
    rows = torch.ones(size.d_model, part, dtype=torch.float64)
    torch.mm(rows, rows.T)
    of_words = (clock() - begun) * size.d_vocab / part
    return size.n_layers * (1 + draws) * of_draw + of_words


def speeds(model: Model, prompts: Prompts) -> Iterator[tuple[Speed, float]]:
    """Estimates of the speed, each better than the one before, and the seconds of the timing that it rests on.

    The first takes three passes of one prompt, and every edited run for a whole run of the model, which is the slowest
    way. The others time edited runs as the page makes them, on 1, 2, 4, ... prompts.
    """
    size = sizes(model)
    _timed_layers(model, prompts[:1])  # the first pass of a model is slower, and it is examined before
    layers, losses = _timed_layers(model, prompts[:1]), _timed_losses(model, prompts[:1])
    losses = max(losses, layers)
    yield Speed(layers, losses, losses, losses), 0.0
    every = [Head(layer, head) for layer in range(size.n_layers) for head in range(size.n_heads)]
    apart = [[every[at]] for at in sorted({(2 * i + 1) * len(every) // (2 * PROBED) for i in range(PROBED)})]
    groups_removed(
        model, prompts[:1].narrowed(), apart[:1], progress=False
    )  # lanes are checked at their first use
    n = 1
    while n <= len(prompts):
        some = prompts[:n].narrowed()
        layers, losses = _timed_layers(model, some), _timed_losses(model, some)
        losses = max(losses, layers)
        begun = clock()
        _, attrs = groups_removed(model, some, apart, progress=False)
        seconds = clock() - begun
        taken = seconds / some.tokens.numel()
        head = max(taken - layers - losses, taken / 3) / len(apart)
        more = (
            1 if attrs["lane"] == "model" else (layers + losses) / losses
        )  # all layers instead of half of them
        yield Speed(layers, losses, head, head * more), seconds
        n *= 2


def _timed_layers(model: Model, prompts: Prompts) -> float:
    """Seconds a token of a pass through all layers in which patterns are read."""

    def read(_: str, layer: int, pattern: Tensor) -> None:
        pattern.flatten()[-1].item()  # waits for a device that is still computing

    begun = clock()
    stream(
        model, prompts.tokens, read, {"pattern": set(range(sizes(model).n_layers))}, lengths=prompts.lengths
    )
    return (clock() - begun) / prompts.tokens.numel()


def _timed_losses(model: Model, prompts: Prompts) -> float:
    """Seconds a token of a pass with losses."""
    begun = clock()
    token_losses(model, prompts)
    return (clock() - begun) / prompts.tokens.numel()

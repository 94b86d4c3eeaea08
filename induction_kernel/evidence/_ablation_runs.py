"""Ablations of one model for argument 3: its induction heads, as many random others, and each head alone.

After Olsson et al. 2022: heads are removed in three ways: "zero" (z := 0; everything downstream moves), "mean" (their
mean activation in its place) and "patterns" (z := 0, and all attention patterns held at the untouched run's, so that
only values move: their pattern-preserving ablation). It judges nothing: see `_direct_ablation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..errors import NotDefined
from ..heads._choice import random_heads
from ..heads._names import Head
from ..interventions._edits import Edit, Mean, Zero
from ..interventions._engine import Found, run_cells
from ..interventions._intervention import Hold, Intervention
from ..interventions._plan import Cell
from ..metrics._metric import Metric
from ..metrics._standard import loss, repeat_loss
from ..model._anatomy import Model, sizes
from ..prompts._prompts import Prompts
from ..prompts._repeated import repeated_tokens
from ..scorers._attention import prefix_matching
from ..training._curves import Curves
from ..training._merged import as_variables, joined
from ..training._phases import EXCESS

__all__ = ["MODES", "Removal", "chosen_heads", "other_heads"]

MODES: dict[str, tuple[Edit, Hold]] = {
    "zero": (Zero(), None),
    "mean": (Mean(), None),
    "patterns": (Zero(), "patterns"),
}
"""Way of removing heads -> edit of z, and what is held."""


def chosen_heads(model: Model, *, n: int, seed: int) -> list[Head]:
    """The induction heads: those whose prefix-matching score exceeds its matched control by more than .3."""
    ready = repeated_tokens(model, repeats=4, prompts=n, seed=seed)
    found = prefix_matching(model, ready, progress=False)
    excess = (found["score"] - found["control"]).mean("prompt").transpose("layer", "head").values
    return [Head(int(layer), int(head)) for layer, head in np.argwhere(excess > EXCESS)]


def other_heads(model: Model, heads: Sequence[Head]) -> str:
    """Where random heads to compare with are from: "same layer", or "any layer" where layers have too few.

    Raises:
        NotDefined: the model has too few others.
    """
    try:
        random_heads(model, like=heads)
    except NotDefined:
        random_heads(model, like=heads, control="any layer")
        return "any layer"
    return "same layer"


@dataclass(frozen=True, eq=False, kw_only=True)
class Removal:
    """Everything that is removed from a model, and what is measured then; call it as `removal(model)`.

    Attributes:
        heads: the induction heads, removed together.
        controls: sets of other heads.
        texts: the prompts of the in-context-learning score and their bands.
        n: prompts of the repeat, and of choosing heads.
        seed: of both.
        by_head: whether every head is removed by itself.
        direction: `[prompt, position]` of losses of the texts; None not to measure along it.
    """

    heads: tuple[Head, ...]
    controls: tuple[tuple[Head, ...], ...]
    texts: Curves
    n: int
    seed: int
    by_head: bool = True
    direction: Tensor | None = None

    def __call__(self, model: Model) -> xr.Dataset:
        """What the untouched model has, and what changes without what is removed.

        `icl[prompt]` is the in-context-learning score of the texts, `repeat[prompt]` the loss of a second copy, `turn`
        the losses of the texts along `direction`, where there is one (in the mode "patterns" alone). Of each of these:
        `..._effect[mode, prompt, layer, head]` of each head, `..._joint[mode, prompt]` of the induction heads,
        `..._control[mode, draw, prompt]` of other sets, `..._then[mode, prompt]` of the heads that would be chosen in
        this model (0 where there are none; `..._n_then` says how many), `..._without[prompt]`, the value where the
        ability is absent.
        """
        then = chosen_heads(model, n=self.n, seed=self.seed)
        ready, early, late = self.texts.icl_prompts(model)
        # other tokens than those that heads are chosen on
        repeats = repeated_tokens(model, prompts=self.n, seed=self.seed + 1)
        found = {
            "icl": self._effects(model, ready, _banded(early, late), list(MODES), then),
            "repeat": self._effects(model, repeats, repeat_loss, list(MODES), then),
        }
        if self.direction is not None:
            along = self._effects(model, ready, _along(self.direction), ["patterns"], then)
            found["turn"] = along.isel(mode=0, drop=True)
        return joined([as_variables(name, each) for name, each in found.items()])

    def _effects(
        self, model: Model, prompts: Prompts, metric: Metric, modes: list[str], then: list[Head]
    ) -> xr.Dataset:
        """One metric, on the same prompts in these modes."""
        size = sizes(model)
        single = [Head(layer, head) for layer in range(size.n_layers) for head in range(size.n_heads)]
        groups = [[head] for head in single] if self.by_head else []
        groups += [list(self.heads), *map(list, self.controls), then]
        runs = [_without(model, prompts, metric, groups, *MODES[mode]) for mode in modes]
        effects = np.stack([run.values - run.baseline for run in runs])
        first = len(groups) - len(self.controls) - 2
        values: dict[str, Any] = {
            "value": ("prompt", runs[0].baseline),
            "joint": (("mode", "prompt"), effects[:, first]),
            "control": (("mode", "draw", "prompt"), effects[:, first + 1 : -1]),
            "then": (("mode", "prompt"), effects[:, -1]),
            "n_then": len(then),
        }
        coords: dict[str, Any] = {
            "mode": np.array(modes),
            "prompt": np.arange(len(prompts)),
            "draw": np.arange(len(self.controls)),
        }
        if self.by_head:
            shape = (len(modes), size.n_layers, size.n_heads, -1)
            by_head = effects[:, :first].reshape(shape).transpose(0, 3, 1, 2)
            values["effect"] = (("mode", "prompt", "layer", "head"), by_head)
            coords |= {"layer": np.arange(size.n_layers), "head": np.arange(size.n_heads)}
        if runs[0].without is not None:
            values["without"] = ("prompt", runs[0].without)
        return xr.Dataset(values, coords, {"unit": metric.unit})


def _without(
    model: Model, prompts: Prompts, metric: Metric, groups: Sequence[Sequence[Head]], edit: Edit, hold: Hold
) -> Found:
    """Each group removed together; one of no heads changes nothing."""
    cells = [
        Cell({layer: tuple(h.head for h in heads if h.layer == layer) for layer in {h.layer for h in heads}})
        for heads in groups
        if heads
    ]
    found = run_cells(model, prompts, cells, Intervention(edit, "z", metric, hold), progress=False)
    values = np.tile(found.baseline, (len(groups), 1))
    values[[index for index, heads in enumerate(groups) if heads]] = found.values
    return replace(found, values=values)


def _banded(early: tuple[int, int], late: tuple[int, int]) -> Metric:
    """The in-context-learning score of each prompt, in nats; without in-context learning it is 0."""
    width = early[1] - early[0]

    def reads(prompts: Prompts) -> Tensor:
        wanted = torch.zeros(prompts.tokens.shape, dtype=torch.bool)
        wanted[:, slice(*early)] = wanted[:, slice(*late)] = True
        return wanted

    def score(found: Tensor, _: Prompts) -> Tensor:
        return found[:, :width, 0].mean(1) - found[:, width:, 0].mean(1)  # of log-probabilities

    def nothing(found: Tensor, _: Prompts) -> Tensor:
        return torch.zeros(len(found))

    without = Metric("no_icl_score", "nats", nothing, reads, loss.targets)
    return Metric("banded_icl_score", "nats", score, reads, loss.targets, without=without, of="next")


def _along(direction: Tensor) -> Metric:
    """The losses of a prompt along its row `[position]` of a direction."""

    def product(found: Tensor, _: Prompts) -> Tensor:
        losses = -found[..., 0].double()
        return (losses * direction[:, : losses.shape[1]]).nansum(1)

    return Metric(
        "along_the_change",
        "nats",
        product,
        loss.reads,
        loss.targets,
        part=lambda rows: _along(direction[rows]),
        of="next",
    )

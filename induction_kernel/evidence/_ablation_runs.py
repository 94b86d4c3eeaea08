"""Ablations of one model for argument 3: induction heads together, random sets of other heads, and each head alone.

Heads are removed in three ways, after Olsson et al. 2022: "zero" (z := 0; everything downstream moves), "mean" (their
mean activation in place of z) and "patterns" (z := 0 with all attention patterns held at the untouched run's, so that
only values move: pattern-preserving ablation). `_direct_ablation` makes the verdict.
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
from ..interventions._activations import Edit
from ..interventions._compared_sets import cells_of
from ..interventions._edits import Zero
from ..interventions._edits_from_runs import Mean
from ..interventions._engine import Found, run_cells
from ..interventions._intervention import Hold, Intervention
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
"""Way of removing heads -> the edit of z, and what is held fixed."""


def chosen_heads(model: Model, *, n: int, seed: int) -> list[Head]:
    """The induction heads: those whose prefix-matching score exceeds its matched control by more than .3."""
    ready = repeated_tokens(model, repeats=4, prompts=n, seed=seed)
    found = prefix_matching(model, ready, progress=False)
    excess = (found["score"] - found["control"]).mean("prompt").transpose("layer", "head").values
    return [Head(int(layer), int(head)) for layer, head in np.argwhere(excess > EXCESS)]


def other_heads(model: Model, heads: Sequence[Head]) -> str:
    """Which heads random sets are drawn from: those of the "same layer", or of "any layer" where layers have too few.

    Raises:
        NotDefined: the model has too few other heads.
    """
    try:
        random_heads(model, like=heads)
    except NotDefined:
        random_heads(model, like=heads, control="any layer")
        return "any layer"
    return "same layer"


@dataclass(frozen=True, eq=False, kw_only=True)
class Removal:
    """Which heads are removed and what is measured; `removal(model)` measures one model.

    Attributes:
        heads: the induction heads, removed together.
        controls: sets of other heads, each removed together.
        texts: the prompts of the in-context-learning score and their bands.
        n: number of prompts of repeated tokens, both those measured and those that heads are chosen on.
        seed: of these prompts.
        by_head: whether every head is also removed by itself.
        direction: `[prompt, position]`, a direction in the losses of the texts; None to leave `change` out.
    """

    heads: tuple[Head, ...]
    controls: tuple[tuple[Head, ...], ...]
    texts: Curves
    n: int
    seed: int
    by_head: bool = True
    direction: Tensor | None = None

    def __call__(self, model: Model) -> xr.Dataset:
        """The measures of the untouched model, and how they change when heads are removed.

        The measures, in nats: `icl[prompt]`, the in-context-learning score of the texts; `repeat[prompt]`, the loss of
        a second copy; with a `direction`, `change[prompt]`, the losses of the texts along it (in the mode "patterns"
        only, without a dimension `mode`). For each of them the changes `..._effect[mode, prompt, layer, head]` (each
        head alone), `..._joint[mode, prompt]` (the induction heads), `..._control[mode, draw, prompt]` (the other
        sets) and `..._then[mode, prompt]` (the heads that would be chosen in this model: 0 where there are none;
        `..._n_then` is their number); and `..._without[prompt]`, the value without any in-context learning.
        """
        then = chosen_heads(model, n=self.n, seed=self.seed)
        ready, early, late = self.texts.icl_prompts(model)
        # Other tokens than those that heads are chosen on.
        repeats = repeated_tokens(model, prompts=self.n, seed=self.seed + 1)
        found = {
            "icl": self._effects(model, ready, _banded(early, late), list(MODES), then),
            "repeat": self._effects(model, repeats, repeat_loss, list(MODES), then),
        }
        if self.direction is not None:
            along = self._effects(model, ready, _along(self.direction), ["patterns"], then)
            found["change"] = along.isel(mode=0, drop=True)
        return joined([as_variables(name, each) for name, each in found.items()])

    def _effects(
        self, model: Model, prompts: Prompts, metric: Metric, modes: list[str], then: list[Head]
    ) -> xr.Dataset:
        """One metric on the same prompts: its untouched value, and its change for each group of heads in each mode."""
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
    """One run for each group of heads, removed together; the values of an empty group are the untouched run's."""
    cells, index = cells_of(groups)
    found = run_cells(model, prompts, cells, Intervention(edit, "z", metric, hold), progress=False)
    return replace(found, values=found.values[index])


def _banded(early: tuple[int, int], late: tuple[int, int]) -> Metric:
    """The in-context-learning score as a metric: loss of the late band minus loss of the early one, in nats."""
    width = early[1] - early[0]

    def reads(prompts: Prompts) -> Tensor:
        wanted = torch.zeros(prompts.tokens.shape, dtype=torch.bool)
        wanted[:, slice(*early)] = wanted[:, slice(*late)] = True
        return wanted

    def score(found: Tensor, _: Prompts) -> Tensor:
        return found[:, :width, 0].mean(1) - found[:, width:, 0].mean(
            1
        )  # log-probabilities, so early minus late

    def zero(found: Tensor, _: Prompts) -> Tensor:
        return torch.zeros(len(found))

    without = Metric("no_icl_score", "nats", zero, reads, loss.targets)
    return Metric("banded_icl_score", "nats", score, reads, loss.targets, without=without, of="next")


def _along(direction: Tensor) -> Metric:
    """The losses of each prompt, projected on its row of a direction `[prompt, position]`, in nats."""

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

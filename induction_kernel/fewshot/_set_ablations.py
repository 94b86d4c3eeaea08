"""Sets of heads ablated together: on few-shot labels at the last token, and on late and early losses of a text.

The ablations of `which_heads`. In few-shot prompts z of the heads becomes a given mean, that over the last tokens of
other tasks' prompts, at the last token alone, so that only that position is run again; in the text z becomes its mean
over the windows, at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._given import is_whole
from ..errors import Refused
from ..heads._names import Head
from ..interventions._activations import New
from ..interventions._compared_sets import cells_of
from ..interventions._edits import Given
from ..interventions._edits_from_runs import Mean
from ..interventions._engine import run_cells
from ..interventions._intervention import Intervention
from ..interventions._plan import within_memory
from ..metrics._metric import Metric
from ..metrics._standard import mean_loss
from ..metrics._targets import next_tokens
from ..model._anatomy import Model, kept_as_it_was
from ..model._runs import progress_bar
from ..prompts._prompts import FewShotPrompts, Prompts
from ..replay._lane_record import Way, of_slowest
from ._changed_predictions import LABELS, batches_of_one_length

__all__ = ["Bands", "bands_of", "few_shot_without", "text_without"]

Sets = Sequence[Sequence[Head]]


@dataclass(frozen=True)
class Bands:
    """The positions of a text whose losses are compared, `width` around each; position i predicts token i + 1."""

    early: int
    late: int
    width: int

    def reads(self, prompts: Prompts) -> Tensor:
        """True in the two bands, bool `[prompt, position]`."""
        place = torch.arange(prompts.tokens.shape[1])
        inside = torch.zeros(len(place), dtype=torch.bool)
        for centre in (self.early, self.late):
            first = centre - self.width // 2
            inside |= (place >= first) & (place < first + self.width)
        return inside.expand(prompts.tokens.shape)


def bands_of(prompts: Prompts, early: Any, late: Any, width: Any) -> Bands:
    """The bands, checked against the windows; None stands for positions 50 and 500, as in `icl_score`.

    Raises:
        Refused: windows that are too short for them, bands that overlap, or no whole numbers.
    """
    first, last = 50 if early is None else early, 500 if late is None else late
    if not all(map(is_whole, (first, last, width))) or width < 1 or not first + width <= last:
        raise Refused(
            "wanted whole numbers width >= 1 and early + width <= late, so that the bands do not overlap, got "
            f"early={first}, late={last}, width={width}"
        )
    shortest = int(prompts.lengths.min())
    if first - width // 2 < 0 or last - width // 2 + width > shortest - 1:
        raise Refused(
            f"the shortest window of the text has {shortest} tokens: positions {first} and {last} with width {width} "
            "do not fit; pass longer windows, or early=, late= and width="
        )
    return Bands(int(first), int(last), int(width))


def few_shot_without(
    model: Model,
    prompts: FewShotPrompts,
    sets: Sets,
    means: dict[int, Tensor],
    *,
    max_tokens: int | None,
    progress: bool,
) -> tuple[np.ndarray, Way]:
    """Label log-probabilities `[run, prompt, label]` in nats: the untouched run, then one run without each set.

    Args:
        model: any TransformerLens model.
        prompts: few-shot prompts.
        sets: the heads that are ablated together in each run.
        means: layer -> mean z `[head, d_head]` that takes their place at the last token.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: a bar if it takes longer than two seconds.
    """
    cells, index = cells_of(sets)
    edit = Given({layer: New(0.0, mean[None, None]) for layer, mean in means.items()})
    intervention, ways = Intervention(edit, "z", LABELS), list[Way]()
    logs = np.full((1 + len(sets), len(prompts), len(prompts.demonstrations.labels)), np.nan)
    bar = progress_bar(len(prompts), progress=progress, unit="prompt", what="few-shot prompts")
    with within_memory(max_tokens), kept_as_it_was(model), bar:
        for rows, batch, most in batches_of_one_length(model, prompts, max_tokens):
            at_last = [replace(cell, position=batch.tokens.shape[1] - 1) for cell in cells]
            options: dict[str, Any] = {"max_tokens": most, "progress": False, "readings": True}
            found = run_cells(model, batch, at_last, intervention, **options)
            assert found.readings is not None  # because readings=True
            read = found.readings[:, :, 0].cpu().double().numpy()
            logs[:, rows.numpy()] = read[[0, *(1 + at for at in index)]]
            ways.append(found.way)
            bar.update(len(rows))
    return logs, of_slowest(ways)


def text_without(
    model: Model, text: Prompts, sets: Sets, bands: Bands, *, max_tokens: int | None, progress: bool
) -> tuple[np.ndarray, Way]:
    """Late less early loss `[run, window]` in nats: of the untouched run, then of one run without each set."""
    cells, index = cells_of(sets)
    late_and_early = Metric("late_and_early", "nats", mean_loss, bands.reads, next_tokens, of="next")
    intervention = Intervention(Mean(), "z", late_and_early)  # of these windows, not of a matched control
    ready = replace(late_and_early.ready(model, text), control=None)
    found = run_cells(
        model, ready, cells, intervention, max_tokens=max_tokens, progress=progress, readings=True
    )
    assert found.readings is not None  # because readings=True
    losses = -found.readings[..., 0].cpu().double().numpy()  # the early band is read first
    score = losses[..., bands.width :].mean(-1) - losses[..., : bands.width].mean(-1)
    return score[[0, *(1 + at for at in index)]], found.way

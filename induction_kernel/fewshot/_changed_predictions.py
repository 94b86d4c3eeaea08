"""Predictions of few-shot prompts in edited runs, beside those of the untouched run on the same prompts.

Per prompt: the log-probabilities of the labels at the last token, the likeliest label, whether it is the right one and
whether it is the untouched run's. By group of runs (the draws of one control together): means with 95%
intervals over prompts, and differences paired by prompt. What is changed in a run say `_label_knockout` and
`_reweighting`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed
from ..interventions._edits import Given
from ..interventions._engine import run_cells
from ..interventions._intervention import Intervention
from ..interventions._plan import Cell, tokens_at_once
from ..metrics._metric import Metric
from ..model._anatomy import Model
from ..prompts._conversion import few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on
from ..replay._lane_record import Way
from ..stats._ratios import ratio
from ..stats._shares import mean_share_difference_interval, mean_share_interval

__all__ = [
    "batches_of_one_length",
    "compared",
    "label_keys",
    "label_runs",
]

UNTOUCHED = "untouched"


def batches_of_one_length(
    model: Model, prompts: FewShotPrompts, max_tokens: int | None
) -> Iterator[tuple[Tensor, FewShotPrompts, int]]:
    """Prompts of one length each, without padding: their indices, themselves, and how many tokens fit a batch.

    So the last token of all is at one position, and nothing before it need run again.
    """
    for length in sorted({*prompts.lengths.tolist()}):
        most = tokens_at_once(model, length, max_tokens)
        for rows in (prompts.lengths == length).nonzero()[:, 0].split(max(1, most // length)):
            part = prompts[rows]
            yield rows, replace(part, control=None, answers=None).narrowed(), most


def label_keys(prompts: FewShotPrompts) -> Tensor:
    """bool `[prompt, demonstration, position]`: all tokens of each demonstration's label."""
    found = prompts.demonstrations
    place = torch.arange(prompts.tokens.shape[1])
    inside = (place >= found.label_positions[..., None]) & (place < found.spans[..., 1:])
    return inside & found.mask[..., None]


def label_runs(
    model: Model,
    prompts: FewShotPrompts,
    cells: Sequence[Cell],
    *,
    max_tokens: int | None,
    gradients: bool = False,
) -> tuple[Tensor, Way]:
    """`[prompt, run, label]`, log-probabilities in nats of the untouched run and of one a cell; and how it was done.

    Args:
        model: any TransformerLens model.
        prompts: of one length, that fit one batch.
        cells: patterns edited, each cell with its own new values.
        max_tokens: tokens in one batch.
        gradients: whether autograd sees the cells' runs.
    """
    found = run_cells(
        model, prompts, cells, Intervention(Given(), "pattern", LABELS), max_tokens=max_tokens, progress=False,
        readings=True, gradients=gradients,
    )  # fmt: skip
    assert found.readings is not None  # they were asked for
    return found.readings[:, :, 0].transpose(0, 1), found.way


def _label_ids(prompts: Prompts) -> Tensor:
    return few_shot_only(prompts).demonstrations.label_ids.expand(len(prompts), -1)


LABELS: Metric = Metric(
    "label_log_probability",
    "nats",
    lambda found, _: found[:, 0].amax(-1),
    reads=lambda prompts: torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1,
    targets=_label_ids,
)
"""Every label's first token at the last token; its value is the likeliest label's log-probability."""


def compared(
    model: Model,
    prompts: FewShotPrompts,
    logs: np.ndarray,
    *,
    runs: Sequence[str],
    groups: Sequence[str],
    to: str,
    foretold: np.ndarray | None = None,
    seed: int = 0,
    attrs: dict[str, str | int | float] | None = None,
) -> xr.Dataset:
    """The predictions of every run, and each group's means.

    Args:
        model: for the attributes.
        prompts: few-shot.
        logs: `[prompt, run, label]`, log-probabilities in nats; the first run is the untouched one.
        runs: their names.
        groups: the group of each run.
        to: the group that the others are compared with.
        foretold: `[prompt, run]`, the class that is predicted to be predicted; -1 for none.
        seed: of the bootstrap.
        attrs: what else the result says.
    """
    found = prompts.demonstrations
    prediction, target = logs.argmax(-1), found.target.numpy()[:, None]
    per_run = {
        "correct": np.where(target < 0, np.nan, prediction == target),
        "agreement": (prediction == prediction[:, :1]).astype(float),
    }
    if foretold is not None:
        per_run["as_foretold"] = np.where(foretold < 0, np.nan, prediction == foretold)
    of_group = [np.array([group == each for group in groups]) for each in dict.fromkeys(groups)]
    names = list(dict.fromkeys(groups))
    shares = _group_shares(per_run, of_group, names.index(to), seed)
    variables: dict[str, Any] = {
        "log_probability": (("prompt", "run", "label"), logs),
        "prediction": (("prompt", "run"), prediction),
    }
    variables |= {key: (("prompt", "run"), value) for key, value in per_run.items()}
    if foretold is not None:
        variables["foretold"] = (("prompt", "run"), foretold)
    coords = {
        "prompt": np.arange(len(prompts)), "run": list(runs), "of": ("run", list(groups)), "group": names,
        "label": list(found.labels), "target": ("prompt", found.target.numpy()),
    }  # fmt: skip
    kept = {
        "unit": "nats",
        "compared_with": to,
        **(attrs or {}),
        **measured_on(model, prompts),
    }
    return xr.Dataset(variables | {key: ("group", value) for key, value in shares.items()}, coords, kept)


def _group_shares(
    per_run: dict[str, np.ndarray], of_group: list[np.ndarray], to: int, seed: int
) -> dict[str, np.ndarray]:
    """By group: means over its runs, moves that were foretold, and what the group to compare with lost more."""
    titles = {"correct": "accuracy", "agreement": "agreed", "as_foretold": "foretold_share"}
    out: dict[str, np.ndarray] = {}

    def put(name: str, values: list[np.ndarray], *, differ: bool = False) -> None:
        found = np.array([_share(value, checked_seed(seed), differ=differ) for value in values])
        out.update({name + end: found[:, i] for i, end in enumerate(("", "_low", "_high"))})

    for key, values in per_run.items():
        put(titles[key], [values[:, runs] for runs in of_group])
    out["agreed_low"][0] = out["agreed_high"][0]  # the untouched run agrees with itself
    for key in ("correct", "agreement"):
        mean = [per_run[key][:, runs].mean(1, keepdims=True) for runs in of_group]
        name = f"{titles[key]}_difference"
        put(name, [each - mean[to] for each in mean], differ=True)
        out[f"{name}_low"][to] = out[f"{name}_high"][to] = 0.0  # a group does not differ from itself
    if "as_foretold" in per_run:
        moved = np.where(per_run["agreement"] == 0, per_run["as_foretold"], np.nan)
        put("foretold_moves", [moved[:, runs] for runs in of_group])
    return out


def _share(values: np.ndarray, seed: int, *, differ: bool) -> tuple[float, float, float]:
    """Mean of what is not NaN in `[prompt, run]`, with its 95% interval over prompts."""
    there = np.isfinite(values)
    above, below = np.where(there, values, 0).sum(1), there.sum(1)
    if not below.any():
        return np.nan, np.nan, np.nan
    mean, asked = float(above.sum() / below.sum()), below > 0
    if len(set(below[asked])) == 1 or mean in (0.0, 1.0):
        interval = mean_share_difference_interval if differ else mean_share_interval
        low, high = interval(above[asked] / below[asked], seed=seed)
    else:  # prompts that count for more
        _, low, high = ratio(above, below, seed=seed)
    return mean, float(low), float(high)

"""Predictions of few-shot prompts in edited runs, compared with those of the untouched run on the same prompts.

Per prompt: the log-probabilities of the labels at the last token, the most probable label, whether it is the right one
and whether it is that of the untouched run. Per group of runs (all draws of one control): means with 95% intervals over
prompts, and differences paired by prompt. `_label_knockout` and `_reweighting` say what is edited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

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
AnyPrompts = TypeVar("AnyPrompts", bound=Prompts)


def batches_of_one_length(
    model: Model, prompts: AnyPrompts, max_tokens: int | None
) -> Iterator[tuple[Tensor, AnyPrompts, int]]:
    """Batches of prompts of one length, without padding: their indices, the prompts, and how many tokens fit a batch.

    Their last tokens are at one position, so an edit of the last token leaves all earlier positions as they were.
    """
    for length in sorted({*prompts.lengths.tolist()}):
        most = tokens_at_once(model, length, max_tokens)
        for rows in (prompts.lengths == length).nonzero()[:, 0].split(max(1, most // length)):
            part = prompts[rows]
            yield rows, replace(part, control=None, answers=None).narrowed(), most


def label_keys(prompts: FewShotPrompts) -> Tensor:
    """The positions of each demonstration's label, all of its tokens: bool `[prompt, demonstration, position]`."""
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
    """Label log-probabilities of the untouched run and of one run per cell; and how the runs were made.

    Args:
        model: any TransformerLens model.
        prompts: prompts of one length that fit one batch.
        cells: edits of attention patterns, one run each.
        max_tokens: tokens in one batch.
        gradients: whether gradients flow through the edited runs.

    Returns:
        `[prompt, run, label]` in nats, the untouched run first; and the `Way` the runs were made.
    """
    found = run_cells(
        model, prompts, cells, Intervention(Given(), "pattern", LABELS), max_tokens=max_tokens, progress=False,
        readings=True, gradients=gradients,
    )  # fmt: skip
    assert found.readings is not None  # because readings=True
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
"""Metric that reads the log-probability of every label's first token; its value is the largest of them, in nats."""


def compared(
    model: Model,
    prompts: FewShotPrompts,
    logs: np.ndarray,
    *,
    runs: Sequence[str],
    groups: Sequence[str],
    to: str,
    expected: np.ndarray | None = None,
    seed: int = 0,
    attrs: dict[str, str | int | float] | None = None,
) -> xr.Dataset:
    """The predictions of every run, and the means of every group of runs.

    Args:
        model: the model, for the attributes.
        prompts: few-shot prompts.
        logs: log-probabilities `[prompt, run, label]` in nats; the first run is the untouched one.
        runs: the names of the runs.
        groups: the group of each run.
        to: the group that the others are compared with.
        expected: the class that each run is expected to predict, `[prompt, run]`, -1 for none; None to leave it out.
        seed: of the bootstrap.
        attrs: further attributes.

    Returns:
        Dataset as documented by `label_knock_out`.
    """
    found, prediction = prompts.demonstrations, logs.argmax(-1)
    target = found.target.numpy()
    per_run = _per_run(prediction, target, expected)
    of_group = [np.array([group == each for group in groups]) for each in dict.fromkeys(groups)]
    names = list(dict.fromkeys(groups))
    shares = _group_shares(per_run, of_group, names.index(to), seed)
    variables: dict[str, Any] = {
        "log_probability": (("prompt", "run", "label"), logs),
        "prediction": (("prompt", "run"), prediction),
    }
    variables |= {key: (("prompt", "run"), value) for key, value in per_run.items()}
    if expected is not None:
        variables["expected"] = (("prompt", "run"), expected)
    coords = {
        "prompt": np.arange(len(prompts)), "run": list(runs), "of": ("run", list(groups)), "group": names,
        "label": list(found.labels), "target": ("prompt", target),
    }  # fmt: skip
    kept = {"unit": "nats", "compared_with": to, **(attrs or {}), **measured_on(model, prompts)}
    return xr.Dataset(variables | {key: ("group", value) for key, value in shares.items()}, coords, kept)


def _per_run(
    prediction: np.ndarray, target: np.ndarray, expected: np.ndarray | None
) -> dict[str, np.ndarray]:
    """By `[prompt, run]`, 1 or 0: right, as untouched, as expected; NaN where there is nothing to compare."""
    right = target[:, None]
    found = {
        "correct": np.where(right < 0, np.nan, prediction == right),
        "agreement": (prediction == prediction[:, :1]).astype(float),
    }
    if expected is not None:
        found["as_expected"] = np.where(expected < 0, np.nan, prediction == expected)
    return found


def _group_shares(
    per_run: dict[str, np.ndarray], of_group: list[np.ndarray], to: int, seed: int
) -> dict[str, np.ndarray]:
    """By group: means over its runs, differences to the group `to`, and how many changed predictions were expected."""
    titles = {"correct": "accuracy", "agreement": "agreed", "as_expected": "expected_share"}
    out: dict[str, np.ndarray] = {}

    def put(name: str, values: list[np.ndarray], *, differ: bool = False) -> None:
        found = np.array([_share(value, checked_seed(seed), differ=differ) for value in values])
        out.update({name + end: found[:, i] for i, end in enumerate(("", "_low", "_high"))})

    for key, values in per_run.items():
        put(titles[key], [values[:, runs] for runs in of_group])
    out["agreed_low"][0] = out["agreed_high"][0]  # the untouched run agrees with itself, without error
    for key in ("correct", "agreement"):
        mean = [per_run[key][:, runs].mean(1, keepdims=True) for runs in of_group]
        name = f"{titles[key]}_difference"
        put(name, [each - mean[to] for each in mean], differ=True)
        out[f"{name}_low"][to] = out[f"{name}_high"][to] = (
            0.0  # a group's difference to itself, without error
        )
    if "as_expected" in per_run:
        changed = np.where(per_run["agreement"] == 0, per_run["as_expected"], np.nan)
        put("expected_moves", [changed[:, runs] for runs in of_group])
    return out


def _share(values: np.ndarray, seed: int, *, differ: bool) -> tuple[float, float, float]:
    """Mean of `[prompt, run]` without NaN, with its 95% interval over prompts."""
    there = np.isfinite(values)
    total, count = np.where(there, values, 0).sum(1), there.sum(1)
    if not count.any():
        return np.nan, np.nan, np.nan
    mean, used = float(total.sum() / count.sum()), count > 0
    if len(set(count[used])) == 1 or mean in (0.0, 1.0):
        interval = mean_share_difference_interval if differ else mean_share_interval
        low, high = interval(total[used] / count[used], seed=seed)
    else:  # prompts with more values weigh more
        _, low, high = ratio(total, count, seed=seed)
    return mean, float(low), float(high)

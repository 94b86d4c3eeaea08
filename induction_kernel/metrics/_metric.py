"""`Metric`: what is measured on the logits of every prompt, and what it reads of them; functions used as metrics.

A metric names the positions and tokens that it reads, so that only these are computed. `_standard` has the metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Signature, cleandoc, signature
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import refused_arguments
from ..errors import Refused
from ..model._anatomy import Model, full_precision, sizes
from ..model._outputs import check_next_token, check_words, n_outputs
from ..model._runs import batches, run
from ..prompts._conversion import as_prompts
from ..prompts._prompts import Prompts, measured_on
from ._targets import label_words

__all__ = [
    "Metric",
    "MetricLike",
    "Reading",
    "as_metric",
    "measured",
    "one_a_prompt",
    "part_of",
    "read_at",
    "read_off",
    "reading_of",
]


@dataclass(frozen=True, repr=False)
class Metric:
    """A measure of the logits of every prompt: call it as `metric(model, prompts)`, or pass it as `metric=`.

    One of your own, read at each prompt's last token (`metric=` also takes a function `(logits, prompts) -> [prompt]`):

        def last(prompts):
            return torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1

        def first_token(prompts):
            return prompts.tokens[:, :1]

        recalled = Metric("recalled", "nats", lambda found, _: found[:, 0, 0], last, first_token)
        result = ik.ablate(model, prompts, "L1H0", metric=recalled)

    Attributes:
        name: the result's `method`.
        unit: "nats", "logits" or "share", for example.
        measure: `(found[prompt, read, target], prompts) -> [prompt]`. `read` counts the positions read, in order
            (NaN beyond a prompt's own number of them); without `targets`, `target` is the vocabulary.
        reads: `prompts -> bool [prompt, position]`, the positions read; None for all, also padding.
        targets: `prompts -> ids [prompt, target]`, the same at every position, or `[prompt, position, target]`; None
            for logits over the whole vocabulary.
        normalised: whether `found` holds log-probabilities (in nats) of the targets, or their logits.
        without: the metric whose value is that of a model without the ability (the loss of the first copy, say): an
            ablation's effect is then also given as a share of the difference. None if there is none.
        prompts: `model -> Prompts`, the default prompts; None if there are none.
        part: `slice -> Metric`, the metric for some of the prompts, if it holds data of each prompt; else None.
        better: "low" or "high" if such values are better: heads rank by how much worse it gets; None: by size.
        of: which tokens of the prompts the targets are: "next" or "labels"; None for others, such as answers.
        title: one line that says what is measured, for `help`.
    """

    name: str
    unit: str
    measure: Callable[[Tensor, Prompts], Tensor]
    reads: Callable[[Prompts], Tensor] | None = None
    targets: Callable[[Prompts], Tensor] | None = None
    normalised: bool = True
    without: Metric | None = None
    prompts: Callable[[Model], Prompts] | None = None
    part: Callable[[slice], Metric] | None = None
    better: Literal["low", "high"] | None = None
    of: Literal["next", "labels"] | None = None
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self._help())

    def _help(self) -> str:
        """What `help(loss)` shows: how to call it, what is measured, the arguments, and the class's attributes."""
        _, *parameters = signature(type(self).__call__).parameters.values()
        called = Signature([each.replace(annotation=Signature.empty) for each in parameters])
        name = self.name if self.part is None else "metric"  # kl_to(model) does not call what kl_to returns
        own, call = (cleandoc(each.__doc__ or "") for each in (type(self), type(self).__call__))
        return "\n\n".join([f"{name}{called}", *([f"{self.title}."] if self.title else []), call, own])

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes that describe the metric in the result of an intervention."""
        return {"metric": self.name, "unit": self.unit, "better": self.better or "neither"}

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, in {self.unit})" if self.unit else f"Metric({self.name!r})"

    def __call__(self, model: Model, prompts: Any = None, *, batch_size: int | None = None) -> xr.Dataset:
        """Run the model and measure every prompt.

        Args:
            model: any TransformerLens model.
            prompts: anything `as_prompts` takes; None for the metric's own.
            batch_size: prompts per forward pass; None to fit the memory.

        Returns:
            Dataset with `value[prompt]` in the metric's unit, and `without[prompt]` if the metric has one.

        Raises:
            Refused: prompts that lack what is measured (a second copy, labels, answers), or none given and no default.
            NotDefined: a model that does not have the outputs read, or that attends to the next tokens it predicts.
        """
        ready = self.ready(model, prompts)
        values = measured(model, ready, self, batch_size=batch_size)
        attrs = {"method": self.name, "unit": self.unit, **measured_on(model, ready)}
        coords = {"prompt": np.arange(len(ready))}
        return xr.Dataset({key: ("prompt", value) for key, value in values.items()}, coords, attrs)

    def ready(self, model: Model, prompts: Any) -> Prompts:
        """The prompts to measure on, the user's or the default ones, checked against the model.

        Raises:
            Refused: no prompts.
            NotDefined: targets that are not outputs of this model, or next tokens in a model that attends to them.
        """
        if prompts is not None:
            ready = as_prompts(model, prompts)
        elif self.prompts is not None:
            ready = self.prompts(model)
        else:
            raise Refused(f"{self.name} has no prompts of its own: pass prompts=")
        if self.of == "next":
            check_next_token(model, self.name)
        if self.of == "labels" and (ready.answers is None or self.targets is label_words):
            check_words(model, self.name)
        return ready


MetricLike = Metric | Callable[[Tensor, Prompts], Tensor]


def as_metric(metric: MetricLike) -> Metric:
    """The metric itself; or a function `(logits[prompt, position, vocab], prompts) -> [prompt]`, made into one.

    Raises:
        TypeError: neither a metric nor a function of two arguments.
    """
    if isinstance(metric, Metric):
        return metric
    module = str(getattr(metric, "__module__", ""))
    own = module.startswith(f"{__package__}.")  # e.g. icl_score, which is no function of logits
    if not callable(metric) or isinstance(metric, type) or own:
        got = f"{metric.__name__} itself" if callable(metric) else repr(metric)
        raise TypeError(
            "wanted a metric (loss, repeat_loss, label_accuracy, logit_difference, probability or kl_to(logits), as in "
            "metric=ik.loss), or a function of logits [prompt, position, vocab] and prompts that returns [prompt], got "
            f"{got}"
        )
    if taken := refused_arguments(metric, 2):
        raise TypeError(
            f"wanted a metric of two arguments, logits [prompt, position, vocab] and the prompts, got one of {taken}: "
            "write it as lambda logits, prompts: ..."
        )
    return Metric(getattr(metric, "__name__", "metric"), "", metric)


def part_of(metric: Metric, rows: slice) -> Metric:
    """The metric for these rows of the prompts."""
    return metric if metric.part is None else metric.part(rows)


def measured(
    model: Model, prompts: Prompts, metric: Metric, *, batch_size: int | None = None
) -> dict[str, np.ndarray]:
    """The metric on every prompt, in float64: `value [prompt]`, and `without [prompt]` if the metric has one."""
    measures = {"value": metric} | ({} if metric.without is None else {"without": metric.without})
    parts: dict[str, list[Tensor]] = {}
    (n, length), outputs = prompts.tokens.shape, n_outputs(model)
    for rows in batches(n, length, batch_size=batch_size, cost=sizes(model).d_vocab):
        batch = prompts[rows]
        readings = {key: reading_of(part_of(each, rows), batch, outputs) for key, each in measures.items()}
        logits = run(model, batch.tokens, lengths=batch.lengths).cpu()
        for key, wanted in readings.items():
            parts.setdefault(key, []).append(one_a_prompt(wanted, read_off(logits, wanted)))
    return {key: torch.cat(part).double().numpy() for key, part in parts.items()}


@dataclass(frozen=True, eq=False)
class Reading:
    """What a metric reads in one batch of prompts.

    Attributes:
        metric: the metric, for these prompts.
        prompts: the batch.
        positions: `[prompt, read]`, the positions read, in order; filled up with the prompt's first one.
        there: bool `[prompt, read]`, False where `positions` is filled up.
        ids: `[prompt, read, target]`, the tokens read; None for logits over the whole vocabulary.
    """

    metric: Metric
    prompts: Prompts
    positions: Tensor
    there: Tensor
    ids: Tensor | None


def reading_of(metric: Metric, prompts: Prompts, outputs: int | None = None) -> Reading:
    """What the metric reads in these prompts; `outputs` is the model's number of outputs, to check targets against.

    Raises:
        Refused: prompts that lack what is measured, or targets beyond the model's number of outputs.
    """
    shape = prompts.tokens.shape
    reads = torch.ones(shape, dtype=torch.bool) if metric.reads is None else metric.reads(prompts)
    if reads.shape != shape:
        raise Refused(f"wanted what {metric.name} reads as bool {list(shape)}, got {list(reads.shape)}")
    if not bool(reads.any(1).all()):
        row = int(reads.any(1).int().argmin())
        raise Refused(f"{metric.name} reads no position of prompt {row}: pass longer prompts, or others")
    most = int(reads.sum(1).max())
    order = torch.argsort((~reads).int(), dim=1, stable=True)[:, :most]
    there = reads.gather(1, order)
    positions = torch.where(there, order, order[:, :1])
    if metric.targets is None:
        return Reading(metric, prompts, positions, there, None)
    ids = metric.targets(prompts)
    if outputs is not None and not 0 <= int(ids.min()) <= int(ids.max()) < outputs:
        raise Refused(
            f"wanted targets from 0 to {outputs - 1}, the outputs of this model, {metric.name} got {int(ids.min())} to "
            f"{int(ids.max())}: give answers that this model has"
        )
    if ids.ndim == 2:
        ids = ids[:, None].expand(-1, most, -1)
    else:
        ids = ids.gather(1, positions[..., None].expand(-1, -1, ids.shape[2]))
    return Reading(metric, prompts, positions, there, ids)


def read_off(logits: Tensor, wanted: Reading) -> Tensor:
    """What is read, `[prompt, read, target]`, from logits `[prompt, position, vocab]`."""
    if wanted.metric.reads is None and wanted.ids is None:
        return logits
    return read_at(logits[torch.arange(len(logits))[:, None], wanted.positions], wanted)


def read_at(found: Tensor, wanted: Reading, *, chosen: bool = False) -> Tensor:
    """What is read, `[prompt, read, target]`, from logits `[prompt, read, vocab]`, or of the targets if `chosen`."""
    if wanted.ids is not None:
        found = full_precision(found)
        of_ids = found if chosen else found.gather(-1, wanted.ids)
        found = of_ids - found.logsumexp(-1, keepdim=True) if wanted.metric.normalised else of_ids
    return found.masked_fill(~wanted.there[..., None], torch.nan)


def one_a_prompt(wanted: Reading, found: Tensor) -> Tensor:
    """The metric `[prompt]` of what was read, checked.

    Raises:
        Refused: another shape than `[prompt]`, or numbers that are not finite.
    """
    values, n = wanted.metric.measure(found, wanted.prompts), len(wanted.prompts)
    if not isinstance(values, Tensor) or values.shape != (n,):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise Refused(f"wanted a metric that returns one number a prompt [{n}], got {got}")
    values = values.detach()
    if not bool(values.isfinite().all()):
        row = int(values.isfinite().int().argmin())
        raise Refused(
            f"the metric of prompt {row} is not finite: look for NaN or infinity in the weights or the edit, for a "
            "division by zero in the metric, or for a knock-out that leaves a query too little attention for the dtype"
        )
    return values

"""How well does the model predict? What is measured on logits, and functions that run the model for it.

A metric says which positions it reads, and of which tokens: nothing else need be computed. Losses are in nats,
computed in float32 or better. Convention everywhere: `loss[:, i]` is the loss of predicting token i + 1 from
tokens 0..i. It edits nothing: see `interventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ._given import refused_arguments
from .errors import Refused
from .heads._names import is_whole
from .model._anatomy import Hook, Model, full_precision, sizes
from .model._outputs import check_next_token, check_words, n_outputs
from .model._runs import batches, run
from .prompts._conversion import as_prompts
from .prompts._few_shot import word_episodes
from .prompts._prompts import Prompts, measured_on
from .prompts._repeated import repeated_tokens

__all__ = [
    "Metric",
    "MetricLike",
    "as_metric",
    "icl_score",
    "kl_to",
    "label_accuracy",
    "logit_difference",
    "loss",
    "loss_by_position",
    "loss_dataset",
    "losses_in",
    "measured",
    "one_a_prompt",
    "probability",
    "read_off",
    "reading",
    "repeat_loss",
    "token_losses",
]


METRICS = ("loss", "repeat_loss", "label_accuracy", "logit_difference", "probability")


@dataclass(frozen=True, repr=False)
class Metric:
    """Something measured on the logits of every prompt; call it as `metric(model, prompts)`.

    Attributes:
        name: as the result's `method`.
        unit: "nats", "logits", "share".
        measure: `(found[prompt, read, target], prompts) -> [prompt]`. `read` counts the positions read, in order
            (NaN beyond a prompt's own number of them); `target` is the vocabulary where there are no `targets`.
        reads: `prompts -> bool [prompt, position]`; None to read all of them, padding too.
        targets: `prompts -> ids [prompt, target]`, the same at every position, or `[prompt, position, target]`; None
            for whole logits.
        normalised: whether `found` is log-probabilities (in nats) or logits; only where there are targets.
        without: what the value is where the ability measured is absent (e.g. the loss of the first copy): an
            ablation's effect can then be given as the share of the difference. None where there is no such
            value.
        prompts: what to run on by default, from the model.
        part: `slice -> Metric`, the metric of some of the prompts, where it holds something of each; else None.
        of: which tokens of the prompts the targets are, "next" ones or "labels"; None for others, such as answers.
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
    of: Literal["next", "labels"] | None = None

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, in {self.unit})" if self.unit else f"Metric({self.name!r})"

    def __call__(self, model: Model, prompts: Any = None, *, batch_size: int | None = None) -> xr.Dataset:
        """Run the model and measure.

        Args:
            model: any TransformerLens model.
            prompts: anything `as_prompts` takes; None for the metric's own.
            batch_size: prompts a forward pass; None to fit the memory.

        Returns:
            Dataset with `value[prompt]`, and `without[prompt]` where the metric has one.

        Raises:
            Refused: prompts that lack what is measured (a second copy, labels, answers); a model that has no
                such outputs, or that attends to the next tokens it would predict.
        """
        ready = self.ready(model, prompts)
        values = measured(model, ready, self, batch_size=batch_size)
        attrs = {"method": self.name, "unit": self.unit, **measured_on(model, ready)}
        coords = {"prompt": np.arange(len(ready))}
        return xr.Dataset({key: ("prompt", value) for key, value in values.items()}, coords, attrs)

    def ready(self, model: Model, prompts: Any) -> Prompts:
        """The prompts to measure on, the user's or the metric's own, checked against the model.

        Raises:
            Refused: no prompts. NotDefined: tokens of theirs as targets, which are no outputs of this model or
                attended to.
        """
        if prompts is not None:
            ready = as_prompts(model, prompts)
        elif self.prompts is not None:
            ready = self.prompts(model)
        else:
            raise Refused(f"{self.name} has no prompts of its own: pass prompts=")
        if self.of == "next":
            check_next_token(model, self.name)
        if self.of == "labels" and (ready.answers is None or self.targets is _labels):
            check_words(model, self.name)
        return ready


MetricLike = Metric | Callable[[Tensor, Prompts], Tensor]


def as_metric(metric: MetricLike) -> Metric:
    """A metric as it is; a function `(logits[prompt, position, vocab], prompts) -> [prompt]` as one that reads all.

    Raises:
        TypeError: neither.
    """
    if isinstance(metric, Metric):
        return metric
    verbs = (kl_to, icl_score, loss_by_position)  # functions, but not of logits
    if not callable(metric) or isinstance(metric, type) or any(metric is verb for verb in verbs):
        got = f"{metric.__name__} itself" if callable(metric) else repr(metric)
        raise TypeError(
            f"wanted a metric ({', '.join(METRICS)} or kl_to(logits), as in metric=ik.loss), or a function of logits "
            f"[prompt, position, vocab] and prompts that returns [prompt], got {got}"
        )
    if taken := refused_arguments(metric, 2):
        raise TypeError(
            f"wanted a metric of two arguments, logits [prompt, position, vocab] and the prompts, got one of {taken}: "
            "write it as lambda logits, prompts: ..."
        )
    return Metric(getattr(metric, "__name__", "metric"), "", metric)


def measured(
    model: Model,
    prompts: Prompts,
    metric: MetricLike,
    *,
    hooks: Sequence[Hook] = (),
    batch_size: int | None = None,
) -> dict[str, np.ndarray]:
    """`value` (and `without`) per prompt, with these hooks on the model."""
    metric = as_metric(metric)
    measures = {"value": metric} | ({} if metric.without is None else {"without": metric.without})
    parts: dict[str, list[Tensor]] = {}
    for rows in batches(
        len(prompts), prompts.tokens.shape[1], batch_size=batch_size, cost=sizes(model).d_vocab
    ):
        batch = prompts[rows]
        readings = {
            key: reading(part_of(each, rows), batch, n_outputs(model)) for key, each in measures.items()
        }
        logits = run(model, batch.tokens, hooks, lengths=batch.lengths).cpu()
        for key, wanted in readings.items():
            parts.setdefault(key, []).append(one_a_prompt(wanted, read_off(logits, wanted)))
    return {key: torch.cat(part).double().numpy() for key, part in parts.items()}


def part_of(metric: Metric, rows: slice) -> Metric:
    """The metric of these prompts."""
    return metric if metric.part is None else metric.part(rows)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a metric reads of one batch of prompts.

    Attributes:
        metric: the metric, of these prompts.
        prompts: the batch.
        positions: `[prompt, read]`, the positions read; a prompt's first again beyond its own number of them.
        there: `[prompt, read]` bool, False beyond a prompt's own number.
        ids: `[prompt, read, target]`; None for whole logits.
    """

    metric: Metric
    prompts: Prompts
    positions: Tensor
    there: Tensor
    ids: Tensor | None


def reading(metric: Metric, prompts: Prompts, outputs: int | None = None) -> Reading:
    """What the metric reads of these prompts.

    Raises:
        Refused: prompts that lack what is measured, or targets beyond the model's number of outputs.
    """
    shape = prompts.tokens.shape
    reads = torch.ones(shape, dtype=torch.bool) if metric.reads is None else metric.reads(prompts)
    if reads.shape != shape or not bool(reads.any(1).all()):
        row = 0 if reads.shape != shape else int(reads.any(1).int().argmin())
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
            f"{int(ids.max())}: give answers that it has"
        )
    if ids.ndim == 2:
        ids = ids[:, None].expand(-1, most, -1)
    else:
        ids = ids.gather(1, positions[..., None].expand(-1, -1, ids.shape[2]))
    return Reading(metric, prompts, positions, there, ids)


def read_off(logits: Tensor, wanted: Reading) -> Tensor:
    """`found[prompt, read, target]` of whole logits `[prompt, position, vocab]`."""
    if wanted.metric.reads is None and wanted.ids is None:
        return logits
    n = torch.arange(len(logits))[:, None]
    found = logits[n, wanted.positions]
    if wanted.ids is not None:
        found = full_precision(found)
        chosen = found.gather(-1, wanted.ids)
        found = chosen - found.logsumexp(-1, keepdim=True) if wanted.metric.normalised else chosen
    return found.masked_fill(~wanted.there[..., None], torch.nan)


def one_a_prompt(wanted: Reading, found: Tensor) -> Tensor:
    """The metric of what was found, checked: `[prompt]`, finite.

    Raises:
        Refused: another shape, or numbers that are not finite.
    """
    values, n = wanted.metric.measure(found, wanted.prompts), len(wanted.prompts)
    if not isinstance(values, Tensor) or values.shape != (n,):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise Refused(f"wanted a metric that returns one number a prompt [{n}], got {got}")
    values = values.detach()
    if not bool(values.isfinite().all()):
        row = int(values.isfinite().int().argmin())
        raise Refused(
            f"the metric of prompt {row} is not finite: look for NaN or infinite weights in the model "
            "(or in the edit), for a division by zero in the metric, or for a knock-out that leaves a query no weight "
            "that its precision can hold"
        )
    return values


def _following(prompts: Prompts) -> Tensor:
    """The next token at every position `[prompt, position, 1]`; the last has none and is never read."""
    return prompts.tokens.roll(-1, 1)[..., None]


def _has_next(prompts: Prompts) -> Tensor:
    return torch.arange(prompts.tokens.shape[1]) < prompts.lengths[:, None] - 1


def _last(prompts: Prompts) -> Tensor:
    """Each prompt's last token, bool `[prompt, position]`."""
    return torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1


def _mean_loss(found: Tensor, _: Prompts) -> Tensor:
    return -found[..., 0].nanmean(1)


def _second_copy(prompts: Prompts) -> Tensor:
    _check_repeats(prompts)
    return prompts.scored & _has_next(prompts)


def _first_copy(prompts: Prompts) -> Tensor:
    _check_repeats(prompts)
    return torch.arange(prompts.tokens.shape[1]) < prompts.starts()[:, None] - 1


def _check_repeats(prompts: Prompts) -> None:
    real = (prompts.scored.sum(1) >= 2) & (prompts.starts() >= 2)
    if not bool(real.all()):
        row = int((~real).int().argmax())
        raise Refused(
            f"prompt {row} has no scored second copy of two tokens or more: wanted prompts of repeated_tokens(model), "
            "with a period of at least 2, or another metric, such as loss"
        )


def _labels(prompts: Prompts) -> Tensor:
    found = prompts.demonstrations
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "label_accuracy needs few-shot prompts whose queries carry labels: few_shot_prompts(model, .., [(x, y)])"
        )
    return found.label_ids.expand(len(prompts), -1)


def _is_right_label(found: Tensor, prompts: Prompts) -> Tensor:
    assert prompts.demonstrations is not None  # `_labels` looked
    return (found[:, 0].argmax(-1) == prompts.demonstrations.target).float()


def _answers(prompts: Prompts) -> Tensor:
    if prompts.answers is None:
        raise Refused(
            "logit_difference needs prompts with answers: pairs(model, clean=..., corrupted=..., answers=...), "
            "or with_answers(model, prompts, [(right, wrong), ...])"
        )
    return prompts.answers


def _right_answer(prompts: Prompts) -> Tensor:
    if prompts.answers is not None:
        return prompts.answers[:, :1]
    found = prompts.demonstrations
    if found is None or bool((found.target < 0).any()):
        raise Refused(
            "probability needs prompts with answers (with_answers(model, prompts, [(right, wrong), ...])), or "
            "few-shot prompts whose queries carry labels"
        )
    return found.label_ids[found.target][:, None]


def _difference(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0] - found[:, 0, 1]


def _as_probability(found: Tensor, _: Prompts) -> Tensor:
    return found[:, 0, 0].exp()


def _repeats(model: Model) -> Prompts:
    return repeated_tokens(model)


repeat_loss: Metric = Metric(
    "repeat_loss", "nats", _mean_loss, _second_copy, _following, prompts=_repeats,
    without=Metric("first_copy_loss", "nats", _mean_loss, _first_copy, _following), of="next",
)  # fmt: skip
"""Mean loss of predicting the second and later copies, but for the first token of copy two.

Nothing predicts that one.
`without` is the mean loss within the first copy. In nats, 0 or more.
"""

loss: Metric = Metric("loss", "nats", _mean_loss, _has_next, _following, of="next")
"""Mean loss of predicting every token but a prompt's first. In nats, 0 or more."""

label_accuracy: Metric = Metric(
    "label_accuracy",
    "share",
    _is_right_label,
    _last,
    _labels,
    normalised=False,
    prompts=word_episodes,
    of="labels",
)
"""Whether the query's label has the largest logit among the labels' first tokens: 0 or 1. Chance: 1 / labels."""

logit_difference: Metric = Metric(
    "logit_difference", "logits", _difference, _last, _answers, normalised=False
)
"""Logit of the right answer minus that of the wrong one at the last token (Zhang & Nanda 2023); see `pairs`."""

probability: Metric = Metric("probability", "probability", _as_probability, _last, _right_answer, of="labels")
"""Probability of the right answer (of the query's label, in few-shot prompts) at the last token: 0 to 1."""


def kl_to(clean: Tensor) -> Metric:
    """How far the next-token distribution at the last token is from that of a clean run: KL(clean || run).

    Args:
        clean: logits `[prompt, vocab]` at the last token, or `[prompt, position, vocab]` of a whole run, one
            prompt for each of the prompts measured.

    Returns:
        A metric in nats: 0 where both agree.

    Raises:
        TypeError: not a tensor. Refused: another shape, or numbers that are not finite.

    Source: Zhang & Nanda 2023, section 2 (metrics).
    """
    if not isinstance(clean, Tensor) or not clean.is_floating_point():
        raise TypeError(f"wanted the logits of a clean run, e.g. model(tokens), got {type(clean).__name__}")
    if clean.ndim not in (2, 3) or not bool(clean.isfinite().all()):
        raise Refused(
            f"wanted finite logits [prompt, vocab] or [prompt, position, vocab], got {list(clean.shape)}"
        )
    clean = clean.detach().cpu()
    measure = partial(_divergence, full_precision(clean).log_softmax(-1))
    return Metric("kl_to", "nats", measure, _last, part=partial(_kl_to_some, clean))


def _divergence(kept: Tensor, found: Tensor, prompts: Prompts) -> Tensor:
    """KL of what is found at the last token from log-probabilities `[prompt, vocab]` or `[prompt, position, vocab]`."""
    if len(kept) != len(prompts):
        raise Refused(f"wanted one row of clean logits a prompt, got {len(kept)} for {len(prompts)} prompts")
    if kept.shape[-1] != found.shape[-1] or (kept.ndim == 3 and kept.shape[1] < int(prompts.lengths.max())):
        raise Refused(
            f"clean logits {list(kept.shape)} are not of these prompts: wanted {found.shape[-1]} words, and every "
            "prompt's last token"
        )
    given = kept if kept.ndim == 2 else kept[torch.arange(len(kept)), prompts.lengths - 1]
    logs = full_precision(found[:, 0]).log_softmax(-1)
    return (given.exp() * (given - logs)).sum(-1)


def _kl_to_some(clean: Tensor, rows: slice) -> Metric:
    return kl_to(clean[rows])


def loss_by_position(model: Model, prompts: Any = None, *, batch_size: int | None = None) -> xr.Dataset:
    """The loss of every next token.

    Args:
        model: any TransformerLens model.
        prompts: anything `as_prompts` takes; None for repeated tokens.
        batch_size: prompts a forward pass; None to fit the memory.

    Returns:
        Dataset with `loss[prompt, position]` in nats, where position i predicts token i + 1 (NaN at the last
        token and in padding); coordinates `token[prompt, position]` (text), `start[prompt]` (where the second
        copy begins, -1 if nothing repeats).

    Raises:
        NotDefined: a model whose outputs are not its tokens, or that attends to next tokens.

    Source: Olsson et al. 2022, argument 1.
    """
    check_next_token(model, "loss_by_position")
    ready = repeat_loss.ready(model, prompts)
    return loss_dataset(model, ready, token_losses(model, ready, batch_size=batch_size))


def loss_dataset(model: Model, ready: Prompts, losses: Tensor) -> xr.Dataset:
    """What `loss_by_position` returns, of `token_losses`."""
    strings = [row + [""] * (ready.tokens.shape[1] - len(row)) for row in ready.strings(model)]
    start = ready.starts() if ready.control is not None else torch.full((len(ready),), -1)
    return xr.Dataset(
        {"loss": (("prompt", "position"), losses.numpy())},
        coords={
            "position": np.arange(ready.tokens.shape[1]),
            "token": (("prompt", "position"), np.array(strings)),
            "start": ("prompt", start.numpy()),
        },
        attrs={"method": "loss_by_position", "unit": "nats", **measured_on(model, ready)},
    )


def token_losses(model: Model, prompts: Prompts, *, batch_size: int | None = None) -> Tensor:
    """The loss of every next token `[prompt, position]` in nats; NaN at a prompt's last token and in padding."""
    check_next_token(model, "loss")
    losses = []
    for rows in batches(
        len(prompts), prompts.tokens.shape[1], batch_size=batch_size, cost=sizes(model).d_vocab
    ):
        batch = prompts[rows]
        losses.append(losses_in(model, run(model, batch.tokens, lengths=batch.lengths), batch))
    return torch.cat(losses)


def losses_in(model: Model, logits: Tensor, prompts: Prompts) -> Tensor:
    """The loss of every next token `[prompt, position]`, as in `token_losses`, in these logits of the prompts."""
    wanted = reading(Metric("loss", "nats", _mean_loss, targets=_following), prompts, n_outputs(model))
    logs = read_off(logits.cpu(), wanted)[..., 0]
    return (-logs).masked_fill(~_has_next(prompts), torch.nan)


def icl_score(
    model: Model,
    prompts: Any,
    *,
    early: int | None = None,
    late: int | None = None,
    width: int = 1,
    batch_size: int | None = None,
) -> xr.Dataset:
    """In-context-learning score: loss late in the context minus loss early in it; negative is better.

    Args:
        model: any TransformerLens model.
        prompts: text or tokens, long enough.
        early: index i of `loss[:, i]`, which predicts token i + 1; 50 by default.
        late: likewise; 500 by default, which needs 502 tokens.
        width: positions averaged around each (two single positions are mostly noise: at least 20 is advised).
        batch_size: prompts a forward pass; None to fit the memory.

    Returns:
        Dataset with `value[prompt]` in nats, and `single[prompt]`, the same at width 1.

    Raises:
        Refused: prompts too short (give early and late), early not before late. NotDefined: a model whose outputs
            are not its tokens, or that attends to next tokens.

    Source: Olsson et al. 2022 ("in-context learning score"); sign as there.
    """
    check_next_token(model, "icl_score")
    ready = as_prompts(model, prompts)
    shortest = int(ready.lengths.min())
    first, last = 50 if early is None else early, 500 if late is None else late
    if not all(map(is_whole, (first, last, width))) or not 0 <= first < last or width < 1:
        raise Refused(
            f"wanted whole numbers 0 <= early < late and width >= 1, got early={early}, late={late}, width={width}"
        )
    if first - width // 2 < 0 or last - width // 2 + width > shortest - 1:
        raise Refused(
            f"the shortest prompt has {shortest} tokens, positions {first} and {last} with width {width} do not fit: "
            "pass longer prompts, or early= and late="
        )
    loss = loss_by_position(model, ready, batch_size=batch_size)["loss"].values

    def band(centre: int, width: int) -> np.ndarray:
        return loss[:, centre - width // 2 : centre - width // 2 + width].mean(1)

    values = {"value": band(last, width) - band(first, width), "single": band(last, 1) - band(first, 1)}
    return xr.Dataset(
        {key: ("prompt", value) for key, value in values.items()},
        attrs={
            "method": "icl_score", "unit": "nats", "early": first, "late": last, "width": width,
            "convention": "loss[:, i] predicts token i + 1; late minus early", **measured_on(model, ready),
        },
    )  # fmt: skip

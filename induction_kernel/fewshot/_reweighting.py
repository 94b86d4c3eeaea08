"""Anchor re-weighting: the last token's attention to labels times exp(beta), and the beta that predicts best.

A(q, p_i) becomes exp(beta) A(q, p_i), with one beta for each layer, head and class of label (Wang et al. 2023, section
4.1; there each class has one demonstration, here the demonstrations of a class share its beta). Nothing is
renormalised: the head's output becomes z_new = z + sum_i (exp(beta) - 1) A(q, p_i) (v_i - b), where b is the head's
part of the value bias, so that raw and processed weights give the same result. beta = 0 changes nothing; beta = -inf
removes the labels' values and gives their mass to no other key. Later layers run on the changed stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..heads._names import Head, HeadLike, names_of, some_heads
from ..interventions._activations import New
from ..interventions._plan import Cell, within_memory
from ..model._anatomy import Model, kept_as_it_was, sizes
from ..model._outputs import check_words
from ..model._runs import progress_bar
from ..model._weights import value_weights
from ..prompts._conversion import as_few_shot
from ..prompts._demonstrations import Demonstrations
from ..prompts._prompts import FewShotPrompts, measured_on
from ..replay._lane_record import Way, of_slowest
from ._changed_predictions import UNTOUCHED, batches_of_one_length, compared, label_keys, label_runs

__all__ = ["fit_label_weights", "reweighted"]


def fit_label_weights(
    model: Model,
    prompts: Any,
    *,
    heads: HeadLike | Iterable[HeadLike] | None = None,
    steps: int = 50,
    lr: float = 0.05,
    batch_size: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Fit beta for every head and class, by gradient, so that the right labels are most probable.

    The loss is the cross-entropy of the right label among the labels (their first tokens), in nats. Adam starts from
    beta = 0; batches of prompts are drawn without replacement until all have been used. The weights of the model do not
    change. Evaluate with `reweighted` on other prompts than these.

    Args:
        model: any TransformerLens model; given back as it was, without gradients.
        prompts: few-shot prompts whose right labels are known: the training split.
        heads: re-weight only these; None for all.
        steps: steps of the optimiser.
        lr: its learning rate.
        batch_size: prompts per step.
        seed: of the batches.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `beta[layer, head, label]` (0 at heads left out) and `loss[step]`, in nats, on each step's batch
        before the step.

    Raises:
        Refused: prompts without demonstrations or right labels, options out of range, no heads, gradients that
            torch.inference_mode() forbids.
        NotDefined: a model whose outputs are not its tokens.

    Source: Wang et al. 2023, section 4.1.
    """
    ready = as_few_shot(model, prompts)
    found = ready.demonstrations
    check_words(model, "fit_label_weights")
    _check_options(found, steps=steps, lr=lr, batch_size=batch_size)
    size, chosen = sizes(model), _chosen(model, heads)
    batches = _drawn(len(ready), steps, batch_size, seed)
    beta, losses, way = _fitted(model, ready, chosen, batches, lr, progress)
    names = names_of(range(size.n_layers), range(size.n_heads))
    attrs = {
        "method": "fit_label_weights", "steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed,
        **way.attrs, "convention": "A(q, p) exp(beta), not renormalised; one beta a layer, head and class",
        **measured_on(model, ready),
    }  # fmt: skip
    return xr.Dataset(
        {"beta": (("layer", "head", "label"), beta), "loss": ("step", losses)},
        {
            "layer": np.arange(size.n_layers), "head": np.arange(size.n_heads), "label": list(found.labels),
            "step": np.arange(steps), "name": (("layer", "head"), names),
        },
        attrs,
    )  # fmt: skip


def _fitted(
    model: Model, ready: FewShotPrompts, heads: list[Head], batches: list[Tensor], lr: float, progress: bool
) -> tuple[np.ndarray, np.ndarray, Way]:
    """Beta `[layer, head, class]` after Adam, the loss of each step `[step]`, and how the runs were made."""
    size, n_labels = sizes(model), len(ready.demonstrations.labels)
    beta = torch.zeros(size.n_layers, size.n_heads, n_labels, dtype=torch.float64, requires_grad=True)
    used = torch.zeros(size.n_layers, size.n_heads, 1, dtype=torch.float64)
    used[[h.layer for h in heads], [h.head for h in heads]] = 1
    optimiser, losses, ways = torch.optim.Adam([beta], lr=lr), list[float](), list[Way]()
    with kept_as_it_was(model), progress_bar(len(batches), progress=progress, unit="step") as bar:
        for rows in batches:
            loss, slope, way = _loss(model, ready[rows], beta)
            ways.append(way)
            beta.grad = slope * used
            optimiser.step()
            losses.append(loss)
            bar.update()
    return beta.detach().numpy(), np.array(losses), of_slowest(ways)


def reweighted(
    model: Model,
    prompts: Any,
    beta: xr.Dataset | np.ndarray,
    *,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Predictions with the last token's attention to labels times exp(beta), compared with the untouched model's.

    Args:
        model: any TransformerLens model; given back as it was.
        prompts: few-shot prompts, other ones than beta was fitted on.
        beta: what `fit_label_weights` returned, or an array `[layer, head, class]`: 0 changes nothing, -inf removes
            the labels' values.
        seed: of the bootstrap.
        max_tokens: tokens in one batch; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset as of `label_knock_out`, with the runs and groups `untouched` and `reweighted`, and without `mass` and
        the variables named `expected...`; differences are to `untouched`.

    Raises:
        TypeError: beta of another type.
        Refused: beta of another shape, for labels in another order, or with NaN or +inf; prompts without
            demonstrations.
        NotDefined: a model whose outputs are not its tokens.

    Source: Wang et al. 2023, section 4.1.
    """
    ready = as_few_shot(model, prompts)
    found = ready.demonstrations
    check_words(model, "reweighted")
    weights = _checked_beta(model, found, beta)
    logs, ways = np.full((len(ready), 2, len(found.labels)), np.nan), list[Way]()
    bar = progress_bar(len(ready), progress=progress, unit="prompt")
    with within_memory(max_tokens), kept_as_it_was(model), bar:
        for rows, batch, most in batches_of_one_length(model, ready, max_tokens):
            of_labels, way = label_runs(model, batch, [_cell(model, batch, weights)], max_tokens=most)
            logs[rows], ways = of_labels.double().numpy(), [*ways, way]
            bar.update(len(rows))
    return compared(
        model, ready, logs, runs=[UNTOUCHED, "reweighted"], groups=[UNTOUCHED, "reweighted"], to=UNTOUCHED, seed=seed,
        attrs={
            "method": "reweighted", "seed": seed, **of_slowest(ways).attrs,
            "convention": "A(q, p) exp(beta), not renormalised; one beta a layer, head and class",
        },
    )  # fmt: skip


def _check_options(found: Demonstrations, *, steps: int, lr: float, batch_size: int) -> None:
    if bool((found.target < 0).any()):
        raise Refused(
            "wanted prompts whose right labels are known, got queries without: give queries as (x, y) to "
            "few_shot_prompts"
        )
    if not (is_whole(steps) and steps > 0 and is_whole(batch_size) and batch_size > 0 and lr > 0):
        raise Refused(
            f"wanted steps, batch_size and lr above 0, got steps={steps!r}, batch_size={batch_size!r}, lr={lr!r}"
        )
    if torch.is_inference_mode_enabled():
        raise Refused(
            "wanted gradients to fit beta, which torch.inference_mode() forbids: call it outside of that"
        )


def _chosen(model: Model, heads: Any) -> list[Head]:
    size = sizes(model)
    if heads is None:
        return [Head(layer, head) for layer in range(size.n_layers) for head in range(size.n_heads)]
    return some_heads(heads, n_layers=size.n_layers, n_heads=size.n_heads)


def _checked_beta(model: Model, found: Demonstrations, beta: Any) -> Tensor:
    size = sizes(model)
    shape = (size.n_layers, size.n_heads, len(found.labels))
    if isinstance(beta, xr.Dataset):
        if "beta" not in beta or set(beta["beta"].dims) != {"layer", "head", "label"}:
            raise TypeError(f"wanted what fit_label_weights returned, got variables {list(beta.data_vars)}")
        given = beta["beta"].transpose("layer", "head", "label")
        if list(given["label"].values) != list(found.labels):
            raise Refused(
                f"wanted beta of the prompts' labels {list(found.labels)}, got {given['label'].values.tolist()}"
            )
        beta = given.values
    if not isinstance(beta, np.ndarray) or not np.issubdtype(beta.dtype, np.floating):
        raise TypeError(
            "wanted beta as numbers [layer, head, class], or what fit_label_weights returned, got "
            f"{type(beta).__name__}"
        )
    if beta.shape != shape or bool(np.isnan(beta).any()) or bool((beta == np.inf).any()):
        low, high = beta.min(initial=np.inf), beta.max(initial=-np.inf)
        raise Refused(
            f"wanted beta of shape {list(shape)}, without NaN or +inf, got shape {list(beta.shape)} and values from "
            f"{low:.3g} to {high:.3g}"
        )
    return torch.from_numpy(beta).double()


def _drawn(n: int, steps: int, batch_size: int, seed: int) -> list[Tensor]:
    """The indices of the prompts of each step."""
    generator, left, out = (
        torch.Generator().manual_seed(checked_seed(seed)),
        torch.empty(0, dtype=torch.long),
        [],
    )
    for _ in range(steps):
        if not len(left):
            left = torch.randperm(n, generator=generator)
        out.append(left[:batch_size])
        left = left[batch_size:]
    return out


def _loss(model: Model, prompts: FewShotPrompts, beta: Tensor) -> tuple[float, Tensor, Way]:
    """Mean loss of the right label among the labels, its gradient in beta, and how the runs were made."""
    total, slope, ways = 0.0, torch.zeros_like(beta), list[Way]()
    for _, batch, most in batches_of_one_length(model, prompts, None):
        with torch.enable_grad():
            logs, way = label_runs(model, batch, [_cell(model, batch, beta)], max_tokens=most, gradients=True)
            target = batch.demonstrations.target[:, None]
            loss = -logs[:, 1].log_softmax(-1).gather(1, target).sum() / len(prompts)
            slope += torch.autograd.grad(loss, beta)[0]
        total, ways = total + float(loss), [*ways, way]
    return total, slope, of_slowest(ways)


def _cell(model: Model, prompts: FewShotPrompts, beta: Tensor) -> Cell:
    """The edit: every head's last row times its factors, with the value bias in place of the change in mass."""
    size, last = sizes(model), prompts.tokens.shape[1] - 1
    new = {
        layer: New(factor[:, :, None], torch.zeros(()), instead=value_weights(model, layer)[1])
        for layer, factor in enumerate(_factors(prompts, beta))
    }
    return Cell(dict.fromkeys(new, tuple(range(size.n_heads))), last, new)


def _factors(prompts: FewShotPrompts, beta: Tensor) -> Iterator[Tensor]:
    """For each layer, the factors of the last token's attention, `[prompt, head, key]`."""
    keys, classes = label_keys(prompts).double(), prompts.demonstrations.classes
    for of_layer in beta:
        yield 1 + torch.einsum("pik,phi->phk", keys, (of_layer.exp() - 1)[:, classes].transpose(0, 1))

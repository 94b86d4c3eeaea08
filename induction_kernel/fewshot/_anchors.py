"""Label words as anchors: saliency of attention to and from labels, and label attention compared with predictions.

Saliency of an attention entry in layer l: I_l = | sum_h A_hl * dLoss/dA_hl |, the absolute value after the sum over
heads, where the loss is the cross-entropy of the right label at the last token, over the label words. It is averaged
over three groups of entries (query, key), key before query: S_wp (a label attends to words before it), S_pq (the last
token attends to labels) and S_ww (all others): Wang et al. 2023, section 2.2, who find S_wp large in shallow layers and
S_pq in deep ones. No gradient of the pattern itself is needed: dLoss/dA[q, k] = (dLoss/dz[q]) . v[k]. Saliency is a
first-order estimate, not an effect: for effects see `_label_knockout`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import rankdata
from torch import Tensor

from .._given import checked_seed, is_whole
from ..errors import Refused
from ..interventions._gradients import gradients_at
from ..metrics._metric import Metric, reading_of
from ..model._anatomy import Model, full_precision, per_query_head, sizes
from ..model._outputs import check_words
from ..model._runs import batches, progress_bar, stream
from ..prompts._conversion import as_few_shot, few_shot_only
from ..prompts._prompts import FewShotPrompts, Prompts, measured_on
from ..stats._means import percentiles, resampled
from ._changed_predictions import label_keys

__all__ = ["label_auc", "label_flow"]

FLOWS = ("words to labels", "labels to last token", "other words")  # S_wp, S_pq, S_ww
OVER = ("labels", "vocabulary")


def label_flow(
    model: Model,
    prompts: Any,
    *,
    over: str = "labels",
    batch_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Saliency of attention from words to labels, from labels to the last token, and elsewhere, by layer.

    Args:
        model: any TransformerLens model; given back as it was. Hooks that are on it stay active.
        prompts: few-shot prompts whose right labels are known.
        over: what the softmax of the loss is over: the first tokens of the "labels", as in the paper, or the whole
            "vocabulary", where raising all labels alike lowers the loss too.
        batch_size: prompts per pass; None to fit the memory.
        progress: show a progress bar if it takes longer than two seconds.

    Returns:
        Dataset with `saliency[prompt, layer, flow]`, in nats, 0 or more: the mean of I_l over each group's entries;
        `flow` is "words to labels" (S_wp), "labels to last token" (S_pq) and "other words" (S_ww). And `loss[prompt]`,
        of the right label, in nats. A value bias is included as it is in the model, so saliency depends on whether
        the weights are processed.

    Raises:
        TypeError: not prompts.
        Refused: another `over`; prompts without demonstrations or right labels; gradients that are not finite or that
            torch.inference_mode() forbids.
        NotDefined: a model whose outputs are not its tokens.

    Source: Wang et al. 2023, section 2.2.
    """
    if over not in OVER:
        raise Refused(f'wanted over "labels" or "vocabulary", got {over!r}')
    check_words(model, "label_flow")
    ready, loss = as_few_shot(model, prompts), _label_loss(over)
    size, length = sizes(model), ready.tokens.shape[1]
    saliency, losses = np.full((len(ready), size.n_layers, len(FLOWS)), np.nan), np.full(len(ready), np.nan)
    # The backward pass keeps the patterns of every layer.
    cost = size.n_layers * (length * size.n_heads + 20 * size.d_model) + size.d_vocab
    parts = batches(len(ready), length, batch_size=batch_size, cost=cost)
    with progress_bar(len(parts), progress=progress, unit="batch") as bar:
        for rows in parts:
            losses[rows], saliency[rows] = _of_batch(model, ready[rows], loss)
            bar.update()
    return xr.Dataset(
        {"saliency": (("prompt", "layer", "flow"), saliency), "loss": ("prompt", losses)},
        {"prompt": np.arange(len(ready)), "layer": np.arange(size.n_layers), "flow": list(FLOWS)},
        {
            "method": "label_flow", "unit": "nats", "over": over, "paper": "Wang et al. 2023, section 2.2",
            "convention": "absolute value after the sum over heads; key before query", **measured_on(model, ready),
        },
    )  # fmt: skip


def _label_loss(over: str) -> Metric:
    """Cross-entropy of the right label at the last token, over the label words or the vocabulary."""
    return Metric(
        "label_loss",
        "nats",
        partial(_right_label_loss, over),
        reads=lambda prompts: torch.arange(prompts.tokens.shape[1]) == prompts.lengths[:, None] - 1,
        targets=_label_ids,
        normalised=over == "vocabulary",
    )


def _label_ids(prompts: Prompts) -> Tensor:
    found = few_shot_only(prompts).demonstrations
    if bool((found.target < 0).any()):
        raise Refused(
            "wanted few-shot prompts whose queries carry labels, got some that do not: give them to few_shot_prompts "
            "as [(x, y), ...]"
        )
    return found.label_ids.expand(len(prompts), -1)


def _right_label_loss(over: str, found: Tensor, prompts: Prompts) -> Tensor:
    logs = found[:, 0].log_softmax(-1) if over == "labels" else found[:, 0]
    return -logs.gather(1, few_shot_only(prompts).demonstrations.target[:, None].to(logs.device))[:, 0]


def _of_batch(model: Model, prompts: FewShotPrompts, loss: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Loss `[prompt]` and saliency `[prompt, layer, flow]` of one batch."""
    layers, groups = list(range(sizes(model).n_layers)), _entries(prompts)
    losses, _, slopes = gradients_at(model, prompts, reading_of(loss, prompts), "z", layers)
    out = np.zeros((len(prompts), len(layers), len(FLOWS)))
    seen: dict[str, Tensor] = {}

    def read(site: str, layer: int, activation: Tensor) -> None:
        seen[site] = full_precision(activation.detach())
        if len(seen) < 2:
            return
        pattern, slope = seen.pop("pattern"), full_precision(slopes[layer])
        v = per_query_head(seen.pop("v"), slope.shape[2], 2)
        found = torch.einsum("phqk,pqhd,pkhd->pqk", pattern, slope, v).abs().cpu()
        for flow, group in enumerate(groups):
            mean = (found * group).sum((1, 2)) / group.sum((1, 2))
            out[:, layer, flow] = mean.double().numpy()

    stream(model, prompts.tokens, read, {"v": {*layers}, "pattern": {*layers}}, lengths=prompts.lengths)
    return losses.double().numpy(), out


def _entries(prompts: FewShotPrompts) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of each flow, bool `[prompt, query, key]`; a label counts with all of its tokens."""
    length = prompts.tokens.shape[1]
    place, labels = torch.arange(length), label_keys(prompts).any(1)
    real = place < prompts.lengths[:, None]
    last = place == prompts.lengths[:, None] - 1
    before = torch.ones(length, length, dtype=torch.bool).tril(-1) & real[:, :, None]
    to_last = before & last[:, :, None] & labels[:, None]
    to_labels = before & labels[:, :, None]
    return to_labels, to_last, before & ~to_labels & ~to_last


def label_auc(weights: xr.Dataset, predictions: Any, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """How well the last token's attention to labels tells which class is predicted: AUC, by layer.

    For each class, its labels' share of the attention to all labels is a score for whether the class is predicted. The
    AUC is the area under the ROC curve of one class against the others, averaged over the classes that are predicted
    for some prompts and not for all. Attention is averaged over heads, where the weights have them.

    Args:
        weights: `weight[prompt, ..., demonstration]` with the coordinate `label_class`, as of
            `demonstration_weights(model, prompts, pooling="label")`.
        predictions: the predicted classes `[prompt]`, or a Dataset with `prediction[prompt]`.
        draws: bootstrap samples over prompts, at least 1.
        seed: of the bootstrap.

    Returns:
        Dataset with `auc`, `auc_low` and `auc_high` (95%) over the dimensions of the weights other than prompt,
        demonstration and head: in [0, 1], chance .5; NaN where a single class is predicted.

    Raises:
        TypeError: not such weights.
        Refused: predictions of other prompts, or draws below 1.

    Source: Wang et al. 2023, section 2.3.
    """
    shares = _shares(weights)
    predicted = _predicted(predictions, shares.sizes["prompt"])
    if not is_whole(draws) or draws < 1:
        raise Refused(f"wanted draws of the bootstrap, 1 or more, got {draws!r}")
    counts = resampled(shares.sizes["prompt"], draws, checked_seed(seed)).astype(int)
    source = [dim for dim in shares.dims if dim not in ("prompt", "label")]
    values = shares.transpose("prompt", "label", *source).values
    flat = values.reshape(*values.shape[:2], -1)
    drawn = (np.repeat(np.arange(len(flat)), times) for times in counts)
    found = _areas(flat, predicted)
    low, high = percentiles(np.stack([_areas(flat[rows], predicted[rows]) for rows in drawn]))
    shape = values.shape[2:]
    return xr.Dataset(
        {key: (source, value.reshape(shape)) for key, value in (("auc", found), ("auc_low", low), ("auc_high", high))},
        {dim: shares[dim] for dim in source if dim in shares.coords},
        {
            "method": "label_auc", "paper": "Wang et al. 2023, section 2.3", "draws": draws, "seed": seed,
            "n_prompts": len(flat),
        },
    )  # fmt: skip


def _shares(weights: Any) -> xr.DataArray:
    """Each class's share of the weight, `[prompt, ..., label]`."""
    ready = isinstance(weights, xr.Dataset) and "weight" in weights and "label_class" in weights.coords
    if not ready or not {"prompt", "demonstration"} <= set(weights["weight"].dims):
        raise TypeError(
            "wanted weights of demonstrations, like demonstration_weights(model, prompts, pooling='label'), got "
            f"{type(weights).__name__}"
        )
    weight, classes = weights["weight"].fillna(0.0), weights["label_class"]
    weight = weight.mean("head") if "head" in weight.dims else weight
    n = int(classes.max()) + 1
    totals = xr.concat([(weight * (classes == y)).sum("demonstration") for y in range(n)], dim="label")
    total = totals.sum("label")
    return (totals / total.where(total > 0)).fillna(1 / n)  # no weight on any label: equal shares


def _predicted(predictions: Any, n: int) -> np.ndarray:
    given = (
        predictions["prediction"].values if isinstance(predictions, xr.Dataset) else np.asarray(predictions)
    )
    if given.shape != (n,):
        raise Refused(f"wanted one predicted class for each of {n} prompts, got shape {list(given.shape)}")
    return given


def _areas(shares: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """AUC `[source]` of shares `[prompt, label, source]`, computed from ranks and averaged over classes."""
    positive = (predicted[:, None] == np.arange(shares.shape[1]))[..., None]
    n = positive.sum(0)
    above = (rankdata(shares, axis=0) * positive).sum(0) - n * (n + 1) / 2
    pairs = n * (len(shares) - n)
    there = pairs[:, 0] > 0
    return (above[there] / pairs[there]).mean(0) if there.any() else np.full(shares.shape[2], np.nan)

"""`vote`: the demonstrations' labels, weighted by a head's attention, against the model's prediction and the truth.

With a_i the head's attention to demonstration i and y_i its label (Han et al. 2025, section 5.2),

    vote(y) = sum_i a_i [y_i = y] / sum_i a_i,      prediction = the y with the largest vote.

Sums of heads, explicit kernels and controls vote in the same way. The threshold is a max-statistic like that of
`stats/_thresholds`, but its null is that labels are permuted among the demonstrations, so it is computed here. No head
is chosen: the best of many looks better than it is on the prompts it was chosen on (see `_held_out`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..heads._names import names_of
from ..prompts._prompts import FewShotPrompts
from ..stats._shares import mean_share_interval
from ._votes import Ballots, as_ballots, as_predictions, class_weights, hits, permuted_hits, winners

__all__ = ["sum_heads", "vote"]


def vote(
    weights: xr.Dataset,
    prompts: FewShotPrompts | None = None,
    predictions: Any = None,
    *,
    permutations: int = 200,
    level: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    """Let the demonstrations vote for their labels with given weights, and compare with the model and the truth.

    A source is a head, or whatever else the weights are over. If several classes have the same largest vote (equal
    weights over balanced demonstrations, or no weight at all), none wins: `prediction` is -1, and `agreement` and
    `correct` are 1 / (number of tied classes) if the right class is among them, as a fair draw would get on average.

    A source passes if its mean `agreement` (without predictions, `correct`) is above the threshold, which is a
    max-statistic over all sources: labels are permuted among each prompt's demonstrations, for all sources alike, and
    the threshold of a source is its mean over these permutations plus c of their standard deviations, where in a share
    `level` of the permutations any source is more than c of its standard deviations up. The observed labels count as
    one of the permutations. Prompts that share their demonstrations (the coordinate `set`) have the same permutations.

    Args:
        weights: Dataset with `weight[prompt, *source, demonstration]`, `label_class` and `target`, of
            `demonstration_weights`, `fewshot.predict(..., pooling=)`, `sum_heads`, `control_weights` or
            `kernel_regression`. Negative weights vote against.
        prompts: the few-shot prompts of the weights, for the label words; not needed if `weights` or `predictions` have
            `label`; without any, labels are numbered.
        predictions: the model's predicted classes, int `[prompt]`, or the Dataset of `fewshot.predict`; None to compare
            with the truth alone.
        permutations: number of permutations of the labels.
        level: probability that any source at all passes if none depends on where the labels are.
        seed: of the permutations and the bootstrap.

    Returns:
        Dataset:

        | variable | meaning |
        |---|---|
        | `vote[prompt, *source, label]` | share of all weight, summing to 1; NaN if all weights are 0 |
        | `prediction[prompt, *source]` | class with the largest vote, -1 if tied |
        | `agreement[prompt, *source]` | 1 if that is the model's prediction, else 0 (ties as above); if it is given |
        | `correct[prompt, *source]` | 1 if it is the right class, else 0 (ties as above); NaN if it is not known |
        | `mean`, `low`, `high` | over sources: mean agreement (else correct), its 95% interval (over sets if several) |
        | `chance`, `threshold`, `passes` | its mean over permutations, the threshold, and whether the mean exceeds it |

        With negative weights, votes are shares of the sum of absolute weights, in [-1, 1]. If no right class (and no
        prediction) is known, values over sources are NaN.

    Raises:
        TypeError: weights that are not a Dataset, predictions that are not whole numbers.
        Refused: weights in another format, not finite, or of other prompts; another number of predictions than of
            prompts; too few permutations for the level.

    Source: Han et al. 2025, section 5.2; Westfall & Young 1993 (max-statistic).
    """
    _check(permutations, level)
    ballots = as_ballots(weights, prompts, predictions)
    predicted = None if predictions is None else as_predictions(predictions, ballots)
    votes = class_weights(ballots.weight, ballots.classes, len(ballots.labels))
    total = np.abs(ballots.weight).sum(-1)
    won = winners(votes, total)
    with np.errstate(invalid="ignore"):
        share = np.where(total[..., None] > 0, votes / total[..., None], np.nan)
    each = {"correct": hits(won, ballots.target)}
    if predicted is not None:
        each["agreement"] = hits(won, predicted)
    judged, wanted = ("correct", ballots.target) if predicted is None else ("agreement", predicted)
    over = _over_prompts(ballots, each[judged], wanted, permutations, level, checked_seed(seed))
    prompt = ("prompt", *ballots.dims)
    single = (won == 1).any(-1)
    variables = {"prediction": (prompt, ballots.over_sources(np.where(single, won.argmax(-1), -1)))}
    variables |= {key: (prompt, ballots.over_sources(values)) for key, values in each.items()}
    variables |= {key: (ballots.dims, ballots.over_sources(values)) for key, values in over.items()}
    shares = np.moveaxis(ballots.over_sources(np.moveaxis(share, -1, 0)), 0, -1)
    variables["vote"] = ((*prompt, "label"), shares)
    coords = {key: weights[key] for key in _kept(weights, ballots)} | {"label": list(ballots.labels)}
    if {"layer", "head"} <= set(ballots.dims):
        names = names_of(weights["layer"].values, weights["head"].values)
        coords["name"] = xr.DataArray(names, dims=("layer", "head"))
    attrs = {"method": "vote", "judged": judged, "permutations": permutations, "level": level}
    attrs |= {"seed": checked_seed(seed), "n_prompts": len(ballots.target)}
    return xr.Dataset(variables, coords, weights.attrs | attrs)


def _over_prompts(
    ballots: Ballots, found: np.ndarray, wanted: np.ndarray, permutations: int, level: float, seed: int
) -> dict[str, np.ndarray]:
    """Mean over prompts, interval, chance and max-statistic threshold of every source."""
    known = wanted >= 0
    if not known.any():
        nothing = np.full(found.shape[1], np.nan)
        keys = ("mean", "low", "high", "chance", "threshold")
        return dict.fromkeys(keys, nothing) | {"passes": np.zeros(found.shape[1], dtype=bool)}
    mean = found[known].mean(0)
    _, null = permuted_hits(ballots, wanted, permutations, np.random.default_rng(seed))
    low, high = mean_share_interval(found[known], sets=ballots.sets[known], seed=seed)
    all_of_them = np.vstack(
        [null, mean]
    )  # the observed labels are one permutation too: this makes the level exact
    centre, spread = all_of_them.mean(0), all_of_them.std(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = np.where(spread > 1e-12, (null - centre) / spread, 0.0).max(1)
    rank = int(np.ceil((1 - level) * (permutations + 1)))
    threshold = centre + np.sort(largest)[rank - 1] * spread
    return {
        "mean": mean, "low": low, "high": high, "chance": null.mean(0), "threshold": threshold,
        "passes": mean > threshold + 1e-12,
    }  # fmt: skip


def _kept(weights: xr.Dataset, ballots: Ballots) -> list[str]:
    """Names of the weights' coordinates that fit the result: over prompts, demonstrations and sources."""
    dims = {"prompt", "demonstration", *ballots.dims}
    return [str(key) for key, coord in weights.coords.items() if set(coord.dims) <= dims]


def _check(permutations: int, level: float) -> None:
    """Refused unless there are enough permutations for the level."""
    if not 0 < level < 1:
        raise Refused(f"wanted level between 0 and 1, got {level}")
    if int(np.ceil((1 - level) * (permutations + 1))) > permutations:
        raise Refused(
            f"wanted at least {int(np.ceil(1 / level)) - 1} permutations for level={level}, got {permutations}"
        )


def sum_heads(weights: xr.Dataset, writes: xr.Dataset | None = None) -> xr.Dataset:
    """Weights of each layer: the sum over its heads, plain or with each head weighted by what it writes about labels.

    Args:
        weights: Dataset with `weight[prompt, layer, head, demonstration]`, of `demonstration_weights`.
        writes: the Dataset of `label_logits`, over the same layers and heads; None for the plain sum. With it, a head
            that attends to labels but writes nothing about them does not count, and one that suppresses the label it
            attends to counts against it.

    Returns:
        Dataset with `weight[prompt, layer, demonstration]`, for `vote`; with `writes` in logits, and possibly negative.

    Raises:
        TypeError: not Datasets.
        Refused: weights not over layers and heads; writes of other heads.

    Source: Han et al. 2025, section 5.2, for one head; the sum is this package's.
    """
    if not isinstance(weights, xr.Dataset):
        raise TypeError(
            f"wanted the Dataset of demonstration_weights(model, prompts), got {type(weights).__name__}"
        )
    if not {"layer", "head"} <= set(weights.get("weight", xr.DataArray()).dims):
        raise Refused(
            "wanted `weight` over layer and head, as demonstration_weights returns it, "
            f"got {list(weights.sizes)}"
        )
    weight = weights["weight"]
    if writes is not None:
        weight = weight * _matching(weights, writes)
    summed = weight.sum("head", skipna=False)
    order = [dim for dim in weights["weight"].dims if dim != "head"]
    kept = weights.drop_vars("name", errors="ignore").drop_dims("head").coords
    how = "plain" if writes is None else "each head by the logits it writes"
    return xr.Dataset({"weight": summed.transpose(*order)}, kept, weights.attrs | {"heads_summed": how})


def _matching(weights: xr.Dataset, writes: Any) -> xr.DataArray:
    """The writes of the weights' heads; TypeError or Refused if they are of others."""
    if not isinstance(writes, xr.Dataset):
        raise TypeError(f"wanted the Dataset of label_logits(model, prompts), got {type(writes).__name__}")
    found = writes.get("writes")
    same = found is not None and all(
        dim in found.coords and np.array_equal(found[dim], weights[dim]) for dim in ("layer", "head")
    )
    if found is None or not same:
        raise Refused(
            "wanted `writes` over the layers and heads of the weights, got another Dataset: use "
            "label_logits(model, prompts) of the same model"
        )
    return found.astype(np.float64).drop_vars("name", errors="ignore")

"""`vote`: the demonstrations vote for their labels, weighted by a head's attention, beside the prediction.

Han et al. 2025, section 5.2: with a_i the head's attention to demonstration i, y_i its label,

    vote(y) = sum_i a_i [y_i = y] / sum_i a_i,      prediction = the y with the largest vote,

compared with the model's own prediction (agreement) and with the truth. The same for sums of heads, explicit kernels
and controls. It does not choose: the best of many heads looks better than it is where it was found (see `_held_out`).
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
    """The vote that weights make over the demonstrations' labels, against the model's predictions and the truth.

    Where several classes have the same largest vote (equal weights over balanced demonstrations; no weight on any
    demonstration), no class wins: `prediction` is -1, and `agreement` and `correct` are 1 / tied if the right class
    is among them, which is what a fair draw gets on average.

    A source is marked where the mean of its `agreement` (without predictions: of `correct`) is above what it has with
    the labels permuted among each prompt's demonstrations, all sources alike. The threshold is a max-statistic: a
    source's mean over the permutations and its own, plus c times their standard deviation, where a share `level` of
    the permutations has a source more than c of its standard deviations up. So it holds for all sources together.

    Args:
        weights: `weight[prompt, *source, demonstration]` of `demonstration_weights`, `predict(..., pooling=)`,
            `sum_heads`, `control_weights` or a kernel, with `label_class` and `target`. Weights below zero vote
            against.
        prompts: the prompts they are of, for the label words; None where `weights` or `predictions` have `label`,
            or to number them.
        predictions: the model's predicted classes, int `[prompt]`, or what `predict` returned; None to compare
            with the truth alone.
        permutations: of the labels, for the threshold.
        level: chance that any source at all is marked where none reads the labels' places.
        seed: of permutations and bootstrap; a local generator.

    Returns:
        Dataset with `vote[prompt, *source, label]` (shares, which sum to 1; with weights below zero, of the sum of
        their sizes, in [-1, 1]; NaN where all weights are 0), `prediction[prompt, *source]` (class, -1 where tied),
        `correct[prompt, *source]` and, with predictions, `agreement[prompt, *source]` (0 to 1; NaN where the class is
        unknown). Of the agreement (else of `correct`) over the sources: `mean`, `low` and `high` (95%, over
        prompts), `chance` (its mean over permutations), `threshold` and `passes`; NaN where no prompt is known.

    Raises:
        TypeError: weights that are no Dataset, predictions that are no whole numbers.
        Refused: weights in another format or not finite, other prompts', another number of predictions than
            of prompts, too few permutations for the level.

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
    """Mean, interval, chance and threshold of every source."""
    known = wanted >= 0
    if not known.any():
        nothing = np.full(found.shape[1], np.nan)
        keys = ("mean", "low", "high", "chance", "threshold")
        return dict.fromkeys(keys, nothing) | {"passes": np.zeros(found.shape[1], dtype=bool)}
    mean = found[known].mean(0)
    _, null = permuted_hits(ballots, wanted, permutations, np.random.default_rng(seed))
    low, high = mean_share_interval(found[known], seed=seed)
    all_of_them = np.vstack([null, mean])  # what was observed is one more permutation: so the level is exact
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
    """Coordinates of the weights that the result still has: of prompts, demonstrations and sources."""
    dims = {"prompt", "demonstration", *ballots.dims}
    return [str(key) for key, coord in weights.coords.items() if set(coord.dims) <= dims]


def _check(permutations: int, level: float) -> None:
    if not 0 < level < 1:
        raise Refused(f"wanted level between 0 and 1, got {level}")
    if int(np.ceil((1 - level) * (permutations + 1))) > permutations:
        raise Refused(
            f"wanted at least {int(np.ceil(1 / level)) - 1} permutations for level={level}, got {permutations}"
        )


def sum_heads(weights: xr.Dataset, writes: xr.Dataset | None = None) -> xr.Dataset:
    """The weights of each layer: the sum over its heads, plain or each head by how strongly it writes labels.

    Args:
        weights: `weight[prompt, layer, head, demonstration]` of `demonstration_weights`.
        writes: of `label_logits`, over the same layers and heads; None for the plain sum. A head that attends to
            labels and writes nothing then counts for nothing, one that writes against the label counts against it.

    Returns:
        The weights without `head`: `weight[prompt, layer, demonstration]`; with `writes` in logits, and possibly
        below zero.

    Raises:
        TypeError: not Datasets. Refused: no layers and heads; writes of other heads.

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
    if not isinstance(writes, xr.Dataset):
        raise TypeError(f"wanted the Dataset of label_logits(model, prompts), got {type(writes).__name__}")
    found = writes.get("writes")
    same = found is not None and all(
        dim in found.coords and np.array_equal(found[dim], weights[dim]) for dim in ("layer", "head")
    )
    if found is None or not same:
        raise Refused(
            "wanted `writes` over the layers and heads of the weights: label_logits(model, prompts) of the same model"
        )
    return found.astype(np.float64).drop_vars("name", errors="ignore")

"""`held_out`: the best head's vote, chosen on some prompts and scored on the others, beside controls.

The held-out protocol of Han et al. 2025, section 5.5, over many random splits: the head (layer, kernel) with the
largest agreement on one part of the prompts is chosen, and scored on the other (700 and 300 prompts in the paper). Test
parts of different splits overlap, so the variance s^2 of the scores of J splits is corrected (Nadeau & Bengio 2003):
that of their mean is (1 / J + n_test / n_train) s^2. No model is run; the vote itself is in `_reconstruction`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._given import checked_seed
from ..errors import Refused
from ..heads._names import Head
from ..stats._shares import split_interval, split_margin
from ._controls import by_position, control_weights
from ._reconstruction import sum_heads
from ._votes import Ballots, as_ballots, as_predictions, permuted_hits, vote_hits

__all__ = ["held_out", "reconstruction_table"]

BEST = "best head"
PERMUTATIONS = 50  # of the labels in the vote, averaged for every prompt


def held_out(
    weights: xr.Dataset,
    predictions: Any,
    *,
    others: Mapping[str, xr.Dataset] | None = None,
    writes: xr.Dataset | None = None,
    splits: int = 50,
    share: float = 0.7,
    confidence: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Agreement and accuracy of the best head's vote on prompts that it was not chosen on, beside controls.

    Rows (dimension `row`): "model", the model itself (accuracy alone); "best head"; "layer sum", the best layer's plain
    sum over heads; "layer sum by writing", if `writes` are given; then `others`, the best source of each.
    Controls: "majority label" and "last label" of the demonstrations; "position only", the chosen head's mean weight at
    each place (counted back from the query) over the prompts it was chosen on; "random head", the mean over all heads;
    "labels permuted", the chosen head's weights with the labels permuted among the demonstrations; "constant", always
    the class that the model predicts most often on the prompts that heads are chosen on.

    Every choice is made by agreement with the model: a row's accuracy (the paper's "reconstructed performance") is that
    of the same head. Of equally good ones the first is chosen. Ties of the vote count as in `vote`.

    Args:
        weights: Dataset with `weight[prompt, layer, head, demonstration]`, of `demonstration_weights` or `predict`.
        predictions: the model's predicted classes, int `[prompt]`, or the Dataset of `fewshot.predict`.
        others: name -> weights for the same prompts from any sources (explicit kernels, nearest neighbours).
        writes: the Dataset of `label_logits`, for the weighted layer sum.
        splits: number of random splits, at least 2. Sets of shared demonstrations stay whole if each part has two.
        share: of the prompts that heads are chosen on, between 0 and 1; .7 as in the paper.
        confidence: of the intervals.
        seed: of splits and permutations.

    Returns:
        Dataset; scores are in [0, 1], and accuracy is NaN if no query's class is known.

        | variable | meaning |
        |---|---|
        | `agreement`, `accuracy` | by row: mean over splits, with `_low` and `_high` (Wilson's, corrected variance) |
        | `agreement_difference`, `accuracy_difference` | best head less this row, likewise (Student's t over splits) |
        | `agreement_split`, `accuracy_split` | the score of every row and split |
        | `choice[row, split]` | what was chosen ("L5H1"), "" if there is no choice |
        | `random_spread[criterion]` | standard deviation of the score over all heads |

    Raises:
        TypeError: weights that are not a Dataset, predictions that are not whole numbers.
        Refused: weights not over layer and head, or for other prompts; too few prompts; an option out of its range.

    Source: Han et al. 2025, section 5.5; Nadeau & Bengio 2003 (corrected resampled variance).
    """
    groups = _groups(weights, predictions, others, writes)
    heads = groups[BEST]
    n, predicted = len(heads.target), as_predictions(predictions, heads)
    _check(n, splits, share, confidence)
    units = heads.units(share)
    rng = np.random.default_rng(checked_seed(seed))
    order = rng.random((splits, units.max() + 1)).argsort(1).argsort(1)
    chosen_on = order < round(share * (units.max() + 1))
    train = chosen_on[:, units]
    wanted = {"agreement": predicted, "accuracy": heads.target}
    hits = {key: {name: vote_hits(each, y) for name, each in groups.items()} for key, y in wanted.items()}
    choices = _choices(groups, hits["agreement"], predicted, train)
    found: dict[str, Any] = {}
    spread = []
    for criterion, classes in wanted.items():
        known = classes >= 0
        rows = _rows(groups, hits[criterion], choices, classes, train, rng)
        if criterion == "accuracy":
            rows["model"] = _means((predicted == classes).astype(float)[:, None], ~train & known)[:, 0]
        used = np.isin(np.arange(units.max() + 1), units[known])  # sets, not prompts, are independent
        parts = (chosen_on & used).sum(1).mean(), (~chosen_on & used).sum(1).mean()
        found |= _variables(criterion, rows, parts, confidence)
        spread.append(np.nanmean(hits[criterion][BEST], axis=0).std() if known.any() else np.nan)
    named = _named(groups, choices)
    found["choice"] = (("row", "split"), np.array(list(named.values())))
    found["random_spread"] = ("criterion", np.array(spread))
    attrs = {"method": "held_out", "splits": splits, "share": share, "confidence": confidence, "seed": seed}
    attrs |= {"n_prompts": n, "n_choose": int(train[0].sum()), "n_score": int((~train[0]).sum())}
    coords = {"row": list(named), "split": np.arange(splits), "criterion": ["agreement", "accuracy"]}
    kept = {key: value for key, value in weights.attrs.items() if key not in ("method", "unit")}
    return xr.Dataset(found, coords, kept | attrs)


def _groups(weights: Any, predictions: Any, others: Any, writes: Any) -> dict[str, Ballots]:
    """Every set of weights as `Ballots`, by the name of its row."""
    sources = {"layer sum": sum_heads(weights)}
    if set(weights["weight"].dims) != {"prompt", "layer", "head", "demonstration"}:
        raise Refused(
            f"wanted weights over prompt, layer, head and demonstration, got {list(weights['weight'].dims)}: "
            "choose one entry of any other dimension by .sel"
        )
    if writes is not None:
        sources["layer sum by writing"] = sum_heads(weights, writes)
    controls = control_weights(weights)
    for name, other in (others or {}).items():
        if name in {"model", BEST, "layer sum", "layer sum by writing", *CONTROLS}:
            raise Refused(f"{name!r} is the name of a row of its own: give these weights another name")
        sources[name] = other
    for name in controls["control"].values.tolist():
        sources[name] = controls.sel(control=name, drop=True)
    heads = as_ballots(weights, None, predictions)
    groups = {BEST: heads}
    for name, source in sources.items():
        groups[name] = as_ballots(source, None, predictions)
        if not np.array_equal(groups[name].target, heads.target):
            raise Refused(f"the weights {name!r} are of other prompts (another `target`): use the same")
    words = max((ballots.labels for ballots in groups.values()), key=len)
    return {name: replace(ballots, labels=words) for name, ballots in groups.items()}


CONTROLS = ("majority label", "last label", "position only", "random head", "labels permuted", "constant")


def _choices(
    groups: dict[str, Ballots], agreement: dict[str, np.ndarray], predicted: np.ndarray, train: np.ndarray
) -> dict[str, np.ndarray]:
    """The choice of each split, `[split]`: the source of each row that agrees best, and the constant class."""
    chosen = {name: _means(found, train).argmax(1) for name, found in agreement.items()}
    classes = predicted[:, None] == np.arange(len(groups[BEST].labels))
    return chosen | {"constant": _means(classes.astype(float), train).argmax(1)}


def _rows(
    groups: dict[str, Ballots],
    hits: dict[str, np.ndarray],
    choices: dict[str, np.ndarray],
    wanted: np.ndarray,
    train: np.ndarray,
    rng: Any,
) -> dict[str, np.ndarray]:
    """The scores `[split]` of all rows by one criterion, on the test part of each split."""
    test, every = ~train & (wanted >= 0), np.arange(len(train))
    heads, best = groups[BEST], choices[BEST]
    rows = {"model": np.full(len(train), np.nan)}  # always agrees with itself
    rows |= {name: _means(found, test)[every, choices[name]] for name, found in hits.items()}
    rows["position only"] = _by_position(heads, wanted, best, train, test)
    rows["random head"] = _means(hits[BEST], test).mean(1)
    used, index = np.unique(best, return_inverse=True)
    permuted, _ = permuted_hits(replace(heads, weight=heads.weight[:, used]), wanted, PERMUTATIONS, rng)
    rows["labels permuted"] = _means(permuted, test)[every, index]
    classes = (wanted[:, None] == np.arange(len(heads.labels))).astype(float)
    rows["constant"] = _means(classes, test)[every, choices["constant"]]
    return rows


def _named(groups: dict[str, Ballots], choices: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """The name of what each row's choice was in each split; "" if there was no choice."""
    nothing = [""] * len(choices[BEST])
    named = {"model": nothing}
    for name, ballots in groups.items():
        names = source_names(ballots)
        named[name] = [names[i] for i in choices[name]]
    named |= dict.fromkeys(("position only", "random head", "labels permuted"), nothing)
    labels = groups[BEST].labels
    return named | {"constant": [labels[y] for y in choices["constant"]]}


def _means(found: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Means of `found[prompt, source]` over the prompts of each split, bool `[split, prompt]`: `[split, source]`."""
    count = prompts.sum(1, keepdims=True)
    total = prompts.astype(float) @ np.nan_to_num(found)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _by_position(
    heads: Ballots, wanted: np.ndarray, best: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Scores `[split]` of a vote with the chosen head's mean weights by position."""
    profiles = [by_position(heads, source, prompts) for source, prompts in zip(best, train, strict=True)]
    found = vote_hits(replace(heads, weight=np.stack(profiles, 1)), wanted)
    return _means(found, test).diagonal()


def source_names(ballots: Ballots) -> list[str]:
    """The name of each source: "L5H1", "layer 5", a coordinate's value; "" if there is only one."""
    dims, like = ballots.dims, ballots.like
    names = []
    for index in np.ndindex(like.shape):
        at = {
            str(dim): like[dim].values[i] if dim in like.coords else i
            for dim, i in zip(dims, index, strict=True)
        }
        if set(at) == {"layer", "head"}:
            names.append(str(Head(int(at["layer"]), int(at["head"]))))
        else:
            words = [str(value) if isinstance(value, str) else f"{dim} {value}" for dim, value in at.items()]
            names.append(", ".join(words))
    return names


def _variables(
    criterion: str, rows: dict[str, np.ndarray], parts: tuple[float, float], confidence: float
) -> dict[str, Any]:
    """Means, intervals and differences of all rows by one criterion."""
    scores = np.stack(list(rows.values()))
    lead = rows[BEST] - scores
    low, high = np.transpose([split_interval(row, *parts, confidence=confidence) for row in scores])
    margin = np.array([split_margin(row, *parts, confidence=confidence)[0] for row in lead])
    mean = lead.mean(1)
    found = {criterion: scores.mean(1), f"{criterion}_low": low, f"{criterion}_high": high}
    found |= {f"{criterion}_difference": mean}
    found |= {f"{criterion}_difference_low": mean - margin, f"{criterion}_difference_high": mean + margin}
    by_split = {f"{criterion}_split": (("row", "split"), scores)}
    return {key: ("row", value) for key, value in found.items()} | by_split


def _check(n: int, splits: int, share: float, confidence: float) -> None:
    """Refused if an option is out of its range, or there are too few prompts."""
    if not (0 < share < 1 and 0 < confidence < 1 and splits >= 2):
        raise Refused(
            "wanted splits >= 2, and share and confidence between 0 and 1, "
            f"got splits={splits}, share={share}, confidence={confidence}"
        )
    if min(round(share * n), n - round(share * n)) < 2:
        raise Refused(
            f"wanted at least 2 prompts to choose on and 2 to score on, got {n} prompts with share={share}"
        )


def reconstruction_table(scores: xr.Dataset) -> pd.DataFrame:
    """The Dataset of `held_out`, `scores`, as a table by row, rounded to three digits.

    Returns:
        DataFrame with `agreement` and `accuracy`, `agreement_difference` and `accuracy_difference` (best head less this
        row), each with `_low` and `_high`, and `chosen`: the most frequent choice, and in how many splits it was made.

    Raises:
        TypeError: not a Dataset.
        Refused: not the Dataset of `held_out`.
    """
    if not isinstance(scores, xr.Dataset):
        raise TypeError(f"wanted the Dataset of held_out, got {type(scores).__name__}")
    if "agreement_difference" not in scores:
        raise Refused(f"wanted the Dataset of held_out, got variables {list(scores.data_vars)}")
    columns = [
        key + end
        for key in ("agreement", "accuracy", "agreement_difference", "accuracy_difference")
        for end in ("", "_low", "_high")
    ]
    table = pd.DataFrame(scores[columns].to_dataframe()[columns].round(3)).dropna(axis="columns", how="all")
    return table.assign(chosen=[_most(row) for row in scores["choice"].values])


def _most(choices: np.ndarray) -> str:
    """The most frequent choice, and in how many splits; "" if there is none."""
    names, counts = np.unique(choices, return_counts=True)
    name, count = names[counts.argmax()], counts.max()
    return f"{name} ({count} of {len(choices)})" if name else ""

"""The best head's vote on prompts that it was not chosen on, beside controls.

The held-out protocol of Han et al. 2025, section 5.5, repeated: on one part of the prompts the head (the layer, the
kernel) with the largest agreement is chosen; on the other, that same head's agreement and accuracy are reported (the
paper chooses on 700 prompts and reports on 300). Intervals are for repeated splits of one set
of prompts (Nadeau & Bengio 2003), whose test parts overlap: with J splits and the scores' variance s^2 over them,

    variance of the mean = (1 / J + n_test / n_train) s^2.

It runs no model; the vote itself is `_reconstruction`'s.
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
PERMUTATIONS = 50  # of labels in the vote, averaged in every prompt


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
    """Agreement and accuracy of the head that agrees best, on prompts that it was not chosen on, beside its controls.

    Rows (dimension `row`): "model", the model itself (accuracy alone); "best head"; "layer sum", the best layer's
    plain sum over heads; with `writes`, "layer sum by writing"; then `others`, the best of each where it has several.
    Controls: "majority label" and "last label" of the demonstrations; "position only", the chosen head's mean weight
    at each place (counted back from the query) over the part it was chosen on; "random head", the mean over all
    heads; "labels permuted", the chosen head's weights with the labels permuted among the demonstrations; "constant",
    always the class that the model predicts most often on the part where heads are chosen.

    All that is chosen is chosen once, by its agreement with the model: a row's accuracy (the paper's "reconstructed
    performance") is that of the same head. Of equals the first is chosen. Ties of the vote count as in `vote`.

    Args:
        weights: `weight[prompt, layer, head, demonstration]` of `demonstration_weights` or `predict`.
        predictions: the model's predicted classes, int `[prompt]`, or what `predict` returned.
        others: name -> weights of the same prompts over any sources (explicit kernels, nearest neighbours).
        writes: of `label_logits`, for the weighted layer sum.
        splits: how many random splits.
        share: of the prompts that heads are chosen on, between 0 and 1; .7 as in the paper.
        confidence: of the intervals.
        seed: of splits and permutations; a local generator.

    Returns:
        Dataset over `row`: `agreement` and `accuracy` (0 to 1, means over splits; accuracy NaN where no query's
        class is known), with `_low` and `_high`; `agreement_difference` and `accuracy_difference`, best head less this
        method, paired by split, with `_low` and `_high`. Over (`row`, `split`): `agreement_split` and
        `accuracy_split`; `choice`, what was chosen ("L5H1"; "" where nothing is).
        `random_spread[criterion]`: the standard deviation of the score over all heads. Intervals of the scores are
        Wilson's with the number of prompts that would give that variance (as Korn & Graubard 1998 do for surveys), so
        that one of 1.0 is not without doubt; of the differences, Student's t.

    Raises:
        TypeError: weights that are no Dataset, predictions that are no whole numbers.
        Refused: weights not over layer and head, of other prompts, too few prompts, an option out of its range.

    Source: Han et al. 2025, section 5.5; Nadeau & Bengio 2003 (corrected resampled variance).
    """
    groups = _groups(weights, predictions, others, writes)
    heads = groups[BEST]
    n, predicted = len(heads.target), as_predictions(predictions, heads)
    _check(n, splits, share, confidence)
    rng = np.random.default_rng(checked_seed(seed))
    order = rng.random((splits, n)).argsort(1).argsort(1)
    train = order < round(share * n)
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
        parts = (train & known).sum(1).mean(), (~train & known).sum(1).mean()
        found |= _variables(criterion, rows, parts, confidence)
        spread.append(np.nanmean(hits[criterion][BEST], axis=0).std() if known.any() else np.nan)
    named = _named(groups, choices)
    names = list(named)
    found["choice"] = (("row", "split"), np.array(list(named.values())))
    found["random_spread"] = ("criterion", np.array(spread))
    attrs = {"method": "held_out", "splits": splits, "share": share, "confidence": confidence, "seed": seed}
    attrs |= {"n_prompts": n, "n_choose": int(train[0].sum()), "n_score": int((~train[0]).sum())}
    coords = {"row": names, "split": np.arange(splits), "criterion": ["agreement", "accuracy"]}
    kept = {key: value for key, value in weights.attrs.items() if key not in ("method", "unit")}
    return xr.Dataset(found, coords, kept | attrs)


def _groups(weights: Any, predictions: Any, others: Any, writes: Any) -> dict[str, Ballots]:
    """Every set of weights by its row's name; the best of each is chosen."""
    sources = {"layer sum": sum_heads(weights)}
    if set(weights["weight"].dims) != {"prompt", "layer", "head", "demonstration"}:
        raise Refused(
            f"wanted weights over prompt, layer, head and demonstration, got {list(weights['weight'].dims)}: "
            "choose one entry of the others with .sel"
        )
    if writes is not None:
        sources["layer sum by writing"] = sum_heads(weights, writes)
    controls = control_weights(weights)
    for name, other in (others or {}).items():
        if name in {"model", BEST, "layer sum", "layer sum by writing", *CONTROLS}:
            raise Refused(f"{name!r} is the name of a row of its own: give these weights another")
        sources[name] = other
    for name in controls["control"].values.tolist():
        sources[name] = controls.sel(control=name, drop=True)
    heads = as_ballots(weights, None, predictions)
    groups = {BEST: heads}
    for name, source in sources.items():
        groups[name] = as_ballots(source, None, predictions)
        if not np.array_equal(groups[name].target, heads.target):
            raise Refused(f"the weights {name!r} are of other prompts: their `target` differs")
    words = max((ballots.labels for ballots in groups.values()), key=len)
    return {name: replace(ballots, labels=words) for name, ballots in groups.items()}


CONTROLS = ("majority label", "last label", "position only", "random head", "labels permuted", "constant")


def _choices(
    groups: dict[str, Ballots], agreement: dict[str, np.ndarray], predicted: np.ndarray, train: np.ndarray
) -> dict[str, np.ndarray]:
    """What is chosen by agreement in every split, `[split]`: a source of each row, and the constant class."""
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
    """All methods' scores `[split]` by one criterion, on the prompts that nothing was chosen on."""
    test, every = ~train & (wanted >= 0), np.arange(len(train))
    heads, best = groups[BEST], choices[BEST]
    rows = {"model": np.full(len(train), np.nan)}  # agrees by itself
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
    """By row, what was chosen in each split; "" where there was no choice."""
    nothing = [""] * len(choices[BEST])
    named = {"model": nothing}
    for name, ballots in groups.items():
        names = source_names(ballots)
        named[name] = [names[i] for i in choices[name]]
    named |= dict.fromkeys(("position only", "random head", "labels permuted"), nothing)
    labels = groups[BEST].labels
    return named | {"constant": [labels[y] for y in choices["constant"]]}


def _means(found: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Means over some prompts: `found[prompt, source]` and bool `[split, prompt]` -> `[split, source]`."""
    count = prompts.sum(1, keepdims=True)
    total = prompts.astype(float) @ np.nan_to_num(found)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _by_position(
    heads: Ballots, wanted: np.ndarray, best: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Scores `[split]` of the chosen heads' mean weights by position."""
    profiles = [by_position(heads, source, prompts) for source, prompts in zip(best, train, strict=True)]
    found = vote_hits(replace(heads, weight=np.stack(profiles, 1)), wanted)
    return _means(found, test).diagonal()


def source_names(ballots: Ballots) -> list[str]:
    """What each source is called: "L5H1", "layer 5", a coordinate's value; "" where there is only one."""
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
    """Means, intervals and differences of all methods by one criterion."""
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
    """What `held_out` found, as a data frame by row, rounded to three digits for reading.

    Returns:
        `agreement` and `accuracy` with `_low` and `_high`; `agreement_difference` and `accuracy_difference`, best head
        less this, likewise; and `chosen`, what was chosen most often, in how many of the splits.

    Raises:
        TypeError: not a Dataset. Refused: not one of `held_out`.
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
    names, counts = np.unique(choices, return_counts=True)
    name, count = names[counts.argmax()], counts.max()
    return f"{name} ({count} of {len(choices)})" if name else ""

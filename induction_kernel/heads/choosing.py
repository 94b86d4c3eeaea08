"""Which heads are looked at further, and which are their fair controls? The strongest, and random others.

Choose on some prompts and report on others: the best of many heads looks better than it is where it was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import Refused
from ..given import checked_seed
from .naming import Head, HeadLike, as_heads, is_whole
from .summary import means_of, one_scorer, summarise

__all__ = ["head_table", "random_heads", "top_heads"]


def top_heads(
    scores: xr.Dataset,
    k: int | None = 5,
    *,
    min_score: float | None = None,
    layers: Iterable[int] | int | None = None,
    largest: bool = True,
    exclude: Iterable[HeadLike] = (),
    passing: bool = False,
) -> list[Head]:
    """The `k` heads with the largest excess over control (or chance), strongest first.

    Choose on some prompts and report on others: the best of many heads looks better than it is on the
    prompts it was chosen on.

    Args:
        scores: a score Dataset, or what `summarise` made of it.
        k: how many; fewer come back where fewer qualify. None for all that do.
        min_score: leave out heads whose mean score is below it (above it with `largest=False`).
        layers: only this layer, or these.
        largest: False for the smallest instead.
        exclude: heads to leave out.
        passing: only heads that pass the threshold of `summarise`.

    Raises:
        TypeError: not a Dataset of scores.
        Refused: `k` below 1, several scorers at once, a layer the scores do not have; `passing` of scores that cannot
            be tested.
    """
    _check_count(k)
    means = summarise(one_scorer(scores)) if passing else means_of(one_scorer(scores))
    if passing and not bool(means["tested"].any()):
        raise Refused(f"wanted heads that pass, got scores that cannot be tested: {means['untested'].item()}")
    wanted = _layers_of(means, layers)
    left_out = set(as_heads(exclude))
    sign = 1 if largest else -1
    found = []
    for layer in wanted:
        for head in means["head"].values.tolist():
            mean, excess = (float(means[key].sel(layer=layer, head=head)) for key in ("mean", "excess"))
            enough = min_score is None or sign * mean >= sign * min_score
            enough &= not passing or bool(means["passes"].sel(layer=layer, head=head) == 1)
            if enough and not np.isnan(excess) and Head(layer, head) not in left_out:
                found.append((-sign * excess, Head(layer, head)))
    return [head for _, head in sorted(found)[:k]]


def _layers_of(means: xr.Dataset, layers: Iterable[int] | int | None) -> list[int]:
    """The layers asked for, in order; Refused where the scores do not have one."""
    there = means["layer"].values.tolist()
    if layers is None:
        return sorted(there)
    wanted = list(layers) if isinstance(layers, Iterable) else [layers]
    if not set(wanted) <= set(there):
        raise Refused(f"wanted layers among {there}, got {wanted}")
    return sorted({int(layer) for layer in wanted})


def _check_count(k: int | None) -> None:
    if k is not None and (not is_whole(k) or k < 1):
        raise Refused(f"wanted k >= 1 heads, or None for all, got {k!r}")


def head_table(scores: xr.Dataset, k: int | None = 10) -> pd.DataFrame:
    """The `k` strongest heads as a data frame by name, strongest first, rounded to three digits for reading.

    Args:
        scores: a score Dataset of one scorer, or what `summarise` made of it.
        k: how many rows; None for all heads.

    Returns:
        As in `summarise`: rank, mean, low, high, control (else chance), excess, threshold where there is one, and
        passes: "yes", "no" or "untested".

    Raises:
        TypeError: not a Dataset of scores.
        Refused: several scorers at once.
    """
    _check_count(k)
    summary = summarise(one_scorer(scores))
    null = "control" if "control" in summary else "chance"
    columns = ["rank", "mean", "low", "high", null, "excess", "threshold", "passes"]
    frame = summary.reset_coords("name").to_dataframe().set_index("name").filter(items=columns)
    frame["passes"] = np.select([frame["passes"] == 1, frame["passes"] == 0], ["yes", "no"], "untested")
    frame["threshold"] = frame["threshold"].where(np.isfinite(frame["threshold"]))
    shown = frame.sort_values("rank").dropna(axis="columns", how="all").round(3)
    return shown.head(len(shown) if k is None else k)


def random_heads(
    model: Any,
    *,
    like: Iterable[HeadLike],
    exclude: Iterable[HeadLike] = (),
    seed: int = 0,
    control: str = "same layer",
) -> list[Head]:
    """As many other heads per layer as `like` has: the fair control for ablating `like`.

    Args:
        model: anything with `cfg.n_layers` and `cfg.n_heads`.
        like: the heads to match; never among those returned.
        exclude: further heads to leave out.
        seed: of the draw.
        control: "same layer", or "any layer" where layers have too few other heads.

    Raises:
        Refused: a layer has too few other heads; an unknown `control`; heads the model does not have.
    """
    if not hasattr(getattr(model, "cfg", None), "n_heads"):
        raise TypeError(f"wanted a TransformerLens model, got {type(model).__name__}")
    n_layers, n_heads = int(model.cfg.n_layers), int(model.cfg.n_heads)
    bounds = {"n_layers": n_layers, "n_heads": n_heads}
    chosen = as_heads(like, **bounds)
    taken = set(chosen) | set(as_heads(exclude, **bounds))
    rng = np.random.default_rng(checked_seed(seed))
    free = [
        Head(layer, head)
        for layer in range(n_layers)
        for head in range(n_heads)
        if (layer, head) not in taken
    ]
    if control == "any layer":
        groups = [(chosen, free)]
    elif control == "same layer":
        layers = sorted({head.layer for head in chosen})
        groups = [([h for h in chosen if h.layer == at], [h for h in free if h.layer == at]) for at in layers]
    else:
        raise Refused(f'wanted control="same layer" or "any layer", got {control!r}')
    out: list[Head] = []
    for wanted, pool in groups:
        if len(pool) < len(wanted):
            where = "the model" if control == "any layer" else f"layer {wanted[0].layer}"
            remedies = ["choose fewer heads"] * (len(wanted) > 1 or len(taken) > len(chosen))
            if control == "same layer" and len(free) >= len(chosen):
                remedies.append('pass control="any layer"')
            raise Refused(
                f"{where} has {len(pool)} other heads, {len(wanted)} are needed: "
                + (" or ".join(remedies) or "this model has none to compare these with, ablate them alone")
            )
        out += [pool[i] for i in rng.choice(len(pool), size=len(wanted), replace=False)]
    return sorted(out)

"""Random weights of demonstrations, and the vote of one prompt by loops."""

import numpy as np
import xarray as xr


def weights_of(weight, classes, target=None, **coords):
    """Weights in the shared format, `[prompt, (layer, head | source,) demonstration]`."""
    weight, classes = np.asarray(weight, dtype=float), np.asarray(classes)
    between = {2: (), 3: ("source",), 4: ("layer", "head")}[weight.ndim]
    return xr.Dataset(
        {"weight": (("prompt", *between, "demonstration"), weight)},
        coords={
            "label_class": (("prompt", "demonstration"), classes),
            "target": ("prompt", np.full(len(classes), -1) if target is None else np.asarray(target)),
            **coords,
        }
        | {dim: np.arange(weight.shape[1 + i]) for i, dim in enumerate(between) if dim != "source"},
    )


def random_case(seed=0, prompts=20, shape=(2, 3), demonstrations=6, labels=3):
    """Random weights, classes, targets and predictions; some prompts have fewer demonstrations."""
    rng = np.random.default_rng(seed)
    weight = rng.random((prompts, *shape, demonstrations))
    classes = rng.integers(0, labels, (prompts, demonstrations))
    absent = np.arange(demonstrations) >= rng.integers(2, demonstrations + 1, prompts)[:, None]
    classes[absent] = -1
    weight[np.broadcast_to(absent[:, None, None], weight.shape)] = np.nan
    target, predicted = rng.integers(0, labels, (2, prompts))
    return weights_of(weight, classes, target), predicted


def slow_vote(weight, classes, labels):
    """Class shares of one prompt and source, by loops."""
    votes = [0.0] * labels
    for a, y in zip(weight, classes, strict=True):
        if y >= 0:
            votes[y] += a
    return [vote / sum(abs(a) for a, y in zip(weight, classes, strict=True) if y >= 0) for vote in votes]


def slow_hit(shares, wanted):
    best = [y for y, share in enumerate(shares) if share >= max(shares) - 1e-9]
    return (wanted in best) / len(best)

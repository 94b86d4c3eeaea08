"""Is the vote of the demonstrations what it says, and does labels' chance look like chance?"""

import numpy as np
import pytest
import xarray as xr

import induction_kernel as ik


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


def test_the_vote_is_that_of_the_loops():
    weights, predicted = random_case()
    found = ik.reconstruct(weights, predictions=predicted)
    for prompt in range(20):
        classes = weights["label_class"].values[prompt]
        for layer in range(2):
            for head in range(3):
                at = {"prompt": prompt, "layer": layer, "head": head}
                shares = slow_vote(weights["weight"].isel(at).values, classes, 3)
                assert np.allclose(found["vote"].isel(at), shares, rtol=0, atol=1e-15)
                assert float(found["agreement"].isel(at)) == slow_hit(shares, predicted[prompt])
                assert float(found["correct"].isel(at)) == slow_hit(shares, weights["target"].values[prompt])
                assert int(found["prediction"].isel(at)) == int(np.argmax(shares))


@pytest.mark.parametrize(("wanted", "share"), [(0, 0.5), (1, 0.5), (2, 0.0)])
def test_classes_that_are_tied_share_the_agreement_and_none_wins(wanted, share):
    weights = weights_of([[0.1, 0.2, 0.3, 0.3, 0.05]], [[0, 0, 0, 1, 2]])
    weights["weight"][0, 3] = 0.6
    found = ik.reconstruct(weights, predictions=[wanted])
    assert found["agreement"].values == [share]
    assert found["prediction"].values == [-1]


def test_without_any_weight_all_classes_are_tied():
    found = ik.reconstruct(weights_of([[0.0, 0.0]], [[0, 1]], [1], label=["a", "b", "c", "d"]))
    assert found["correct"].values == [0.25]
    assert found["prediction"].values == [-1]
    assert np.isnan(found["vote"]).all()

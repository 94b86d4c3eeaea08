"""Explicit kernels and kernel regression: against loops and scikit-learn, and the laws of the bandwidth."""

import warnings

import numpy as np
import pytest
import xarray as xr

from induction_kernel.kernel._kernels import KERNELS, kernel_scores, kernel_shares
from induction_kernel.kernel._regression import GRID, explicit_similarity, kernel_regression

P, N, D, C = 12, 7, 5, 3


@pytest.fixture(scope="module")
def drawn():
    """Queries, demonstrations (some missing) and their classes."""
    rng = np.random.default_rng(0)
    q, k, y = rng.normal(size=(P, D)), rng.normal(size=(P, N, D)), rng.integers(0, C, (P, N))
    missing = np.arange(N) >= np.array([N, N - 2, 2, 1] * (P // 4))[:, None]
    k[missing], y[missing] = np.nan, -1
    return q, k, y


def value(q, k, kernel, h):
    """One kernel value, from the definition."""
    if kernel == "exponential":
        return np.exp(q @ k / h)
    if kernel == "gaussian":
        return np.exp(-(np.linalg.norm(q - k) ** 2) / (2 * h**2))
    return q @ k / (np.linalg.norm(q) * np.linalg.norm(k) if kernel == "cosine" else 1.0)


def looped(q, k, y, kernel, h):
    """Weights, one demonstration at a time."""
    out = np.full(y.shape, np.nan)
    for p in range(len(q)):
        values = {i: max(0.0, value(q[p], k[p, i], kernel, h)) for i in range(y.shape[1]) if y[p, i] >= 0}
        if sum(values.values()) == 0:
            values = dict.fromkeys(values, 1.0)
        for i, each in values.items():
            out[p, i] = each / sum(values.values())
    return out


def shares(weights, y, classes=C):
    """The vote, [prompt, class]."""
    return np.stack([np.where(y == c, np.nan_to_num(weights), 0).sum(-1) for c in range(classes)], -1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("h", [0.3, 1.0, 4.0])
def test_weights_are_those_of_the_loop(drawn, kernel, h):
    found = kernel_regression(*drawn, kernel=kernel, bandwidth=h)
    assert found["weight"].dims == ("prompt", "demonstration")
    np.testing.assert_allclose(found["weight"], looped(*drawn, kernel, h), rtol=1e-12, atol=1e-15)


def test_several_kernels_lie_on_a_dimension(drawn):
    found = kernel_regression(*drawn, kernel=KERNELS, bandwidth=0.7)
    assert found["weight"].dims == ("prompt", "kernel", "demonstration")
    for kernel in KERNELS:
        alone = kernel_regression(*drawn, kernel=kernel, bandwidth=0.7)["weight"]
        np.testing.assert_array_equal(found["weight"].sel(kernel=kernel), alone)
    np.testing.assert_array_equal(found["bandwidth"], [0.7, 0.7, np.nan, np.nan])
    np.testing.assert_array_equal(found["label_class"], drawn[2])


def test_the_gaussian_vote_is_that_of_scikit_learn(drawn):
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(1)
    q, k, y = rng.normal(size=(9, D)), rng.normal(size=(20, D)), rng.integers(0, C, 20)
    theirs = KNeighborsClassifier(20, weights=lambda d: np.exp(-(d**2) / (2 * 0.8**2))).fit(k, y)
    ours = kernel_regression(q, k, y, kernel="gaussian", bandwidth=0.8)
    np.testing.assert_allclose(
        shares(ours["weight"], ours["label_class"]), theirs.predict_proba(q), atol=1e-12
    )


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
def test_bandwidth_to_zero_is_the_nearest_neighbour_and_to_infinity_the_majority(drawn, kernel):
    q, k, y = drawn
    scores = kernel_scores(q, k, kernel)
    nearest = np.nanargmax(scores, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for h in (1e-9, 1e-100, 1e-308):
            weight = kernel_regression(*drawn, kernel=kernel, bandwidth=h)["weight"].values
            np.testing.assert_array_equal(np.nan_to_num(weight), np.eye(N)[nearest])
        equal = np.where(y >= 0, 1 / (y >= 0).sum(1, keepdims=True), np.nan)
        for h in (1e9, 1e200, np.inf):
            weight = kernel_regression(*drawn, kernel=kernel, bandwidth=h)["weight"].values
            np.testing.assert_allclose(weight, equal, atol=1e-7)


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
@pytest.mark.parametrize("h", [1e-300, 1e-3, 1.0])
def test_equally_near_demonstrations_share_alike_at_any_bandwidth(kernel, h):
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(1, 33)), rng.normal(size=(1, 5, 33))
    k[0, 1] = k[0, 4] = q[0]  # the nearest, twice
    weight = kernel_regression(10 * q, 10 * k, [[0, 1, 0, 0, 1]], kernel=kernel, bandwidth=h)[
        "weight"
    ].values[0]
    assert weight[1] == weight[4]
    if h < 1e-6:
        np.testing.assert_array_equal(weight, [0, 0.5, 0, 0, 0.5])


def test_huge_scores_neither_overflow_nor_divide_by_nothing():
    q, k = np.array([[1e150]]), np.array([[[1e150], [-1e150], [0.0]]])
    for kernel, wanted in (("exponential", [1, 0, 0]), ("gaussian", [1, 0, 0]), ("linear", [1, 0, 0])):
        weight = kernel_regression(q, k, [[0, 1, 0]], kernel=kernel, bandwidth=1e-5)["weight"]
        np.testing.assert_array_equal(weight[0], wanted)
    with pytest.raises(ValueError, match="scale the representations down"):
        kernel_regression(1e10 * q, k, [[0, 1, 0]], kernel="linear", bandwidth=1.0)


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
def test_a_negative_kernel_value_has_no_vote(kernel):
    q, k = np.array([[1.0, 0.0]]), np.array([[[3.0, 0.0], [-5.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
    weight = kernel_regression(q, k, [[0, 1, 1, 0]], kernel=kernel)["weight"].values[0]
    np.testing.assert_allclose(weight, [0.75, 0, 0.25, 0] if kernel == "linear" else [0.5, 0, 0.5, 0])
    kept = explicit_similarity(q, k, [[0, 1, 1, 0]], kernel=kernel)["similarity"].values[0]
    np.testing.assert_allclose(kept, [3, -5, 1, 0] if kernel == "linear" else [1, -1, 1, 0])


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
def test_where_no_kernel_value_is_positive_all_weights_are_equal(kernel):
    q, k = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[[-3.0, 1.0], [-5.0, 0.0], [0.0, 0.0]]] * 2)
    weight = kernel_regression(q, k, [[0, 1, 1]] * 2, kernel=kernel)["weight"]
    np.testing.assert_allclose(weight, np.full((2, 3), 1 / 3))


def left_out_loss(k, y, kernel, h):
    """Squared error of every demonstration predicted from the others of its prompt, one at a time."""
    losses = []
    for p in range(len(k)):
        there = [i for i in range(y.shape[1]) if y[p, i] >= 0]
        for i in there if len(there) > 1 else []:
            rest = [j for j in there if j != i]
            weight = looped(k[p, i][None], k[p, rest][None], y[p, rest][None], kernel, h)
            losses.append(((shares(weight, y[p, rest][None])[0] - np.eye(C)[y[p, i]]) ** 2).sum())
    return np.mean(losses)


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
def test_leave_one_out_takes_the_bandwidth_with_the_least_error(kernel):
    rng = np.random.default_rng(3)
    y = rng.integers(0, C, (P, N))
    k = 2 * rng.normal(size=(C, D))[y] + rng.normal(size=(P, N, D))
    k[5, 3:], y[5, 3:] = np.nan, -1
    chosen = float(kernel_regression(k[:, 0], k, y, kernel=kernel)["bandwidth"])
    best = left_out_loss(k, y, kernel, chosen)
    for factor in (GRID[33] / GRID[30], GRID[31] / GRID[30], GRID[29] / GRID[30], GRID[27] / GRID[30]):
        assert left_out_loss(k, y, kernel, chosen * factor) > best
    assert best < left_out_loss(k, y, kernel, 1e6) - 0.1  # than the majority: classes do lie apart here


def test_leave_one_out_over_a_pool_that_all_prompts_share():
    rng = np.random.default_rng(4)
    y = rng.integers(0, C, 30)
    k = 2 * rng.normal(size=(C, D))[y] + rng.normal(size=(30, D))
    shared = kernel_regression(k[:4], k, y)
    as_one_prompt = kernel_regression(k[:1], k[None], y[None])
    assert float(shared["bandwidth"]) == float(as_one_prompt["bandwidth"])
    np.testing.assert_array_equal(shared["label_class"], np.tile(y, (4, 1)))


def test_leave_one_out_of_demonstrations_that_are_all_the_same_takes_the_widest():
    k = np.ones((2, 4, 3))
    found = kernel_regression(k[:, 0], k, [[0, 1, 0, 1]] * 2, kernel="gaussian")
    assert float(found["bandwidth"]) == GRID[-1]
    np.testing.assert_array_equal(found["weight"], np.full((2, 4), 0.25))


def test_the_labels_of_queries_do_not_choose_the_bandwidth(drawn):
    q, k, y = drawn
    assert kernel_regression(q, k, y)["bandwidth"] == kernel_regression(-q, k, y)["bandwidth"]


def test_layers_and_heads_are_kept_apart(drawn):
    q, k, y = drawn
    dims = ("prompt", "layer", "head")
    both = xr.Dataset(
        {
            "queries": ((*dims, "feature"), np.stack([np.stack([q, 2 * q], 1)] * 3, 1)),
            "demonstrations": (
                (*dims, "demonstration", "feature"),
                np.stack([np.stack([k, k], 1), np.stack([k, 3 * k], 1), np.stack([-k, k], 1)], 1),
            ),
        },
        coords={
            "label_class": (("prompt", "demonstration"), y),
            "target": ("prompt", np.arange(P) % C),
            "layer": [2, 5, 6],
            "label": ["a", "b", "c"],
        },
    )
    found = kernel_regression(both, kernel=("exponential", "cosine"))
    assert found["weight"].dims == (*dims, "kernel", "demonstration")
    assert found["bandwidth"].dims == ("layer", "head", "kernel")
    for layer, head, a, b in ((2, 0, 1, 1), (2, 1, 2, 1), (5, 1, 2, 3), (6, 0, 1, -1)):
        alone = kernel_regression(a * q, b * k, y)
        here = found.sel(layer=layer, kernel="exponential").isel(head=head)
        np.testing.assert_allclose(here["bandwidth"], alone["bandwidth"], rtol=1e-12)
        np.testing.assert_allclose(here["weight"], alone["weight"], atol=1e-12)
    assert found["target"].values.tolist() == both["target"].values.tolist()
    assert found["label"].values.tolist() == ["a", "b", "c"]


def test_results_survive_netcdf(drawn, tmp_path):
    found = kernel_regression(*drawn, kernel=KERNELS)
    found.to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "w.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), found)


def test_nothing_of_the_users_is_changed(drawn):
    before = [each.copy() for each in drawn]
    kernel_regression(*drawn, kernel=KERNELS)
    for a, b in zip(before, drawn, strict=True):
        np.testing.assert_array_equal(a, b)
    scores = kernel_scores(drawn[0], drawn[1], "linear")
    kept = scores.copy()
    kernel_shares(scores, "linear")
    np.testing.assert_array_equal(scores, kept)

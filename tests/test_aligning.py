"""Alignment and bandwidth of weights: against scipy and loops, with known answers, and false alarms counted."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from induction_kernel.kernel._alignment import kernel_alignment
from induction_kernel.kernel._bandwidth import fitted_bandwidth
from induction_kernel.kernel._regression import explicit_similarity, kernel_regression

P, N, D = 40, 6, 4


def labelled(variable, values, dims=(), classes=None):
    """W or S of `values[prompt, *dims, demonstration]`."""
    classes = (
        np.where(np.isnan(values.reshape(len(values), -1, values.shape[-1])).all(1), -1, 0)
        if classes is None
        else classes
    )
    return xr.Dataset(
        {variable: (("prompt", *dims, "demonstration"), values)},
        coords={
            "label_class": (("prompt", "demonstration"), classes),
            "target": ("prompt", np.full(len(values), -1)),
        }
        | {dim: np.arange(values.shape[1 + i]) for i, dim in enumerate(dims)},
    )


@pytest.fixture(scope="module")
def drawn():
    """Weights over (layer, head), similarities over kernel; prompts of 3 and 6 demonstrations."""
    rng = np.random.default_rng(0)
    w, s = rng.random((P, 2, 3, N)), rng.normal(size=(P, 2, N))
    w[:, 1, 2] = 0.3 * w[:, 1, 2] + s[:, 0]  # one head is aligned with one kernel
    w[::2, ..., 3:], s[::2, ..., 3:] = np.nan, np.nan
    w[5, 0, 0] = 0.2  # a head that weighs all alike
    s[6, 1, :3] = 1.0
    w[:, 0, 1, :] = np.where(np.isnan(w[:, 0, 1]), np.nan, 0.25)  # never anything else
    return labelled("weight", w, ("layer", "head")), labelled("similarity", s, ("kernel",))


def test_r_is_that_of_scipy_within_each_prompt(drawn):
    weights, similarities = drawn
    found = kernel_alignment(weights, similarities, draws=100)
    assert found["alignment"].dims == ("prompt", "layer", "head", "kernel")
    w, s = weights["weight"].values, similarities["similarity"].values
    for p, layer, head, kernel in np.ndindex(P, 2, 3, 2):
        a, b = w[p, layer, head], s[p, kernel]
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
        constant = np.ptp(a) == 0 or np.ptp(b) == 0
        wanted = np.nan if constant else stats.pearsonr(a, b).statistic
        np.testing.assert_allclose(found["alignment"].values[p, layer, head, kernel], wanted, atol=1e-12)
    np.testing.assert_allclose(found["mean"], found["alignment"].mean("prompt"), atol=1e-15)
    assert found["n"].values.tolist() == [[[P - 1, P - 2], [0, 0], [P, P - 1]], [[P, P - 1]] * 3]


def test_pooled_r_is_that_of_scipy_over_all_pairs(drawn):
    weights, similarities = drawn
    found = kernel_alignment(weights, similarities, draws=100)
    w, s = weights["weight"].values, similarities["similarity"].values
    for layer, head, kernel in np.ndindex(2, 3, 2):
        a, b = w[:, layer, head], s[:, kernel]
        there = ~np.isnan(b)
        wanted = np.nan if np.ptp(a[there]) == 0 else stats.pearsonr(a[there], b[there]).statistic
        at = found.isel(layer=layer, head=head, kernel=kernel)
        np.testing.assert_allclose(at["pooled"], wanted, atol=1e-12)
        assert np.isnan(wanted) or at["pooled_low"] < wanted < at["pooled_high"]


def test_lengths_of_prompts_bring_about_a_pooled_r_and_none_within():
    """800 independent replicates: true r .5 between prompts' levels and none within; prompts are the units."""
    rng, replicates, prompts, rho = np.random.default_rng(9), 800, 16, 0.8
    level = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=(prompts, replicates))
    noise = rng.normal(size=(2, prompts, replicates, N)) * 0.6**0.5
    w, s = level[..., 0, None] + noise[0], level[..., 1, None] + noise[1]
    found = kernel_alignment(
        labelled("weight", w, ("head",)), labelled("similarity", s, ("head",)), draws=100
    )
    assert abs(float(found["mean"].mean())) < 0.02
    assert float(found["pooled"].mean()) == pytest.approx(0.5, abs=0.03)
    covered = (found["pooled_low"] <= 0.5) & (found["pooled_high"] >= 0.5)
    assert 0.9 < float(covered.mean()) < 0.98
    # as if demonstrations were independent, the interval would be far too narrow
    half = 1.96 / (prompts * N - 3) ** 0.5
    naive = abs(np.arctanh(found["pooled"]) - np.arctanh(0.5)) < half
    assert float(naive.mean()) < 0.8


def test_the_aligned_head_passes_and_what_is_constant_does_not(drawn):
    found = kernel_alignment(*drawn, draws=500)
    wanted = np.zeros((2, 3, 2), dtype=bool)
    wanted[1, 2, 0] = True
    np.testing.assert_array_equal(found["passes"], wanted)
    assert np.isnan(found["mean"][0, 1]).all()
    assert np.isnan(found["threshold"][0, 1]).all()
    one = found.isel(layer=1, head=2, kernel=0)
    assert one["low"] < one["mean"] < one["high"]


def test_the_threshold_is_that_of_permuting_one_prompt_at_a_time(drawn):
    """The slow twin: permute, correlate with numpy, keep the largest standardised mean."""
    weights, similarities = drawn
    rng, largest = np.random.default_rng(5), []
    w, s = weights["weight"].values, similarities["similarity"].values
    r = kernel_alignment(weights, similarities, draws=100)["alignment"].values
    count = (~np.isnan(s[:, 0])).sum(-1)
    defined = ~np.isnan(r)
    variance = (defined / (count - 1)[:, None, None, None]).sum(0)
    keep = defined.any(0)
    for _ in range(400):
        total = np.zeros((2, 3, 2))
        for p in range(P):
            order = rng.permutation(count[p])
            for layer, head, kernel in zip(*np.nonzero(defined[p]), strict=True):
                a, b = w[p, layer, head, : count[p]], s[p, kernel, : count[p]][order]
                a, b = a - a.mean(), b - b.mean()
                total[layer, head, kernel] += a @ b / np.sqrt((a @ a) * (b @ b))
        largest.append((total[keep] / np.sqrt(variance[keep])).max())
    critical = np.quantile(largest, 0.95)
    found = kernel_alignment(weights, similarities, draws=4000)
    ours = (found["threshold"] * found["n"]).values[keep] / np.sqrt(variance[keep])
    np.testing.assert_allclose(ours, ours[0], rtol=1e-9)  # one critical value for all cells
    error = np.std([np.quantile(rng.choice(largest, 400), 0.95) for _ in range(200)])
    assert abs(ours[0] - critical) < 4 * error


def test_false_alarms_come_at_the_stated_level():
    """60 families of 20 cells in which nothing matters: some cell passes in about 20% of them."""
    rng, alarms, families = np.random.default_rng(1), 0, 60
    for seed in range(families):
        weights = labelled("weight", rng.random((12, 20, 5)), ("head",))
        similarities = labelled("similarity", rng.normal(size=(12, 5)))
        alarms += bool(
            kernel_alignment(weights, similarities, draws=300, level=0.2, seed=seed)["passes"].any()
        )
    low, high = stats.binom.interval(0.999, families, 0.2)
    assert low <= alarms <= high


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_weights_that_are_the_similarities_align_to_1(scale):
    rng = np.random.default_rng(2)
    s = rng.random((P, N))
    found = kernel_alignment(labelled("weight", scale * s), labelled("similarity", 3 * s + 2), draws=100)
    np.testing.assert_allclose(found["alignment"], 1, atol=1e-9)
    against = kernel_alignment(labelled("weight", scale * s), labelled("similarity", -s), draws=100)
    np.testing.assert_allclose(against["mean"], -1, atol=1e-9)
    np.testing.assert_allclose([found["pooled"], -against["pooled"]], 1, atol=1e-9)
    assert not bool(against["passes"])


def test_dimensions_of_one_name_go_together():
    rng = np.random.default_rng(3)
    w, s = rng.random((P, 2, 3, N)), rng.random((P, 2, 3, N))
    found = kernel_alignment(
        labelled("weight", w, ("layer", "head")), labelled("similarity", s, ("layer", "head")), draws=100
    )
    assert found["alignment"].dims == ("prompt", "layer", "head")
    wanted = stats.pearsonr(w[7, 1, 2], s[7, 1, 2]).statistic
    np.testing.assert_allclose(found["alignment"][7, 1, 2], wanted, atol=1e-12)


def test_the_order_of_prompts_does_not_matter_and_the_seed_decides(drawn):
    weights, similarities = drawn
    order = np.random.default_rng(0).permutation(P)
    a = kernel_alignment(weights, similarities, draws=200)
    b = kernel_alignment(weights.isel(prompt=order), similarities.isel(prompt=order), draws=200)
    np.testing.assert_allclose(b["alignment"], a["alignment"][order], atol=1e-15)
    np.testing.assert_allclose(b["mean"], a["mean"], atol=1e-12)
    xr.testing.assert_identical(a, kernel_alignment(weights, similarities, draws=200))


def test_results_survive_netcdf(drawn, tmp_path):
    found = kernel_alignment(*drawn, draws=100)
    found.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), found)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(4)
    q, k, y = rng.normal(size=(P, D)), rng.normal(size=(P, N, D)), rng.integers(0, 2, (P, N))
    k[3, 2:], y[3, 2:] = np.nan, -1
    return q, k, y


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
@pytest.mark.parametrize("h", [0.2, 1.0, 30.0])
def test_the_bandwidth_of_a_kernel_comes_out_of_its_weights(vectors, kernel, h):
    weights = kernel_regression(*vectors, kernel=kernel, bandwidth=h)
    found = fitted_bandwidth(weights, *vectors[:2], kernel=kernel, draws=100)
    np.testing.assert_allclose([found["bandwidth"], found["low"], found["high"]], h, rtol=1e-7)
    np.testing.assert_allclose(found["fit"], 1, atol=1e-9)
    assert int(found["n"]) == P * N - (N - 2)
    both = fitted_bandwidth(weights, *vectors[:2], kernel=("exponential", "gaussian"), draws=100)
    assert float(both["fit"].max("kernel") - both["fit"].sel(kernel=kernel)) < 1e-9
    assert float(both["fit"].min("kernel")) < 0.95  # the other kernel is told apart


def test_the_fit_is_that_of_a_regression_with_an_intercept_for_each_prompt(vectors):
    q, k, y = vectors
    rng = np.random.default_rng(6)
    weights = kernel_regression(*vectors, bandwidth=2.0)
    noisy = weights.assign(weight=weights["weight"] * np.exp(rng.normal(size=(P, N))))
    found = fitted_bandwidth(noisy, q, k, draws=500)
    there = y >= 0
    x = np.einsum("pd,pnd->pn", q, np.nan_to_num(k))[there]
    own = (np.nonzero(there)[0][:, None] == np.arange(P)).astype(float)
    line = np.linalg.lstsq(np.column_stack([x, own]), np.log(noisy["weight"].values[there]), rcond=None)[0]
    np.testing.assert_allclose(found["bandwidth"], 1 / line[0], rtol=1e-9)
    assert found["low"] < 2.0 < found["high"]


def test_weights_without_the_kernel_have_no_bandwidth(vectors):
    q, k, y = vectors
    away = kernel_regression(-q, k, y, bandwidth=1.0)
    found = fitted_bandwidth(away, q, k, draws=100)
    assert np.isnan([found["bandwidth"], found["low"], found["high"]]).all()
    rng = np.random.default_rng(7)
    nothing = labelled("weight", np.where(y >= 0, rng.random((P, N)), np.nan), classes=y)
    assert float(fitted_bandwidth(nothing, q, k, draws=500)["high"]) == np.inf
    same = fitted_bandwidth(nothing, q, np.where(np.isnan(k), np.nan, 0.1), draws=100)
    assert np.isnan([same[key] for key in ("bandwidth", "low", "high", "fit")]).all()


def test_the_similarities_of_a_kernel_align_with_its_own_weights(vectors):
    for kernel in ("exponential", "gaussian"):
        weights = kernel_regression(*vectors, kernel=kernel, bandwidth=0.5)
        similarities = explicit_similarity(*vectors, kernel=kernel, bandwidth=0.5)
        np.testing.assert_allclose(
            kernel_alignment(weights, similarities, draws=100)["alignment"], 1, atol=1e-9
        )


def test_layers_find_one_another_by_number_and_prompts_by_place(drawn):
    """Prompts may be numbered otherwise; of layers only those that both have are compared."""
    rng = np.random.default_rng(8)
    w, s = rng.random((P, 3, N)), rng.random((P, 2, N))
    weights = labelled("weight", w, ("layer",)).assign_coords(prompt=np.arange(P))
    similarities = labelled("similarity", s, ("layer",)).assign_coords(
        layer=[2, 1], prompt=np.arange(P)[::-1], demonstration=np.arange(N) + 1
    )
    found = kernel_alignment(weights, similarities, draws=100)
    assert sorted(found["layer"].values.tolist()) == [1, 2]
    for layer, at in ((2, 0), (1, 1)):
        wanted = stats.pearsonr(w[3, layer], s[3, at]).statistic
        np.testing.assert_allclose(found["alignment"].sel(layer=layer).values[3], wanted, atol=1e-12)
    sorted_alike = kernel_alignment(weights.isel(layer=[1, 2]), similarities.sortby("layer"), draws=100)
    for key in ("mean", "threshold"):
        np.testing.assert_allclose(found[key].sortby("layer"), sorted_alike[key], atol=1e-12)


def test_similarities_of_one_layer_are_compared_with_heads_of_all(drawn):
    """Chosen by `.sel`, they carry the number of their layer."""
    weights, similarities = drawn
    chosen = similarities.assign_coords(layer=7)
    found = kernel_alignment(weights, chosen, draws=100)
    xr.testing.assert_identical(found, kernel_alignment(weights, similarities, draws=100))
    assert found["name"].values.tolist() == [[f"L{layer}H{head}" for head in range(3)] for layer in range(2)]

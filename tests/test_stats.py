"""Intervals, thresholds and correlations: what they cover, what they mark, and their plain definitions."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from induction_kernel.errors import Refused
from induction_kernel.stats import (
    correlation,
    correlation_interval,
    difference_interval,
    mean_interval,
    mean_share_difference_interval,
    mean_share_interval,
    percentiles,
    pooled_correlation,
    ratio,
    resampled,
    share_interval,
    split_interval,
    threshold,
)

RUNS = 1000
SYMMETRIC = {
    "normal": (lambda rng, size: rng.normal(size=size), 0),
    "t3": (lambda rng, size: rng.standard_t(3, size), 0),
}
SKEWED = {
    "lognormal": (lambda rng, size: rng.lognormal(size=size), np.exp(0.5)),
    "falling lognormal": (lambda rng, size: -rng.lognormal(size=size), -np.exp(0.5)),
    "beta": (lambda rng, size: rng.beta(0.3, 3, size), 0.3 / 3.3),
}


def covered(interval, truth):
    low, high = interval
    return ((low <= truth) & (truth <= high)).mean()


@pytest.mark.parametrize("n", [4, 8, 16, 32])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_means_of_symmetric_values_are_covered_from_four_prompts_on(name, n):
    draw, truth = SYMMETRIC[name]
    assert 0.93 <= covered(mean_interval(draw(np.random.default_rng(n), (n, RUNS))), truth) <= 0.98


@pytest.mark.parametrize("n", [8, 16, 32])
@pytest.mark.parametrize("name", SKEWED)
def test_means_of_skewed_values_are_covered_from_eight_prompts_on(name, n):
    draw, truth = SKEWED[name]
    assert 0.90 <= covered(mean_interval(draw(np.random.default_rng(n), (n, RUNS))), truth) <= 0.98


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_shares_are_covered_by_wilson(n):
    right = np.random.default_rng(n).random((n, RUNS)) < 0.9
    assert covered(share_interval(right.sum(0), n), 0.9) >= 0.92
    np.testing.assert_allclose(mean_share_interval(right), share_interval(right.sum(0), n))


@pytest.mark.parametrize("n", [8, 16, 32])
@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_ratios_of_means_are_covered(n, spread):
    rng = np.random.default_rng(n)
    below = rng.lognormal(0, 0.5, (n, RUNS))
    above = 0.7 * below * rng.lognormal(-(spread**2) / 2, spread, below.shape)
    value, low, high = ratio(above, below)
    known = np.isfinite(value)
    assert known.mean() > 0.95
    assert covered((low[known], high[known]), 0.7) >= 0.92


@pytest.mark.parametrize("n", [6, 12])
def test_two_samples_apart_are_covered(n):
    rng = np.random.default_rng(n)
    first, second = rng.normal(0, 1, (n, RUNS)), rng.normal(0.5, 3, (n + 4, RUNS))
    assert 0.93 <= covered(difference_interval(first, second), 0.5) <= 0.98


def test_small_samples_have_students_interval():
    values = np.random.default_rng(0).normal(size=7)
    low, high = mean_interval(values)
    wanted = scipy_stats.t.interval(0.95, 6, values.mean(), scipy_stats.sem(values))
    np.testing.assert_allclose((low, high), wanted)


def test_the_interval_of_a_mean_is_the_hull_of_students_and_bootstrap_t():
    """Against the obvious loop over draws."""
    values = np.random.default_rng(1).lognormal(size=12)
    n, mean, error = 12, values.mean(), scipy_stats.sem(values)
    found = []
    for counts in resampled(n, 500, 3).astype(int):
        drawn = np.repeat(values, counts)
        found.append((drawn.mean() - mean) / scipy_stats.sem(drawn))
    wide = error * np.sqrt(n / (n - 1))
    first, last = np.quantile(found, [0.025, 0.975])
    student = scipy_stats.t.interval(0.95, n - 1, mean, error)
    wanted = min(student[0], mean - last * wide), max(student[1], mean - first * wide)
    np.testing.assert_allclose(mean_interval(values, draws=500, seed=3), wanted)
    assert wanted[1] > student[1]  # to the side of the tail


def test_fiellers_interval_holds_the_ratios_whose_difference_from_zero_is_not_shown():
    rng = np.random.default_rng(2)
    below = 2 + rng.normal(size=7)
    above = below + rng.normal(size=7)
    value, low, high = ratio(above, below)
    assert value == pytest.approx(above.mean() / below.mean())
    for end in (low, high):
        assert scipy_stats.ttest_1samp(above - end * below, 0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_a_ratio_to_what_may_be_nothing_is_no_number():
    below = np.array([1.0, -1.0, 0.5, -0.4, 0.2])
    assert np.isnan(ratio(np.ones(5), below)).all()
    assert np.isnan(ratio(np.ones(1), np.ones(1))).all()


def test_ratios_that_do_not_vary_are_without_doubt():
    below = np.random.default_rng(0).lognormal(size=9)
    np.testing.assert_allclose(ratio(0.3 * below, below), 0.3, rtol=1e-6)


def test_missing_values_are_left_out():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(12, 3))
    values[[0, 4], 1], values[2:, 2] = np.nan, np.nan
    low, high = mean_interval(values)
    few = scipy_stats.t.interval(0.95, 1, values[:2, 2].mean(), scipy_stats.sem(values[:2, 2]))
    np.testing.assert_allclose((low[2], high[2]), few)  # two are left: Student's
    np.testing.assert_allclose([low[0], high[0]], mean_interval(values[:, 0]))
    assert low[1] < np.nanmean(values[:, 1]) < high[1]
    below = 3 + rng.normal(size=12)
    above = np.where(np.arange(12) < 5, np.nan, below)
    np.testing.assert_allclose(ratio(above, below)[0], 1)


def test_no_interval_without_two_values():
    assert np.isnan(mean_interval(np.ones((1, 2)))).all()
    assert np.isnan(mean_interval(np.full((9, 2), np.nan))).all()
    assert np.isnan(share_interval(0, 0)).all()


def test_values_that_do_not_vary_have_no_width():
    np.testing.assert_array_equal(mean_interval(np.full((9, 2), 0.25)), 0.25)


def test_cells_do_not_touch_one_another():
    values = np.random.default_rng(4).normal(size=(10, 600))
    low, high = mean_interval(values.reshape(10, 20, 30))
    assert low.shape == (20, 30)
    one = mean_interval(values[:, 577])
    np.testing.assert_allclose((low.ravel()[577], high.ravel()[577]), one)


def test_all_right_is_not_without_doubt():
    low, high = mean_share_interval(np.ones(8))
    wanted = scipy_stats.binomtest(8, 8).proportion_ci(method="wilson")
    np.testing.assert_allclose((low, high), (wanted.low, wanted.high))
    low, high = mean_share_interval(np.full(8, 0.5))
    assert low == high == 0.5
    shares = np.random.default_rng(3).uniform(-0.2, 0.3, 12)
    half, most = (mean_share_difference_interval(shares, confidence=level) for level in (0.5, 0.99))
    np.testing.assert_allclose(most, mean_interval(shares, confidence=0.99))
    assert most[0] < half[0] < half[1] < most[1]
    low, high = mean_share_difference_interval(np.zeros(8))
    assert -0.3 < low < 0 < high < 0.3


@pytest.mark.parametrize(
    ("n_sets", "share", "within"), [(6, 0.7, 0.2), (13, 0.8, 0.1), (13, 0.6, 0.0), (25, 0.9, 0.3)]
)
def test_shares_of_cases_in_sets_are_covered(n_sets, share, within):
    """16 cases to a set, whose results correlate by `within`; taken for independent they are covered too rarely."""
    rng, sets = np.random.default_rng(n_sets), np.repeat(np.arange(n_sets), 16)
    of_set = np.full((n_sets, RUNS), share)
    if within:
        odds = (1 - within) / within
        of_set = rng.beta(share * odds, (1 - share) * odds, (n_sets, RUNS))
    right = (rng.random((len(sets), RUNS)) < of_set[sets]).astype(float)
    assert 0.92 <= covered(mean_share_interval(right, sets=sets), share) <= 0.98
    if within:
        assert covered(share_interval(right.sum(0), len(sets)), share) < 0.85


def test_shares_of_cases_in_sets_by_hand():
    """Four sets of two: totals of residuals .5, -.5, -.5 and .5 give a variance of 4 / 3 / 64."""
    right, sets = np.array([1.0, 1, 1, 0, 0, 1, 1, 1]), np.array([7, 7, 2, 2, 5, 5, 9, 9])
    quantile = scipy_stats.norm.ppf(0.975) / scipy_stats.t.ppf(0.975, 3)
    n = 0.75 * 0.25 / (4 / 3 / 64) * quantile**2
    np.testing.assert_allclose(mean_share_interval(right, sets=sets), share_interval(0.75 * n, n))
    missing = np.append(right, np.nan), np.append(sets, 11)
    np.testing.assert_allclose(mean_share_interval(missing[0], sets=missing[1]), share_interval(0.75 * n, n))
    np.testing.assert_allclose(mean_share_interval(np.ones(8), sets=sets), share_interval(4, 4))
    alternating = np.array(
        [1.0, 0, 1, 0, 1, 0, 1, 0]
    )  # sets that do not differ count as no more than their cases
    np.testing.assert_allclose(mean_share_interval(alternating, sets=sets), share_interval(2, 4))
    nearly = np.array([1.0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0])
    few = np.repeat(np.arange(8), 2)
    np.testing.assert_allclose(mean_share_interval(nearly, sets=few), share_interval(nearly.sum(), 16))


@pytest.mark.parametrize("n", [8, 16, 32])
def test_differences_of_paired_shares_are_covered(n):
    rng = np.random.default_rng(n)
    differences = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(n, RUNS))
    assert covered(mean_share_difference_interval(differences), 0.2) >= 0.93


def test_draws_are_those_of_the_seed():
    values = np.random.default_rng(5).lognormal(size=20)
    same, again, other = (mean_interval(values, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert same[1] != other[1]


def test_percentiles_leave_out_what_is_not_defined():
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    low, high = percentiles(draws, confidence=0.5)
    np.testing.assert_allclose((low[0], high[0]), np.quantile([1, 2, 3], [0.25, 0.75]))
    assert low[1] == high[1] == 5
    assert np.isnan(percentiles(draws, least=0.5)[0][1])


def test_correlations_are_scipys():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 3, 9))
    y[2] = 1.0
    for kind, of in (("pearson", scipy_stats.pearsonr), ("spearman", scipy_stats.spearmanr)):
        found = correlation(x, y, kind)
        np.testing.assert_allclose(found[:2], [of(a, b)[0] for a, b in zip(x[:2], y[:2], strict=True)])
        assert np.isnan(found[2])
    low, high = correlation_interval(x[0], y[0], "spearman", seed=1)
    assert low < correlation(x[0], y[0], "spearman") < high
    with pytest.raises(Refused, match='wanted kind "pearson" or "spearman", got \'kendall\''):
        correlation(x, y, "kendall")


OF_NUMBERS = {
    "mean_interval": lambda a, b: mean_interval(a),
    "difference_interval": lambda a, b: difference_interval(a, b),
    "percentiles": lambda a, b: percentiles(a),
    "ratio": lambda a, b: ratio(a, b),
    "share_interval": lambda a, b: share_interval(a, b),
    "mean_share_interval": lambda a, b: mean_share_interval(b),
    "mean_share_difference_interval": lambda a, b: mean_share_difference_interval(b),
    "split_interval": lambda a, b: split_interval(b[:, 0], 70, 30),
    "correlation": lambda a, b: correlation(a, b),
    "pooled_correlation": lambda a, b: pooled_correlation(a, a, b, a, b, a),
    "threshold": lambda a, b: threshold(a).at,
}


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_of_few_digits_are_computed_with_many(name):
    """As what models give, float32 or float16, is: sums and squares of it need more digits."""
    call, rng = OF_NUMBERS[name], np.random.default_rng(9)
    for digits in (np.float32, np.float16):
        few = [rng.uniform(*ends, (12, 3)).astype(digits) for ends in ((0.9, 1), (0.5, 0.6))]
        found, expected = call(*few), call(*(each.astype(np.float64) for each in few))
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == np.float64


def sums(x, y):
    """What `pooled_correlation` takes, of values `[unit, pair]`."""
    return [np.full(len(x), x.shape[1]), *(each.sum(1) for each in (x, y, x * x, y * y, x * y))]


def test_a_pooled_correlation_has_the_interval_of_the_jackknife_from_three_units_on():
    x, y = np.random.default_rng(8).normal(size=(2, 3, 5))
    r, low, high = pooled_correlation(*sums(x, y))
    left = [
        np.arctanh(correlation(*(np.delete(each, unit, 0).ravel() for each in (x, y)))) for unit in range(3)
    ]
    half = scipy_stats.t.ppf(0.975, 2) * np.sqrt(2 * np.var(left))
    assert r == pytest.approx(correlation(x.ravel(), y.ravel()))
    np.testing.assert_allclose(np.arctanh([low, high]), np.arctanh(r) + np.array([-half, half]))
    assert np.isnan(pooled_correlation(*sums(x[:2], y[:2]))[1:]).all()


def test_splits_of_the_same_prompts_are_not_independent():
    scores = np.random.default_rng(7).normal(0.7, 0.05, 20).clip(0, 1)
    low, high = split_interval(scores, 70, 30)
    naive = scipy_stats.t.interval(0.95, 19, scores.mean(), scipy_stats.sem(scores))
    assert low < naive[0] < naive[1] < high


def skewed(rng, skew, size):
    shape = 4 / skew**2 if skew else 1
    return (
        np.sign(skew) * (rng.gamma(shape, 1, size) - shape) / np.sqrt(shape)
        if skew
        else rng.normal(size=size)
    )


def alarms(skew, n, runs, heads=144):
    """The share of runs without an effect in which a tested head passes, and of heads that are tested."""
    rng, found, tested = np.random.default_rng([int(10 - skew), n]), [], []
    for run in range(runs):
        values = skewed(rng, skew, (n, heads))
        judged = threshold(values, draws=400, seed=run)
        found.append((judged.tested & (values.mean(0) > judged.at)).any())
        tested.append(judged.tested.mean())
    return np.mean(found), np.mean(tested)


@pytest.mark.parametrize(("skew", "n"), [(-2, 8), (-2, 16), (-4, 8)])
def test_long_tails_below_raise_no_false_alarm(skew, n):
    """Sign flips alone marked a head in .7 to 1.0 of such runs."""
    found, tested = alarms(skew, n, 40)
    assert found <= 0.06
    assert tested > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 32])
@pytest.mark.parametrize("skew", [0, -1, -2, -4])
def test_false_alarms_stay_at_the_level(skew, n):
    found, _ = alarms(skew, n, 300)
    assert found <= 0.06 + 2 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(("n", "power"), [(16, 0.8), (32, 0.99)])
def test_a_planted_head_is_found(n, power):
    rng, found = np.random.default_rng(n), []
    for run in range(40):
        values = rng.normal(size=(n, 144))
        values[:, 7] += 1.5
        judged = threshold(values, draws=400, seed=run)
        found.append(values[:, 7].mean() > judged.at[7])
    assert np.mean(found) >= power


def test_what_is_tested_is_said():
    rng = np.random.default_rng(8)
    few = threshold(rng.normal(size=(5, 4)))
    assert not few.tested.any()
    assert (few.why, few.null) == ("5 prompts are too few for level 0.05: wanted 6 or more", "")
    assert threshold(rng.normal(size=(1, 4))).why == "1 prompt is too few for level 0.05: wanted 6 or more"
    tail = threshold(skewed(rng, -4, (7, 144)))
    assert not tail.tested.any()
    assert "skewed" in tail.why
    assert "exchangeable" in threshold(rng.normal(size=(16, 144))).null
    assert "skewed" in threshold(skewed(rng, -2, (16, 144))).null
    between = skewed(rng, -2, (12, 144))
    between[:, 0] = 1.4 + 0.5 * between[:, 0]  # flips alone would pass it
    between[:, 1] = 8 + 0.1 * between[:, 1]
    judged = threshold(between)
    assert judged.tested[:2].tolist() == [False, True]
    assert between[:, 1].mean() > judged.at[1]
    assert judged.tested.mean() > 0.9
    assert "12 prompts are too few to tell some cells from chance: about 36 usually decide" in judged.why
    more = skewed(rng, -2, (36, 144))
    more[:, 0] = 1.4 + 0.5 * more[:, 0]
    assert threshold(more).tested[0]
    values = rng.normal(size=(16, 4))
    values[0, 1] = np.nan
    missing = threshold(values)
    assert missing.tested.tolist() == [True, False, True, True]
    assert np.isnan(missing.at[1])
    assert "some cells have no value" in missing.why


def test_where_most_samples_do_not_vary_nothing_passes():
    """One prompt lost all, and most bootstrap samples do not hold it."""
    values = np.zeros((64, 4))
    values[0] = -1
    judged = threshold(values)
    assert np.isinf(judged.at).all()
    assert not (values.mean(0) > judged.at).any()


def test_one_outlier_does_not_send_an_end_out_of_sight():
    values = np.random.default_rng(0).normal(0.005, 0.003, 16)
    values[3] = 3.0
    low, high = mean_interval(values)
    width = scipy_stats.t.ppf(0.975, 15) * scipy_stats.sem(values)
    assert high == pytest.approx(values.mean() + 4 * width)
    assert low >= values.mean() - 4 * width

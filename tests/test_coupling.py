"""How often does the test cry wolf on curves that have nothing to do with each other, and does it see what is there?"""

import numpy as np
import pytest
from formula_curves import curves_of, together

import induction_kernel as ik
from induction_kernel.training._onset_coupling import exchanged_p, shifted_p
from induction_kernel.training._onsets import slope_of

LAST = 3.5  # ln(tokens) of the last of 24 checkpoints, the first at 0


def turning(rng, places, noise=0.02):
    """Slopes of noisy curves that turn from 0 to 1 at these places, at 24 random checkpoints."""
    x = np.sort(np.concatenate([[0, LAST], rng.uniform(0, LAST, 22)]))
    curves = 1 / (1 + np.exp(-(x - np.asarray(places)[:, None]) / 0.08))
    return slope_of(curves + noise * rng.standard_normal(curves.shape), np.exp(x), smoothing=0.05)


@pytest.fixture(scope="module")
def independent():
    """p-values of 400 pairs of curves whose turns are anywhere, each on its own."""
    rng = np.random.default_rng(0)
    return np.array([shifted_p(*turning(rng, rng.uniform(0, LAST, 2)))[1] for _ in range(400)])


@pytest.mark.parametrize("level", [0.05, 0.1, 0.25])
def test_independent_curves_raise_an_alarm_at_the_stated_rate(independent, level):
    error = np.sqrt(level * (1 - level) / len(independent))
    assert abs((independent <= level).mean() - level) < 3 * error


def test_curves_that_turn_at_one_place_are_found():
    rng = np.random.default_rng(1)
    found = [shifted_p(*turning(rng, np.full(2, rng.uniform(0.4, 3.1))))[1] for _ in range(200)]
    assert (np.array(found) <= 0.05).mean() > 0.9


def seeds(rng, *, coupled, n=5):
    """Slopes of two curves in five seeds that all turn in the same third of training."""
    first = rng.uniform(1.2, 2.2, n)
    second = first if coupled else rng.uniform(1.2, 2.2, n)
    x = np.linspace(0, LAST, 24)
    curves = [1 / (1 + np.exp(-(x - places[:, None]) / 0.08)) for places in (first, second)]
    noisy = [curve + 0.02 * rng.standard_normal(curve.shape) for curve in curves]
    return [slope_of(curve, np.exp(x), smoothing=0.05) for curve in noisy]


def test_a_common_schedule_deceives_the_shifts_but_not_the_pairing_of_seeds():
    rng = np.random.default_rng(2)
    drawn = [seeds(rng, coupled=False) for _ in range(200)]
    paired = np.array([exchanged_p(*pair, draws=0, rng=rng) for pair in drawn])
    shifted = np.array([shifted_p(first[0], second[0])[1] for first, second in drawn])
    assert (paired <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert (shifted <= 0.05).mean() > 0.1  # as its docstring warns


def test_seeds_that_turn_together_are_found():
    rng = np.random.default_rng(3)
    found = [exchanged_p(*seeds(rng, coupled=True), draws=0, rng=rng) for _ in range(100)]
    assert (np.array(found) <= 0.05).mean() > 0.9


def test_many_seeds_are_paired_by_draws():
    rng = np.random.default_rng(4)
    assert exchanged_p(*seeds(rng, coupled=True, n=9), draws=300, rng=rng) < 0.02
    assert exchanged_p(*seeds(rng, coupled=False, n=9), draws=300, rng=rng) > 0.02


def test_shifts_equal_the_obvious_slow_ones():
    first, second = np.random.default_rng(5).standard_normal((2, 41)).cumsum(1)
    statistic, p_value = shifted_p(first, second)
    slow = [np.corrcoef(first, np.roll(second, shift))[0, 1] for shift in range(41)]
    assert statistic == pytest.approx(slow[0], abs=1e-12)
    assert p_value == pytest.approx(np.mean(np.array(slow) >= slow[0] - 1e-12))


def test_of_curves_by_formula_it_tells_how_much_later_one_turns():
    found = ik.training.onset_coupling(curves_of(), "icl_score", "repeat_loss")
    assert {"smoothing", "draws", "seed"} <= set(found.attrs)
    assert found["difference"] == pytest.approx(0.1, abs=0.011)
    assert found["difference_low"] <= found["difference"] <= found["difference_high"]
    assert found["statistic"] > 0.8
    assert found["p_value"] < 0.1


def test_over_seeds_it_keeps_the_runs_and_adds_the_spread():
    runs = [curves_of(seed=seed) for seed in range(4)]
    family = together(runs, "seed", list(range(4)))
    found = ik.training.onset_coupling(family, "previous_token", "icl_score")
    assert found["p_value"].dims == ("seed",)
    assert found["seeds_p_value"].dims == ()
    assert found["seeds_p_value"] == 1  # seeds that turn at one time tell nothing
    assert found["difference_mean"] == pytest.approx(0.5, abs=0.011)
    assert found["difference_spread"] < 1e-9
    three = ik.training.onset_coupling(family.isel(seed=slice(3)), "previous_token", "icl_score")
    assert np.isnan(three["seeds_p_value"])

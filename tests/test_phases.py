"""The window, the onsets and the intervals that paper gives for curves by formula; then the embedded model's own."""

import numpy as np
import pytest
import xarray as xr
from formula_curves import ONSETS, TOKENS, A, B, curves_of, together
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

import induction_kernel as ik
from induction_kernel.training._onsets import (
    CURVES,
    grid_of,
    heads_of,
    slope_of,
    steepest,
    trained,
    values_of,
)

SMOOTHING = 0.05
# A ramp's slope is a box; smoothed, it is at a quarter of its height this far outside each end
WIDER = -norm.ppf(0.25) * SMOOTHING
GRID = 0.011


def in_logs(tokens):
    return np.log(np.asarray(tokens) / 1000)


@pytest.fixture(scope="module")
def window():
    return ik.training.phase_window(curves_of())


def test_the_window_is_the_ramp_of_the_score(window):
    assert window["exists"]
    assert window["exists_share"] == 1
    assert in_logs(window["start"]) == pytest.approx(A - WIDER, abs=GRID)
    assert in_logs(window["end"]) == pytest.approx(B + WIDER, abs=GRID)
    assert "quarter" in window.attrs["rule"]
    assert "crosses .3" in window.attrs["rule"]


def test_every_curve_turns_where_its_ramp_begins_and_in_that_order(window):
    expected = np.array([ONSETS[name] for name in CURVES]) - WIDER
    assert in_logs(window["onset"]) == pytest.approx(expected, abs=GRID)
    precedes = window["precedes"].sel(curve="previous_token", other="icl_score")
    assert precedes == 1
    assert window["precedes"].sel(curve="icl_score", other="previous_token") == 0
    assert window["precedes"].sel(curve="icl_score", other="copying") == 0.5  # the same ramp: ties count half


def test_what_the_window_holds_is_read_off_its_ends(window):
    # The repeat's ramp runs from 1.6 to 2.3, the window ends a little after 2.2
    assert window["fall"] == pytest.approx(4 * (B + WIDER - 1.6) / 0.7, abs=0.08)
    assert window["peak_excess"] == pytest.approx(0.8, abs=1e-6)
    assert window["resolution"].sel(curve="icl_score") == pytest.approx(TOKENS[16] - TOKENS[15])


def test_prompts_that_differ_in_height_alone_leave_no_doubt_about_the_window(window):
    for name in ("start", "end"):
        assert window[f"{name}_low"] == window[name] == window[f"{name}_high"]


def test_the_interval_is_that_of_the_mean_over_prompts():
    n, spread = 60, 0.3
    curves = curves_of(n=n, spread=spread)
    found = ik.training.phase_window(curves, draws=4000)
    done = (B + WIDER - 1.6) / 0.7  # the part of the repeat's ramp that the window holds
    falls = done * (curves["repeat_loss"][0] - curves["repeat_loss"][-1]).values
    half = 1.96 * falls.std(ddof=1) / np.sqrt(n)
    assert float(found["fall_high"] - found["fall_low"]) / 2 == pytest.approx(half, rel=0.05)
    assert found["fall_low"] < found["fall"] < found["fall_high"]


@pytest.mark.parametrize(
    "changes",
    [{"slow": True, "excess": 0.02, "fall": 0.3}, {"excess": 0.25}, {"fall": 0.9}, {"before": 0.4}],
    ids=["a slow fall, as of one layer", "no head forms", "the repeat stays", "heads were there before"],
)
def test_a_steepest_descent_without_induction_heads_is_no_window(changes):
    found = ik.training.phase_window(curves_of(**changes))
    assert not found["exists"]
    assert found["exists_share"] == 0
    numbers = ("start", "start_low", "end_high", "score_share", "fall", "peak_excess", "onset", "precedes")
    assert all(bool(found[name].isnull().all()) for name in numbers)


def test_a_fall_at_the_condition_is_a_window_in_some_draws_only():
    share = float(ik.training.phase_window(curves_of(fall=1.1, spread=0.5))["exists_share"])
    assert 0.05 < share < 0.95


def test_runs_keep_their_labels_and_a_layer_that_is_not_there_is_no_obstacle():
    shallow = curves_of(excess=0.1).isel(layer=[0])
    shallow["prefix_matching"] = shallow["prefix_matching"] + 0.01
    longer = curves_of().isel(checkpoint=slice(0, 36))  # another length: NaN at the last checkpoints
    family = together([curves_of(), longer], "seed", [3, 4])
    both = together([family, together([shallow, shallow], "seed", [3, 4])], "model", ["two", "one"])
    found = ik.training.phase_window(both)
    assert found["start"].dims == ("model", "seed")
    assert found["onset"].dims == ("model", "seed", "curve")
    assert found["exists"].values.tolist() == [[True, True], [False, False]]
    alone = ik.training.phase_window(longer)
    np.testing.assert_allclose(found["onset"].sel(model="two", seed=4), alone["onset"])


def test_it_survives_netcdf(window, tmp_path):
    window.to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "w.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), window)


def test_equal_heads_are_averaged_and_named():
    run = trained(curves_of())
    assert heads_of(run, "prefix_matching") == heads_of(run, "copying") == ["L1H0", "L1H1"]
    assert heads_of(run, "previous_token") == ["L0H2"]
    assert heads_of(run, "icl_score") == []


def test_heads_chosen_among_noise_score_nothing_on_the_other_prompts():
    chosen, cursed = [], []
    for seed in range(60):
        curves = curves_of(excess=0.0)
        noise = np.random.default_rng(seed).standard_normal(curves["prefix_matching"].shape)
        curves["prefix_matching"] = curves["prefix_matching"] + noise
        chosen.append(values_of(trained(curves), "prefix_matching")[:, -1].mean())
        cursed.append(curves["prefix_matching"][-1].mean("prompt").max())
    error = np.std(chosen) / np.sqrt(60)
    assert abs(np.mean(chosen)) < 3 * error < 0.2 < np.mean(cursed)


def test_slopes_and_regions_equal_the_obvious_slow_ones():
    rng = np.random.default_rng(0)
    tokens = np.sort(rng.uniform(1e3, 1e5, 12))
    means = rng.standard_normal((7, 12)).cumsum(1)
    grid = grid_of(tokens)
    step = grid[1] - grid[0]
    slow = [
        gaussian_filter1d(
            np.gradient(np.interp(grid, np.log(tokens), row), step), 0.07 / step, mode="nearest"
        )
        for row in means
    ]
    slopes = slope_of(means, tokens, smoothing=0.07)
    np.testing.assert_allclose(slopes, slow, atol=1e-9)
    starts, ends = steepest(slopes)
    for row, start, end in zip(slow, starts, ends, strict=True):
        first = last = int(np.argmax(row))
        while first > 0 and row[first - 1] > max(row) / 4:
            first -= 1
        while last < len(row) - 1 and row[last + 1] > max(row) / 4:
            last += 1
        assert (start, end) == (first, last)

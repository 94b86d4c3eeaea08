"""Per-token losses: their components, their slope along the context and their change, against known answers."""

import numpy as np
import pytest
import xarray as xr
from formula_curves import curves_of, ramp, together

import induction_kernel as ik


def by_position(losses):
    """Curves with these mean losses `[checkpoint, position]`."""
    dims = ("checkpoint", "position")
    coords = {"position": np.arange(losses.shape[1]), "tokens": ("checkpoint", np.arange(len(losses)) + 1.0)}
    return xr.Dataset({"position_loss": (dims, losses)}, coords)


def test_components_of_one_turn_are_one_line_and_equal_the_decomposition():
    curves = curves_of()
    found = ik.training.loss_components(curves)
    assert found["explained"][0] == pytest.approx(1)
    assert found["component"].dims == ("checkpoint", "pc")
    noisy = curves.assign(
        sampled_loss=curves["sampled_loss"] + np.random.default_rng(0).standard_normal((42, 20))
    )
    rows = noisy["sampled_loss"].values
    u, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    component = ik.training.loss_components(noisy)["component"].values
    np.testing.assert_allclose(np.abs(component), np.abs(u * s)[:, :2], atol=1e-9)


def test_several_runs_share_one_space_and_missing_checkpoints_stay_missing():
    short = curves_of(seed=1).isel(checkpoint=slice(0, 30))
    found = ik.training.loss_components(together([curves_of(), short], "seed", [0, 1]))
    assert found["component"].dims == ("seed", "checkpoint", "pc")
    missing = found["component"].isnull().any("pc").sum("checkpoint")
    assert missing.values.tolist() == [0, 12]


def test_a_loss_that_falls_with_the_log_of_the_index_has_its_slope_everywhere():
    index = np.arange(1, 96)
    found = ik.training.loss_slope(by_position(np.stack([5 - 0.7 * np.log(index), 3 + 0 * index])))
    np.testing.assert_allclose(found["slope"], [[-0.7] * 95, [0] * 95], atol=1e-9)


def test_the_slope_is_that_of_a_weighted_line():
    losses = np.random.default_rng(0).standard_normal((1, 30))
    x = np.log(np.arange(1, 31))
    # polyfit squares its weights
    slow = [np.polyfit(x, losses[0], 1, w=np.exp(-0.25 * ((x - at) / 0.3) ** 2))[0] for at in x]
    np.testing.assert_allclose(ik.training.loss_slope(by_position(losses))["slope"][0], slow, atol=1e-8)


def test_the_direction_is_the_change_between_the_ends_of_the_window():
    curves = curves_of()
    window = ik.training.phase_window(curves)
    found = ik.training.before_and_after(curves, window)
    heights = 5 - curves["sampled_loss"][-1].values
    done = np.interp(
        np.log([float(window["start"]), float(window["end"])]),
        np.log(curves["tokens"][1:]),
        ramp(1.5, 2.2)[1:],
    )
    np.testing.assert_allclose(found["change"], -heights * (done[1] - done[0]), atol=1e-9)
    assert float((found["direction"] ** 2).sum()) == pytest.approx(1)


def test_a_run_without_a_window_has_no_direction():
    family = together([curves_of(), curves_of(fall=0.2)], "model", ["with", "without"])
    found = ik.training.before_and_after(family, ik.training.phase_window(family))
    assert found["direction"].dims == ("model", "prompt")
    assert found["direction"].isnull().all("prompt").values.tolist() == [False, True]

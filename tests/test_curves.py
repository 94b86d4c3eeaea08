"""Training curves of the embedded model: the same prompts everywhere, the scorers' own numbers, and its window."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr

import induction_kernel as ik
from induction_kernel.loading import read_recipe
from induction_kernel.prompts import random_tokens
from induction_kernel.training._curves import Curves
from induction_kernel.training._language import stories

STEPS = [0, 400, 1000, 1300, 1400, 1450, 1500, 1550, 1600, 1750, 3200]
N, FEW = 64, 16


@pytest.fixture(scope="module")
def curves():
    return ik.training.training_curves("tiny", n=N, checkpoints=STEPS, progress=False)


@pytest.fixture(scope="module")
def trained():
    return ik.load("tiny", checkpoint=3200)


def test_they_are_labelled_per_prompt_and_single_precision(curves):
    assert curves["checkpoint"].values.tolist() == STEPS
    assert curves["tokens"].values.tolist() == [step * 3072 for step in STEPS]
    for name in ("icl_score", "loss", "sampled_loss", "repeat_loss", "first_copy_loss"):
        assert curves[name].dims == ("checkpoint", "prompt")
        assert curves[name].shape == (11, N)
    for name in ("prefix_matching", "prefix_matching_control", "previous_token", "copying"):
        assert curves[name].dims == ("checkpoint", "prompt", "layer", "head")
    assert curves["position_loss"].dims == ("checkpoint", "position")
    assert {str(variable.dtype) for variable in curves.data_vars.values()} == {"float32"}
    assert curves["copying_chance"].values == pytest.approx(4 / 26 - 1)
    assert all(isinstance(value, str | int | float) for value in curves.attrs.values())


def test_they_survive_netcdf(curves, tmp_path):
    curves.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "c.nc", engine="h5netcdf") as back:
        xr.testing.assert_identical(back.load(), curves)


def test_they_are_the_scorers_own_numbers(curves, trained):
    repeats = ik.repeated_tokens(trained, repeats=4, prompts=FEW, seed=0)
    last = curves.sel(checkpoint=3200)
    seen = ik.prefix_matching(trained, repeats, progress=False)
    for name, scores in {
        "prefix_matching": seen["score"],
        "prefix_matching_control": seen["control"],
        "repeat_loss": ik.repeat_loss(trained, repeats)["value"],
        "first_copy_loss": ik.repeat_loss(trained, repeats)["without"],
        "previous_token": ik.previous_token(trained, random_tokens(trained, prompts=FEW), progress=False)[
            "score"
        ],
        "copying": ik.copying(
            trained, random_tokens(trained, length=25, prompts=FEW, bos=False), progress=False
        )["score"],
    }.items():
        expected = scores.transpose(*last[name].dims).values
        np.testing.assert_allclose(last[name][:FEW].values, expected, atol=1e-6, err_msg=name)


def test_on_the_trainers_stories_it_finds_the_trainers_losses(trained):
    told = stories(np.random.default_rng(7), 64, 96)
    found = Curves(prompts=told, early=(10, 30), late=(75, 95)).losses(trained)
    logged = read_recipe()["checkpoints"][-1]
    # Checkpoints are kept in half precision
    assert float(found["icl_score"].mean()) == pytest.approx(logged["icl_score"], abs=2e-3)
    assert float(found["loss"].mean()) == pytest.approx(logged["loss_stories"], abs=2e-3)


def test_losses_are_those_of_every_position(trained):
    told = stories(np.random.default_rng(8), 6, 90)
    found = Curves(prompts=told, early=(5, 25), late=(60, 85)).losses(trained)
    each = ik.loss_by_position(trained, told)["loss"].values.astype(np.float64)
    np.testing.assert_allclose(found["icl_score"], each[:, 60:85].mean(1) - each[:, 5:25].mean(1), atol=1e-9)
    np.testing.assert_allclose(found["position_loss"], each[:, :89].mean(0), atol=1e-9)
    sampled = found["sampled_loss"].values[:, None]
    assert (np.abs(each[:, :89] - sampled).min(1) < 1e-9).all()


def test_prompts_depend_on_the_seed_and_not_on_the_checkpoint(trained):
    early = ik.load("tiny", checkpoint=400)
    one, other = (Curves(n=16).icl_prompts(model)[0].tokens for model in (trained, early))
    assert torch.equal(one, other)
    assert not torch.equal(one, Curves(n=16, seed=1).icl_prompts(trained)[0].tokens)


def test_the_measure_can_be_sent_to_a_worker_and_changes_nothing_here(trained):
    measure = pickle.loads(pickle.dumps(Curves(n=16)))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights = {name: value.clone() for name, value in trained.named_parameters()}
    xr.testing.assert_identical(measure(trained), Curves(n=16)(trained))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert all(torch.equal(value, weights[name]) for name, value in trained.named_parameters())


def test_a_sweep_that_was_stopped_goes_on_with_prompts_of_the_users(trained, tmp_path):
    given = ik.as_prompts(trained, stories(np.random.default_rng(9), 4, 96))
    options = {"prompts": given, "early": (10, 30), "late": (75, 95), "n": 16, "progress": False}
    part = ik.training.training_curves("tiny", checkpoints=[0], path=tmp_path / "sweep", **options)
    both = ik.training.training_curves("tiny", checkpoints=[0, 3200], path=tmp_path / "sweep", **options)
    np.testing.assert_array_equal(both["icl_score"].sel(checkpoint=0), part["icl_score"][0])


def test_the_embedded_model_has_a_window_in_which_heads_and_repeat_turn(curves):
    window = ik.training.phase_window(curves)
    assert window["exists"]
    assert window["exists_share"] > 0.9
    assert 1250 * 3072 < window["start_low"] <= window["start"] <= window["start_high"] < 1550 * 3072
    assert 1550 * 3072 < window["end_low"] <= window["end"] <= window["end_high"] < 2200 * 3072
    assert window["fall"] > 3
    assert window["peak_excess"] > 0.6
    assert set(str(window["heads"].sel(curve="prefix_matching").item()).split()) == {"L1H1", "L1H7"}


def test_in_it_the_previous_token_head_comes_first_and_the_other_curves_turn_together(curves):
    window = ik.training.phase_window(curves)
    assert window["precedes"].sel(curve="previous_token", other="repeat_loss") > 0.95
    for name in ("prefix_matching", "repeat_loss"):
        assert ik.training.onset_coupling(curves, "icl_score", name)["p_value"] < 0.05


def test_late_in_the_context_the_loss_falls_further_only_after_training(curves):
    slope = ik.training.loss_slope(curves)["slope"].sel(position=slice(40, 80)).mean("position")
    assert slope.sel(checkpoint=3200) < -0.2 < -0.15 < slope.sel(checkpoint=1000)

"""What the package says of its families of models, read off the curves it ships."""

from dataclasses import replace

import numpy as np
import pytest

import induction_kernel as ik
from induction_kernel.training._families import FAMILIES, SEEDS


@pytest.fixture(scope="module")
def curves():
    return ik.training.family_curves()


@pytest.fixture(scope="module")
def windows(curves):
    return ik.training.phase_window(curves, draws=200)


def test_the_shipped_curves_are_of_these_recipes(curves):
    assert curves["model"].values.tolist() == list(FAMILIES)
    assert curves["seed"].values.tolist() == list(SEEDS)
    for recipe in FAMILIES.values():
        assert tuple(curves["checkpoint"].values.tolist()) == recipe.kept
        assert (curves["tokens"] == curves["checkpoint"] * recipe.batch_size * recipe.context).all()
    assert curves["prefix_matching"].sel(model=["1-layer", "1-layer smeared"], layer=1).isnull().all()
    assert curves["repeat_loss"].notnull().sum("prompt").min() == 32


def test_two_layers_or_smeared_keys_are_needed_for_a_window(windows):
    exists = windows["exists"]
    assert not exists.sel(model="1-layer").any()
    assert exists.drop_sel(model="1-layer").all()


def test_smeared_keys_bring_the_window_forward_in_every_seed(windows):
    later, earlier = (windows["start"].sel(model=name) for name in ("2-layer", "2-layer smeared"))
    assert (earlier < later / 2).all()


@pytest.mark.slow
def test_a_family_s_run_is_the_shipped_one_up_to_rounding(curves, tmp_path):
    """Other processors round otherwise, and training amplifies it: the beginning agrees, and where it turns."""
    recipe = replace(FAMILIES["1-layer smeared"], checkpoints=(0, 25, 510))
    ik.training.train(recipe, seed=0, folder=tmp_path / "run", progress=False)
    found = ik.training.training_curves(tmp_path / "run", checkpoints=[0, 25, 510], progress=False)
    kept = curves.sel(model="1-layer smeared", seed=0, checkpoint=[0, 25, 510])
    np.testing.assert_allclose(found["loss"].mean("prompt")[:2], kept["loss"].mean("prompt")[:2], atol=2e-3)
    assert float(found["repeat_loss"].sel(checkpoint=510).mean()) < 2
    assert float(kept["repeat_loss"].sel(checkpoint=510).mean()) < 2

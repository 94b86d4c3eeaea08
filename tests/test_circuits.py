"""What heads do to each other by their weights: QK-trace and composition, against obvious twins."""

import naive
import numpy as np
import pytest
import torch
from hand_model import ARCHITECTURE, hand_weights
from zoo import fresh, hooked_only, tiny

import induction_kernel as ik
from induction_kernel.loading import build

KINDS = ("k", "q", "v")


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


def processed(name):
    """The model with its norms folded and its writing weights centred."""
    model = fresh(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_and_process_state_dict(
        state, fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True
    )
    return model


@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
def test_the_qk_trace_is_that_of_the_whole_matrix_over_the_vocabulary(name, bridge):
    model = tiny(name, bridge=bridge)
    found = ik.qk_trace(model, draws=1)
    weights = ik.previous_token(model)["score"].mean("prompt").values
    for head in range(4):
        twin = naive.qk_trace(model, weights, 1, head)
        assert float(found["score"].sel(layer=1, head=head)) == pytest.approx(twin, rel=1e-5)


def test_the_qk_trace_of_three_layers_counts_every_earlier_head():
    model = fresh("attention-only", n_layers=3)
    found = ik.qk_trace(model, draws=1)
    weights = ik.previous_token(model)["score"].mean("prompt").values
    assert found["layer"].values.tolist() == [1, 2]
    assert float(found["score"].sel(layer=2, head=1)) == pytest.approx(
        naive.qk_trace(model, weights, 2, 1), rel=1e-5
    )


def test_the_qk_trace_finds_the_induction_head_by_hand(by_hand):
    found = ik.qk_trace(by_hand, draws=200)
    # p = 1 of L0H0, whose OV passes every token on whole; L1H0 asks for it sharp times, 64 tokens
    assert float(found["score"].sel(layer=1, head=0)) == pytest.approx(200 * 64**0.5 * 64, rel=1e-4)
    assert found["score"].sel(layer=1, head=[1, 2]).values == pytest.approx(0, abs=1e-6)
    assert ik.top_heads(found, 1) == [(1, 0)]
    assert ik.summarise(found)["passes"].sel(layer=1).values.tolist() == [True, False, False]


def test_rotated_circuits_have_a_mean_trace_of_nothing():
    null = ik.qk_trace(tiny("attention-only"), draws=4000)["null"]
    assert np.all(np.abs(null.mean("draw")) < 4 * null.std("draw") / 4000**0.5)
    assert np.all(null.std("draw") > 0)


@pytest.mark.parametrize("by", KINDS)
@pytest.mark.parametrize("bridge", [False, True], ids=["default", "bridge"])
@pytest.mark.parametrize("name", ["attention-only", "GPT-2", "Llama"])
def test_composition_is_the_ratio_of_norms_of_whole_matrices(name, bridge, by):
    model = tiny(name, bridge=bridge)
    found = ik.composition(model, by=by)["score"]
    assert found.sel(layer=1).isnull().all()
    for sender, receiver in ((0, 1), (2, 3), (3, 0)):
        twin = naive.composition(model, 0, sender, 1, receiver, by)
        assert float(found.sel(layer=0, head=sender, receiver=f"L1H{receiver}")) == pytest.approx(
            twin, rel=1e-5
        )


@hooked_only
@pytest.mark.parametrize("by", KINDS)
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
def test_composition_is_transformer_lens_own_on_processed_weights(name, by):
    model = processed(name)
    theirs = model.all_composition_scores(by.upper())[0, :, 1].detach().numpy()
    for each in (model, tiny(name)):
        ours = ik.composition(each, by=by)["score"].sel(layer=0).values
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@hooked_only
@pytest.mark.parametrize("name", ["attention-only", "GPT-2"])
def test_raw_and_processed_weights_have_one_qk_trace(name):
    raw, same = (ik.qk_trace(model, draws=3) for model in (tiny(name), processed(name)))
    np.testing.assert_allclose(raw["score"], same["score"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(raw["null"], same["null"], rtol=1e-4, atol=1e-4)


@hooked_only
@pytest.mark.parametrize("score", [ik.composition, lambda model: ik.qk_trace(model, draws=2)])
def test_both_model_classes_agree(score):
    hooked, bridge = (score(tiny("GPT-2", bridge=bridge))["score"] for bridge in (False, True))
    np.testing.assert_allclose(hooked, bridge, rtol=1e-6)


def test_composition_by_hand(by_hand):
    keys, values = (ik.composition(by_hand, by=by)["score"] for by in ("k", "v"))
    # what L0H0 writes, the token before, is just what the keys of L1H0 are made of: |I I| / (|I| |I|), 64 tokens
    assert float(keys.sel(layer=0, head=0, receiver="L1H0")) == pytest.approx(64**-0.5)
    assert keys.sel(layer=0, head=0, receiver="L1H2").item() == 0
    assert values.sel(layer=0, head=0, receiver="L1H0").item() == 0


@pytest.mark.parametrize("name", ["attention-only", "Llama"])
def test_chance_and_spread_of_composition_are_those_of_random_rotations(name):
    """Of the whole residual stream; of what a LayerNorm leaves of it."""
    model = tiny(name)
    found = ik.composition(model).sel(layer=0, head=1, receiver="L1H2")
    squares = naive.rotated_composition(model, 0, 1, 1, 2, draws=4000, centred=name == "attention-only") ** 2
    assert squares.mean() == pytest.approx(float(found["chance"]) ** 2, rel=0.03)
    assert squares.std() == pytest.approx(2 * float(found["chance"] * found["spread"]), rel=0.05)


def test_nothing_is_changed():
    model = fresh("attention-only")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    ik.qk_trace(model, draws=2), ik.composition(model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "score", [lambda m: ik.qk_trace(m, draws=2), ik.composition], ids=["trace", "composition"]
)
def test_results_survive_netcdf(score, tmp_path):
    import xarray as xr

    found = score(tiny("attention-only"))
    found.to_netcdf(tmp_path / "found.nc")
    assert xr.load_dataset(tmp_path / "found.nc").identical(found)

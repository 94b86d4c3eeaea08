"""Argument 3: what is lost without the induction heads, on paper by hand, and beside runs made one by one."""

import numpy as np
import pytest
import torch
import xarray as xr
from hand_model import ARCHITECTURE, hand_weights

import induction_kernel as ik
from induction_kernel.evidence._ablation_runs import MODES, Removal, chosen_heads
from induction_kernel.evidence._direct_ablation import _controls as controls_of
from induction_kernel.evidence._verdicts import HOLDS, INCONCLUSIVE, NOT_DEFINED
from induction_kernel.heads import Head
from induction_kernel.loading import build
from induction_kernel.metrics import token_losses
from induction_kernel.training._curves import Curves

BANDS = {"early": (5, 25), "late": (35, 55)}
N = 16
STEPS, WINDOW = [600, 1500, 1700, 3200], (4.3e6, 5.3e6)  # 3,072 tokens a step: one before, two in, one after


@pytest.fixture(scope="module")
def by_hand():
    return build(ARCHITECTURE, hand_weights(), name="by hand")


@pytest.fixture(scope="module")
def lost_by_hand(by_hand):
    """On texts that are a repeat: the late band lies in the second copy."""
    texts = ik.repeated_tokens(by_hand, bos=0, period=31, prompts=N).tokens
    return ik.evidence.direct_ablation(by_hand, prompts=texts, n=N, progress=False, **BANDS)


@pytest.fixture(scope="module")
def trained():
    return ik.load("tiny")


@pytest.fixture(scope="module")
def along():
    return ik.evidence.direct_ablation(
        "tiny", n=N, checkpoints=STEPS, window=WINDOW, by_head=False, progress=False
    )


def test_by_hand_the_whole_score_is_the_induction_heads(lost_by_hand):
    found = lost_by_hand
    assert found.attrs["verdict"] == HOLDS
    assert found.attrs["induction_heads"] == "L1H0"
    assert (found["icl"] < -3).all()
    # without it every logit is 0, so every loss is ln 64 and the score 0
    nothing = found.sel(mode=["zero", "patterns"])
    np.testing.assert_allclose(nothing["icl"] + nothing["icl_joint"], 0, atol=1e-5)
    for key in ("icl_share", "icl_share_low", "icl_share_high", "icl_beyond", "icl_then_share"):
        np.testing.assert_allclose(nothing[key], 1, atol=1e-5)
    np.testing.assert_allclose(found["icl_control_share"], 0, atol=1e-6)  # L1H1 and L1H2 write nothing


def test_holding_patterns_keeps_what_the_previous_token_head_does_for_keys(lost_by_hand):
    """Removed, it takes the whole effect with it; with patterns held, only its direct path, which is none."""
    effect = lost_by_hand["icl_effect"].sel(layer=0, head=0).mean("prompt")
    whole = -lost_by_hand["icl"].mean("prompt")
    assert effect.sel(mode="zero") > 0.8 * whole
    assert effect.sel(mode="patterns").item() == pytest.approx(0, abs=1e-5)
    own = lost_by_hand["icl_effect"].sel(layer=1, head=0)
    np.testing.assert_allclose(own, lost_by_hand["icl_joint"], atol=1e-6)


def test_texts_that_grow_harder_to_predict_are_inconclusive(by_hand):
    """A repeat first, then what was never seen: the score is above 0, and there is nothing to lose."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(64, generator=generator)[:41] for _ in range(N)])
    texts = torch.cat([drawn[:, :21], drawn], 1)
    found = ik.evidence.direct_ablation(
        by_hand, prompts=texts, n=N, early=(21, 41), late=(41, 61), by_head=False
    )
    assert found.attrs["verdict"] == INCONCLUSIVE
    assert "score is reliably below 0, got" in found.attrs["reason"]


def test_a_model_without_induction_heads_is_not_defined():
    found = ik.evidence.direct_ablation(ik.load("tiny", checkpoint=0), n=N, progress=False)
    assert found.attrs["verdict"] == NOT_DEFINED
    assert "no head" in found.attrs["reason"]


def test_score_and_effects_are_those_of_edited_models(trained):
    """The twin: the edit made to last, and the curves' own score of whole runs."""
    heads, texts = (Head(1, 1), Head(1, 7)), Curves(n=N)
    removal = Removal(heads=heads, controls=((Head(0, 3),),), texts=texts, n=N, seed=0)
    found = removal(trained)
    clean = texts.losses(trained)["icl_score"].values
    np.testing.assert_allclose(found["icl"], clean, atol=1e-5)
    with ik.edited(trained, ik.Zero(), heads=heads):
        twin = texts.losses(trained)["icl_score"].values - clean
    np.testing.assert_allclose(found["icl_joint"].sel(mode="zero"), twin, atol=2e-5)
    ready, early, late = texts.icl_prompts(trained)

    def score(logits, given):
        loss = -logits.log_softmax(-1)[:, :-1].gather(-1, given.tokens[:, 1:, None])[..., 0]
        return loss[:, slice(*late)].mean(1) - loss[:, slice(*early)].mean(1)

    for mode, (edit, hold) in MODES.items():
        of_mode = found.sel(mode=mode)
        for group, effect in (
            (heads, of_mode["icl_joint"]),
            ([Head(0, 3)], of_mode["icl_control"].sel(draw=0)),
            ([Head(0, 4)], of_mode["icl_effect"].sel(layer=0, head=4)),
        ):
            twin = ik.ablate(trained, ready, group, edit=edit, hold=hold, metric=score)["effect"]
            np.testing.assert_allclose(effect, twin, atol=2e-5)


def test_a_repeat_is_measured_on_other_tokens_than_heads_are_chosen_on(trained):
    removal = Removal(heads=(Head(1, 7),), controls=(), texts=Curves(n=N), n=N, seed=0, by_head=False)
    prompts = ik.repeated_tokens(trained, prompts=N, seed=1)
    found = removal(trained)
    np.testing.assert_allclose(found["repeat"], ik.repeat_loss(trained, prompts)["value"], atol=1e-5)
    assert "repeat_effect" not in found
    assert found["repeat_n_then"].item() == len(chosen_heads(trained, n=N, seed=0)) == 2


def test_after_the_window_most_of_the_score_is_theirs_and_before_it_hardly_any_nats(along):
    """Eight stories tell that it is more than random heads', not yet how much: the slow test has 48."""
    assert along["phase"].values.tolist() == ["before", "in", "after"]
    assert (along["phase_icl_beyond_low"].sel(phase="after") > 0).all()
    assert (along["phase_icl_share"].sel(phase="after") > 0.5).all()
    nats = along["icl_joint"].mean("prompt")
    assert (nats.sel(checkpoint=600) < 0.15).all()
    assert (nats.sel(checkpoint=3200) > 0.3).all()


def test_phases_are_means_of_their_checkpoints(along):
    for phase, steps in (("in", [1500, 1700]), ("after", [3200])):
        run = along.sel(checkpoint=steps)
        twin = -run["icl_joint"].mean(("checkpoint", "prompt")) / run["icl"].mean()
        np.testing.assert_allclose(along["phase_icl_share"].sel(phase=phase), twin)


def test_a_share_of_nothing_reliable_is_not_given(along):
    """Eight stories cannot tell the score before the window from 0."""
    early = along.sel(checkpoint=600)
    assert early["icl_share"].isnull().all() == along["phase_icl_share"].sel(phase="before").isnull().all()
    mean, error = float(early["icl"].mean()), float(early["icl"].std()) / N**0.5
    assert bool(early["icl_share"].isnull().all()) is (mean + 2 * error > 0)


def test_modes_keep_their_names_through_the_sweep(along, trained):
    removal = Removal(heads=chosen(along), controls=(), texts=Curves(n=N), n=N, seed=0, by_head=False)
    found = removal(trained)
    for mode in MODES:
        np.testing.assert_allclose(
            along["icl_joint"].sel(checkpoint=3200, mode=mode), found["icl_joint"].sel(mode=mode), atol=2e-3
        )  # checkpoints are kept in float16
    assert (
        float(np.abs(found["icl_joint"].sel(mode="zero") - found["icl_joint"].sel(mode="mean")).max()) > 0.1
    )


def chosen(found):
    return tuple(Head(int(name[1]), int(name[3])) for name in found.attrs["induction_heads"].split())


def test_heads_chosen_at_a_checkpoint_that_has_none_lose_nothing(along):
    early = along.sel(checkpoint=600)
    assert early["icl_n_then"] == 0
    assert (early["icl_then"] == 0).all()
    assert (early["icl_joint"] != 0).any()
    last = along.sel(checkpoint=3200)
    np.testing.assert_allclose(last["icl_then"], last["icl_joint"], atol=1e-5)


def test_before_and_after_vectors_are_products_with_losses_of_whole_runs(along):
    """Here pattern-preserving is zero ablation, for the heads stand in the last layer."""
    texts = Curves(n=N)
    before, after, model = (ik.load("tiny", checkpoint=step) for step in (1350, 1750, 1700))
    ready = texts.icl_prompts(model)[0]

    def losses(of):
        return token_losses(of, ready)[:, :-1].double()

    change = losses(after) - losses(before)
    clean = losses(model)
    with ik.edited(model, ik.Zero(), heads=list(chosen(along))):
        moved = losses(model) - clean
    twin = float((change / change.norm() * moved).sum())
    assert along["change_joint"].sel(checkpoint=1700).sum().item() == pytest.approx(twin, rel=1e-3)
    assert twin < 0


def test_controls_come_from_other_layers_only_where_theirs_have_too_few(trained):
    few, same = controls_of(trained, [Head(1, 1), Head(1, 7)], 0)
    assert same == "same layer"
    assert {head.layer for heads in few for head in heads} == {1}
    many, anywhere = controls_of(trained, [Head(1, head) for head in range(5)], 0)
    assert anywhere == "any layer"
    assert {len(heads) for heads in many} == {5}
    with pytest.raises(ValueError, match="other heads"):
        controls_of(trained, [Head(layer, head) for layer in range(2) for head in range(5)], 0)


def test_thresholds_are_those_asked_for(lost_by_hand, by_hand):
    texts = ik.repeated_tokens(by_hand, bos=0, period=31, prompts=N).tokens
    strict = ik.evidence.direct_ablation(
        by_hand, prompts=texts, n=N, share=0.5, beyond=0.999999, by_head=False, **BANDS
    )
    assert strict["threshold"].values.tolist() == [0.5] * 3 + [0.999999] * 3
    assert strict["verdict"].values[:3].tolist() == [HOLDS] * 3
    assert "icl_effect" not in strict
    assert (lost_by_hand["verdict"] == HOLDS).all()
    assert set(zip(lost_by_hand["n"].values, lost_by_hand["of"].values, strict=True)) == {(N, "prompts")}


def test_the_model_and_random_numbers_are_as_before(by_hand):
    before = {key: value.clone() for key, value in by_hand.state_dict().items()}
    random = torch.get_rng_state()
    texts = ik.repeated_tokens(by_hand, bos=0, period=31, prompts=4).tokens
    ik.evidence.direct_ablation(by_hand, prompts=texts, n=16, by_head=False, **BANDS)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in by_hand.state_dict().items())


@pytest.mark.parametrize("which", ["along", "lost_by_hand"])
def test_results_survive_netcdf(which, request, tmp_path):
    found = request.getfixturevalue(which)
    found.to_netcdf(tmp_path / "found.nc")
    assert xr.load_dataset(tmp_path / "found.nc").identical(found)


@pytest.mark.slow
def test_the_whole_training_of_the_embedded_model():
    found = ik.evidence.direct_ablation("tiny", progress=False)
    assert found.attrs["verdict"] == HOLDS
    assert found.attrs["window_start"] < found.attrs["window_end"]
    share = found["phase_icl_share"].sel(mode="patterns")
    assert share.sel(phase="before") < share.sel(phase="in") < share.sel(phase="after")
    nats = found["icl_joint"].mean("prompt").sel(mode="patterns")
    assert nats.where(found["tokens"] < found.attrs["window_start"]).max() < 0.15 < 0.4 < nats[-1]

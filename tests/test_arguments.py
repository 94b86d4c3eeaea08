"""Do the arguments on curves say what is known of curves that were made up to hold, to fail, or to be no test?"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xarray as xr
from made_curves import TOKENS, curves, family

import induction_kernel as ik
from induction_kernel.evidence._mechanism import MECHANISM
from induction_kernel.evidence._seed_intervals import mean_check, window_check
from induction_kernel.evidence._verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    NOT_DEFINED,
    Check,
    inconclusive,
    judge,
    not_defined,
)

NONE = float("nan")
FIVE = [1100, 1250, 1400, 1500, 1600]
EARLIER = [900, 1000, 1150, 1150, 1300]


def verdict(found):
    return found.attrs["verdict"]


def those(found, *verdicts):
    """The names of the checks with one of these verdicts."""
    return found["check"].values[np.isin(found["verdict"].values, verdicts)].tolist()


def failing(found):
    return those(found, CONTRADICTED, INCONCLUSIVE)


# spreads


def test_a_mean_over_seeds_has_students_interval_and_leaves_out_runs_without_a_value():
    values = np.array([1.0, 2.0, 3.0, NONE])
    found = mean_check("x", values, values, values, threshold=0.5)
    half = 4.302652729911275 / np.sqrt(3)  # the t quantile of 2 degrees of freedom; standard deviation 1
    np.testing.assert_allclose([found.value, found.low, found.high], [2, 2 - half, 2 + half])
    assert (found.n, found.of, found.verdict) == (3, "seeds", INCONCLUSIVE)
    assert found.n_for == np.ceil(3 * (half / 0.1) ** 2)


@pytest.mark.parametrize("values", [[NONE, NONE], [1.0, NONE]])
def test_fewer_than_two_values_of_several_runs_have_no_interval(values):
    found = mean_check("x", *[np.array(values)] * 3, threshold=0.5)
    assert np.isnan(found.low)
    assert found.verdict == INCONCLUSIVE
    assert found.why == f"wanted two or more seeds with a window, got {np.isfinite(values).sum()} of 2"


def test_one_run_keeps_its_own_interval():
    found = mean_check("x", np.array([0.8]), np.array([0.7]), np.array([0.9]), threshold=0.6, prompts=24)
    assert (found.value, found.low, found.high, found.verdict) == (0.8, 0.7, 0.9, HOLDS)
    assert (found.n, found.of) == (24, "prompts")


@pytest.mark.parametrize(
    ("count", "n", "has", "lacks"),
    [
        (3, 3, INCONCLUSIVE, INCONCLUSIVE),
        (4, 4, HOLDS, CONTRADICTED),
        (0, 4, CONTRADICTED, HOLDS),
        (0, 3, INCONCLUSIVE, INCONCLUSIVE),
        (4, 5, INCONCLUSIVE, INCONCLUSIVE),
    ],
)
def test_four_of_four_seeds_are_needed_to_say_that_over_half_have_a_window_or_none(count, n, has, lacks):
    window = xr.Dataset({"exists": ("seed", [True] * count + [False] * (n - count))})
    assert window_check(window).verdict == has
    assert window_check(window, has=False).verdict == lacks


def test_three_perfect_seeds_say_how_many_more_it_takes():
    found = window_check(xr.Dataset({"exists": ("seed", [True] * 3)}))
    assert (found.low, found.high) == pytest.approx((0.4385, 1), abs=1e-4)
    assert (found.n, found.of, found.n_for) == (3, "seeds", 24)


@pytest.mark.parametrize(
    ("share", "has", "lacks"),
    [
        (0.99, HOLDS, CONTRADICTED),
        (0.975, HOLDS, CONTRADICTED),
        (0.5, INCONCLUSIVE, INCONCLUSIVE),
        (0.02, CONTRADICTED, HOLDS),
    ],
)
def test_one_run_has_a_window_where_nearly_all_resamplings_of_its_prompts_have_one(share, has, lacks):
    window = xr.Dataset({"exists": share > 0.5, "exists_share": share})
    assert window_check(window, prompts=24).verdict == has
    assert window_check(window, has=False).verdict == lacks
    assert np.isnan(window_check(window, prompts=24).n_for)  # more prompts need not settle it


# co_occurrence


@pytest.mark.parametrize("turns", [1400, FIVE])
def test_curves_that_turn_together_co_occur(turns, tmp_path):
    found = ik.evidence.co_occurrence(curves(turns, model="hand-made"))
    assert verdict(found) == HOLDS, found.attrs["reason"]
    assert found.sizes["seed"] == (5 if isinstance(turns, list) else 1)
    assert found.attrs["model"] == "hand-made"
    found.to_netcdf(tmp_path / "found.nc")
    assert xr.load_dataset(tmp_path / "found.nc").identical(found)


def test_curves_that_never_turn_do_not():
    found = ik.evidence.co_occurrence(curves([None] * 4))
    assert verdict(found) == CONTRADICTED
    assert those(found, CONTRADICTED) == ["share of seeds with a window"]
    formed = found.sel(check="share of the final ICL score formed in the window, mean over seeds")
    assert formed["why"].item() == "wanted two or more seeds with a window, got 0 of 4"


def test_three_perfect_seeds_leave_it_open():
    found = ik.evidence.co_occurrence(curves(FIVE[:3]))
    assert verdict(found) == INCONCLUSIVE
    assert failing(found)[0] == "share of seeds with a window"
    assert not those(found, CONTRADICTED)


def test_one_run_without_a_window_contradicts():
    found = ik.evidence.co_occurrence(curves(None))
    assert those(found, CONTRADICTED) == ["share of bootstrap samples with a window"]
    assert (
        found["why"].sel(check="share of the final ICL score formed in the window").item()
        == "the run has no window"
    )


def test_a_curve_that_turns_half_a_window_before_the_score_does_not_co_occur():
    found = ik.evidence.co_occurrence(curves([1600] * 4, late={"repeat_loss": 0.65}))
    assert verdict(found) == CONTRADICTED
    assert [name[:50] for name in those(found, CONTRADICTED)] == [
        "distance of the onsets of ICL score and repeat los"
    ]
    assert abs(found["difference"].sel({"with": "prefix_matching"})).max() < 0.1
    assert found["difference"].sel({"with": "repeat_loss"}).max() < -0.3


def test_a_score_that_was_there_before_the_window_fails_by_its_share():
    made = curves(1400)
    found = ik.evidence.co_occurrence(made.assign(icl_score=made["icl_score"] - 0.3))
    assert (
        those(found, CONTRADICTED) == failing(found) == ["share of the final ICL score formed in the window"]
    )
    assert found["value"].sel(check=failing(found)).item() == pytest.approx(0.5, abs=0.1)


def test_the_window_at_hand_is_the_one_that_is_used():
    made = curves(1400)
    found = ik.training.phase_window(made)
    given = ik.evidence.co_occurrence(made, window=found.assign(score_share_low=0.1))
    assert (
        those(given, INCONCLUSIVE) == failing(given) == ["share of the final ICL score formed in the window"]
    )
    assert ik.evidence.co_occurrence(made, window=found).identical(ik.evidence.co_occurrence(made))


def test_too_few_checkpoints_are_inconclusive():
    found = ik.evidence.co_occurrence(curves(1400).isel(checkpoint=[0, -1]))
    assert verdict(found) == INCONCLUSIVE
    assert "got 1" in found.attrs["reason"]
    just = ik.evidence.co_occurrence(curves(1400).isel(checkpoint=[0, 8, 16, 24, -1]))
    assert just.sizes["check"] > 0  # four after step 0 are judged


# co_perturbation


PLAIN = {"one": (None,) * 5, "one smeared": FIVE, "two": FIVE, "two smeared": EARLIER}


@cache
def windows(layers, turns):
    return ik.training.phase_window(curves(list(turns), layers=layers))


def perturbing(**models):
    """The verdict on a family, whose windows are found once for all tests."""
    parts = [windows(1 if name.startswith("one") else 2, tuple(turns)) for name, turns in models.items()]
    found = xr.concat(parts, "model", combine_attrs="override").assign_coords(model=list(models))
    return ik.evidence.co_perturbation(
        family(**{name: list(turns) for name, turns in models.items()}), window=found
    )


@pytest.fixture(scope="module")
def perturbed():
    return perturbing(**PLAIN)


@pytest.fixture(scope="module")
def single():
    """One run of each model, without a dimension of seeds."""
    return family(**{name: turns[1] for name, turns in PLAIN.items()})


def test_smeared_keys_that_bring_the_window_or_move_it_forwards_perturb_it(perturbed, tmp_path):
    found = perturbed
    assert verdict(found) == HOLDS, found.attrs["reason"]
    np.testing.assert_array_equal(found["layers"], [1, 2])
    ratio = found["log_ratio"].sel(pair="two smeared / two")
    np.testing.assert_allclose(ratio, np.log(np.array(EARLIER) / FIVE), atol=0.08)
    assert float(found["p_value"].sel(pair="two smeared / two")) == 1 / 32
    assert np.isnan(found["log_ratio"].sel(pair="one smeared / one")).all()
    found.to_netcdf(tmp_path / "found.nc")
    assert xr.load_dataset(tmp_path / "found.nc").identical(found)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"one": FIVE}, "one: share of seeds with a window"),
        ({"one smeared": [None] * 5}, "one smeared: share of seeds with a window"),
        ({"two smeared": FIVE}, "two smeared: share of seeds in which"),
        ({"two smeared": [2000] * 5}, "two smeared: ln of its"),
        ({"two smeared": [None] * 5}, "two smeared: share of seeds in which"),
    ],
)
def test_each_claim_on_smeared_keys_can_be_contradicted(changes, wrong):
    depth = wrong.split()[0].rstrip(":")
    found = perturbing(**{name: turns for name, turns in (PLAIN | changes).items() if name.startswith(depth)})
    assert verdict(found) == CONTRADICTED
    assert any(name.startswith(wrong) for name in those(found, CONTRADICTED))


def test_without_a_window_in_the_smeared_runs_there_is_no_ratio_of_starts():
    found = perturbing(two=FIVE, **{"two smeared": [None] * 5})
    ratio = found.isel(check=0)
    assert np.isnan(ratio["value"])
    assert ratio["why"].item() == "wanted two or more seeds with a window, got 0 of 5"


def test_single_runs_are_compared_by_the_intervals_over_their_prompts(single):
    found = ik.evidence.co_perturbation(single)
    assert verdict(found) == HOLDS, found.attrs["reason"]
    assert "p_value" not in found
    unsure = ik.training.phase_window(single)
    unsure["start_low"] = unsure["start"] / 1.3
    wrong = failing(ik.evidence.co_perturbation(single, window=unsure))
    assert wrong == ["two smeared: ln of its window's start over that of two"]


def test_pairs_may_be_named_and_without_any_there_is_no_test(single):
    renamed = single.isel(model=[2, 3]).assign_coords(model=["a", "b"])
    assert verdict(ik.evidence.co_perturbation(renamed)) == INCONCLUSIVE
    assert verdict(ik.evidence.co_perturbation(renamed, pairs={"a": "b"})) == HOLDS
    assert verdict(ik.evidence.co_perturbation(curves(1400))) == INCONCLUSIVE


# continuity

SURE = Check("a share", 0.8, 0.7, 0.9, 0.5)
SMALL = Check("a share", 0.6, 0.55, 0.65, 0.5)
UNSURE = Check("a share", 0.6, 0.4, 0.8, 0.5)
AGAINST = Check("a share", 0.3, 0.2, 0.4, 0.5)


def argued(*checks, argument="mechanism"):
    return judge(replace(MECHANISM, name=argument), checks)


def test_a_check_that_holds_at_every_model_is_continuous_and_is_that_of_the_weakest(tmp_path):
    found = ik.evidence.continuity({"large": argued(SURE), "small": argued(SMALL)})
    assert verdict(found) == HOLDS
    row = found.sel(check="mechanism: a share")
    assert [float(row[key]) for key in ("value", "low", "high")] == [0.6, 0.55, 0.65]
    assert row["weakest"].item() == "small"
    np.testing.assert_array_equal(row["value_of"].sel(model=["large", "small"]), [0.8, 0.6])
    assert row["check_verdict_of"].values.tolist() == [HOLDS, HOLDS]
    found.to_netcdf(tmp_path / "found.nc")
    assert xr.load_dataset(tmp_path / "found.nc").identical(found)


@pytest.mark.parametrize(
    ("others", "said", "weakest"),
    [
        ([argued(UNSURE)], INCONCLUSIVE, "c"),
        ([argued(Check("another", 0.8, 0.7, 0.9, 0.5))], INCONCLUSIVE, "c"),
        ([argued(Check("a share", 1, NONE, NONE, 0.5))], INCONCLUSIVE, "c"),
        ([inconclusive(MECHANISM, "too few")], INCONCLUSIVE, "c"),
        ([argued(AGAINST)], CONTRADICTED, "c"),
        ([argued(AGAINST), argued(UNSURE)], CONTRADICTED, "c"),
    ],
)
def test_one_model_at_which_a_check_does_not_hold_breaks_continuity(others, said, weakest):
    models = {"a": argued(SURE), "b": argued(SMALL), **dict(zip("cd", others, strict=False))}
    found = ik.evidence.continuity(models)
    assert verdict(found) == said
    assert found["weakest"].sel(check="mechanism: a share").item() == weakest


def test_models_on_which_an_argument_is_not_defined_are_left_out_and_counted():
    untested = not_defined(MECHANISM, "rotary")
    found = ik.evidence.continuity({"a": argued(SURE), "b": untested, "c": argued(SURE)})
    assert verdict(found) == HOLDS
    assert found["verdict_of"].sel(argument="mechanism").values.tolist() == [HOLDS, NOT_DEFINED, HOLDS]
    assert found["check_verdict_of"].values.tolist() == [[HOLDS, INCONCLUSIVE, HOLDS]]
    assert verdict(ik.evidence.continuity({"a": argued(SURE), "b": untested})) == INCONCLUSIVE


def test_several_arguments_are_compared_each_over_the_models_it_can_be_tested_on():
    both = [argued(SURE), argued(UNSURE, argument="generality")]
    found = ik.evidence.continuity({"a": both, "b": both, "c": argued(SURE)})
    assert found["check"].values.tolist() == ["mechanism: a share", "generality: a share"]
    assert failing(found) == ["generality: a share"]


@pytest.mark.parametrize(("turns", "said"), [(1600, HOLDS), (None, CONTRADICTED)])
def test_of_curves_of_several_models_co_occurrence_is_asked_at_each(turns, said):
    found = ik.evidence.continuity(family(two_small=1400, two_large=turns))
    assert verdict(found) == said, found.attrs["reason"]
    assert found["verdict_of"].sel(model="two-small").item() == HOLDS


def test_one_model_alone_is_no_test_of_continuity():
    assert verdict(ik.evidence.continuity(curves(1400))) == INCONCLUSIVE
    assert verdict(ik.evidence.continuity({"a": argued(SURE)})) == INCONCLUSIVE
    assert verdict(ik.evidence.continuity({})) == INCONCLUSIVE


# the figure of them all


def test_verdicts_of_curves_can_be_drawn(perturbed):
    results = [ik.evidence.co_occurrence(curves(None)), perturbed]
    figure = ik.plots.evidence_plot(results)
    assert len(figure.data) == sum(found.sizes["check"] for found in results)


@pytest.mark.slow  # 24 checkpoints
def test_the_embedded_model_turns_at_once_but_learns_some_of_its_score_before():
    """That over three quarters of the score form in the window, as in the paper, is not sure."""
    found = ik.evidence.co_occurrence(ik.training.training_curves("tiny", n=48, progress=False))
    assert failing(found) == ["share of the final ICL score formed in the window"]
    assert 1200 < float(found["start"][0]) / TOKENS < float(found["end"][0]) / TOKENS < 2000
    assert 0.5 < float(found["score_share"][0]) < 0.75


def test_continuity_takes_verdicts_whose_windows_were_chosen_by_name():
    """`.sel(model=...)` leaves the label in the window, and so in the verdict."""
    models = family(two=[1400], two_smeared=[1100])
    windows = ik.training.phase_window(models, draws=100)
    labels = models["model"].values
    each = {m: ik.evidence.co_occurrence(models.sel(model=m), window=windows.sel(model=m)) for m in labels}
    bare = {m: each[m].drop_vars("model") for m in labels}
    xr.testing.assert_identical(ik.evidence.continuity(each), ik.evidence.continuity(bare))

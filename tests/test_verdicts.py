"""A verdict follows from its checks alone: each interval against its threshold."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from induction_kernel.evidence._co_occurrence import CO_OCCURRENCE
from induction_kernel.evidence._co_perturbation import CO_PERTURBATION
from induction_kernel.evidence._continuity import CONTINUITY
from induction_kernel.evidence._generality import GENERALITY
from induction_kernel.evidence._mechanism import MECHANISM
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
from induction_kernel.evidence._wording import check_rows, counted, first_check, in_words

NONE = float("nan")
SURE = Check("a share", 0.8, 0.7, 0.9, 0.5, n=16, of="prompts")
OPEN = Check("a loss, nats", 0.2, -0.1, 0.5, 0.3, above=False, n=5, of="seeds")
AGAINST = Check("another share", 0.2, 0.1, 0.3, 0.5)
CHANCE = Check("a p-value", 0.04, NONE, NONE, 0.05, above=False, n=4, of="seeds", is_p=True)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.9, HOLDS, CONTRADICTED),
        (0.1, 0.4, CONTRADICTED, HOLDS),
        (0.4, 0.6, INCONCLUSIVE, INCONCLUSIVE),
        (0.5, 0.9, INCONCLUSIVE, INCONCLUSIVE),  # an end at the threshold is not beyond it
        (0.1, 0.5, INCONCLUSIVE, INCONCLUSIVE),
        (0.51, np.inf, HOLDS, CONTRADICTED),
        (NONE, NONE, INCONCLUSIVE, INCONCLUSIVE),
    ],
)
def test_a_check_holds_or_is_contradicted_by_its_whole_interval(low, high, above, below):
    assert Check("x", 0.5, low, high, 0.5).verdict == above
    assert Check("x", 0.5, low, high, 0.5, above=False).verdict == below


@pytest.mark.parametrize(("p", "verdict"), [(0.01, HOLDS), (0.05, INCONCLUSIVE), (0.9, INCONCLUSIVE)])
def test_a_p_value_never_contradicts(p, verdict):
    assert Check("p", p, NONE, NONE, 0.05, above=False, is_p=True).verdict == verdict


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([SURE], HOLDS),
        ([SURE, CHANCE], HOLDS),
        ([SURE, OPEN], INCONCLUSIVE),
        ([SURE, OPEN, AGAINST], CONTRADICTED),
        ([AGAINST, SURE], CONTRADICTED),
    ],
)
def test_a_claim_holds_only_if_every_check_does_and_is_contradicted_by_one(checks, verdict):
    assert judge(CO_OCCURRENCE, checks).attrs["verdict"] == verdict


def test_the_half_width_reached_and_the_n_for_a_stated_one_do_not_depend_on_the_value():
    assert OPEN.half_width == pytest.approx(0.3)
    assert OPEN.n_for == 45  # 5 (.3 / .1)^2
    moved = Check("x", 9.2, 8.9, 9.5, 0.3, n=5, of="seeds")
    assert moved.n_for == 45
    assert Check("x", 0, -0.105, 0.105, 0, n=100, stated=0.05).n_for == 441  # rounded up
    assert np.isnan(Check("x", 0, -0.1, 0.1, 0).n_for)  # nobody counted
    assert np.isnan(CHANCE.n_for)


def test_what_it_was_computed_from_is_kept_and_comes_back_from_a_file(tmp_path):
    details = xr.Dataset({"slope": ("checkpoint", [1.0, 2.0])}, attrs={"rule": "a quarter"})
    found = judge(CO_OCCURRENCE, [SURE, OPEN, CHANCE], details, attrs={"seeds": 5})
    assert found["verdict"].values.tolist() == [HOLDS, INCONCLUSIVE, HOLDS]
    assert found["n_for"].values[:2].tolist() == [16, 45]
    assert found["of"].values.tolist() == ["prompts", "seeds", "seeds"]
    assert (found.attrs["rule"], found.attrs["seeds"]) == ("a quarter", 5)
    assert "slope" in found
    assert "a loss, nats 0.2 [-0.1, 0.5], n = 5 seeds: < 0.3 is inconclusive" in found.attrs["reason"]
    found.to_netcdf(tmp_path / "verdict.nc")
    assert xr.load_dataset(tmp_path / "verdict.nc").identical(found)


def test_a_verdict_has_the_name_the_title_and_the_claim_of_its_argument():
    for found in (judge(CO_OCCURRENCE, [SURE]), not_defined(CO_OCCURRENCE, "-")):
        said = [found.attrs[key] for key in ("argument", "title", "claim")]
        assert said == [CO_OCCURRENCE.name, CO_OCCURRENCE.title, CO_OCCURRENCE.claim]


def test_a_sentence_speaks_of_the_primary_check_first():
    of_share = replace(CO_OCCURRENCE, primary="another share")
    found = judge(of_share, [SURE, OPEN, AGAINST])
    assert first_check(of_share, found) == in_words(found.isel(check=2))
    assert first_check(replace(of_share, primary="not there"), found) == in_words(found.isel(check=0))


@pytest.mark.parametrize(("make", "verdict"), [(not_defined, NOT_DEFINED), (inconclusive, INCONCLUSIVE)])
def test_without_checks_a_verdict_says_why(make, verdict, tmp_path):
    found = make(CO_PERTURBATION, "wanted a pair of models")
    assert (found.attrs["verdict"], found.attrs["reason"]) == (verdict, "wanted a pair of models")
    assert found.sizes["check"] == 0
    found.to_netcdf(tmp_path / "verdict.nc")
    assert xr.load_dataset(tmp_path / "verdict.nc").attrs == found.attrs


@pytest.mark.parametrize("checks", [[], [SURE, SURE]])
def test_checks_have_names_of_their_own(checks):
    with pytest.raises(ValueError, match="different names"):
        judge(CO_OCCURRENCE, checks)


# in words


def test_a_check_in_words_has_its_n_and_what_a_narrower_interval_takes():
    found = judge(CO_OCCURRENCE, [SURE, OPEN, CHANCE])
    sure, unsure, chance = (in_words(found.isel(check=at)) for at in range(3))
    assert sure == "a share is 0.8 (0.7 to 0.9, 16 prompts), wanted above 0.5"
    assert unsure == (
        "a loss, nats is 0.2 (−0.1 to 0.5, 5 seeds), wanted below 0.3; the half-width is 0.3, one of 0.1 "
        "would need about 45 seeds"
    )
    assert chance == "a p-value is 0.04 (4 seeds), wanted below 0.05"
    lone = judge(CO_OCCURRENCE, [Check("z", 1, NONE, NONE, 0, n=1, of="heads", why="wanted two, got one")])
    assert in_words(lone.isel(check=0)) == "z is 1 (1 head), wanted above 0: wanted two, got one"


def test_verdicts_are_counted_in_words():
    results = {
        "co_occurrence": judge(CO_OCCURRENCE, [SURE, OPEN, AGAINST]),
        "mechanism": judge(MECHANISM, [SURE]),
        "continuity": inconclusive(CONTINUITY, "-"),
        "generality": not_defined(GENERALITY, "-"),
    }
    said = "1 holds, 1 is contradicted, 1 is inconclusive, 1 is not defined on this model"
    assert counted(results) == said
    assert check_rows(results)[0] == ["1 Co-occurrence", CONTRADICTED, "1", "1", "1"]
    assert check_rows(results)[2] == ["6 Continuity", INCONCLUSIVE, "", "", ""]

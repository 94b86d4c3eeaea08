"""A verdict follows from its checks alone: each interval against its threshold."""

import numpy as np
import pytest
import xarray as xr

from induction_kernel.evidence.verdicts import FAILS, HOLDS, NOT_DEFINED, Check, judged, not_defined

SURE = Check("a share", 0.8, 0.7, 0.9, 0.5)
UNSURE = Check("a loss, nats", 0.2, -0.1, 0.4, 0.3, above=False)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (SURE, True),
        (Check("at the threshold", 0.8, 0.5, 0.9, 0.5), False),
        (UNSURE, False),
        (Check("below", 0.2, -0.1, 0.29, 0.3, above=False), True),
        (Check("no interval", 0.8, np.nan, np.nan, 0.5), False),
        (Check("no interval", 0.2, np.nan, np.nan, 0.5, above=False), False),
    ],
)
def test_a_check_passes_where_its_whole_interval_is_beyond_the_threshold(check, passed):
    assert check.passed is passed


def test_an_argument_holds_if_every_check_passes_and_keeps_what_it_was_computed_from(tmp_path):
    details = xr.Dataset({"slope": ("checkpoint", [1.0, 2.0])}, attrs={"rule": "a quarter"})
    held = judged("co_occurrence", "they turn together", [SURE], details, attrs={"n": 5})
    failed = judged("co_occurrence", "they turn together", [SURE, UNSURE], details)
    assert (held.attrs["verdict"], failed.attrs["verdict"]) == (HOLDS, FAILS)
    assert failed["passed"].sel(check="a share")
    assert not failed["passed"].sel(check="a loss, nats")
    assert held.attrs["rule"] == "a quarter"
    assert held.attrs["n"] == 5
    assert "slope" in held
    assert "a loss, nats 0.2 [-0.1, 0.4], not < 0.3" in failed.attrs["reason"]
    failed.to_netcdf(tmp_path / "verdict.nc")
    assert xr.load_dataset(tmp_path / "verdict.nc").identical(failed)


def test_not_defined_has_no_checks_and_says_why(tmp_path):
    found = not_defined("co_perturbation", "smeared keys move the window", "no checkpoints")
    assert found.attrs["verdict"] == NOT_DEFINED
    assert found.attrs["reason"] == "no checkpoints"
    assert found.sizes["check"] == 0
    found.to_netcdf(tmp_path / "verdict.nc")
    assert xr.load_dataset(tmp_path / "verdict.nc").attrs == found.attrs


@pytest.mark.parametrize("checks", [[], [SURE, SURE]])
def test_checks_have_names_of_their_own(checks):
    with pytest.raises(ValueError, match="different names"):
        judged("x", "y", checks)
